"""Other programs for the network of an artifact, as far as they are installed."""

import dataclasses
from pathlib import Path
from typing import Any

from bit_keras.benchmark.entries import Entry, Network
from bit_keras.benchmark.process import environment, failure_of
from bit_keras.errors import BitKerasError
from bit_keras.processes import run_in_process

#: Seconds after which the writing of a peer's file counts as stuck.
_WRITE_TIMEOUT = 1800.0


def peer_entries(network: Network, folder: Path, threads: int, suffix: str = "") -> list[Entry]:
    """The peers of an artifact: other programs that compute the same network.

    timm's and transformers' networks run in PyTorch's eager mode, in float32 and with
    autocast to bfloat16; ONNX Runtime and OpenVINO run an ONNX file of the network with
    folded kernels and a fixed size, OpenVINO compiled for each batch size, in float32, in
    bfloat16, and quantised to int8 by NNCF. All have random weights. What is not
    installed, or cannot be written, is an entry with the reason.

    Args:
        network: Network.
        folder: Path. Where the files that some of them run are written.
        threads: int. That the writing takes.
        suffix: str. Appended to the names, where there are peers of other networks, too.

    Returns:
        list of Entry.
    """
    onnx, int8 = folder / "network.onnx", folder / "int8.xml"
    without_onnx = _written(threads, "write_onnx", dataclasses.asdict(network), onnx)
    without_int8 = without_onnx or _written(threads, "write_int8", str(onnx), int8)

    def of_torch(package: str, precision: str) -> Entry:
        name = package if precision == "float32" else f"{package}, {precision}"
        return Entry(name + suffix, network, "PyTorch", precision, program=package, peer=True)

    def of_file(name: str, path: Path, precision: str, program: str, failure: str | None) -> Entry:
        return Entry(
            name + suffix,
            network,
            name.partition(",")[0],
            precision,
            program,
            str(path),
            peer=True,
            failure=failure,
        )

    return [
        of_torch("timm", "float32"),
        of_torch("timm", "bfloat16"),
        of_torch("transformers", "float32"),
        of_torch("transformers", "bfloat16"),
        of_file("ONNX Runtime", onnx, "float32", "file", without_onnx),
        of_file("OpenVINO", onnx, "float32", "openvino", without_onnx),
        of_file("OpenVINO, bfloat16", onnx, "bfloat16", "openvino", without_onnx),
        of_file("OpenVINO, int8", int8, "int8", "openvino", without_int8),
    ]


def _written(threads: int, function: str, source: Any, path: Path) -> str | None:
    """Writes a file in a process that gives its memory back; returns why that failed."""
    try:
        run_in_process(
            f"bit_keras.benchmark.peer_files:{function}",
            {"source": source, "path": str(path)},
            timeout=_WRITE_TIMEOUT,
            environment=environment(threads),
        )
    except BitKerasError as error:
        return failure_of(error)
    return None
