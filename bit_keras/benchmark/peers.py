"""What others offer for the network of an artifact, as far as it is installed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from bit_keras.benchmark.entries import Entry, Network
from bit_keras.benchmark.process import environment

#: Seconds after which the writing of a peer's file counts as stuck.
_WRITE_TIMEOUT = 1800.0


def peer_entries(network: Network, folder: Path, threads: int, suffix: str = "") -> list[Entry]:
    """The peers of an artifact: other programs that compute the same network.

    timm's and transformers' networks run in PyTorch's eager mode, in float32 and with
    autocast to bfloat16; ONNX Runtime and OpenVINO run an ONNX file of the network with
    folded kernels and a fixed size, OpenVINO compiled for each batch size, in float32, in
    bfloat16, and quantised to int8 by NNCF. All have random weights. What is not
    installed, or cannot be made, is a entry with the reason.

    Args:
        network: Network.
        folder: Path. Where the files that some of them run are written.
        threads: int. That the writing takes.
        suffix: str. Behind the names, where there are peers of other networks, too.

    Returns:
        list of Entry.
    """
    onnx, int8 = folder / "network.onnx", folder / "int8.xml"
    without_onnx = _written(threads, "onnx", json.dumps(dataclasses.asdict(network)), onnx)
    without_int8 = without_onnx or _written(threads, "int8", onnx, int8)

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


def _written(threads: int, *arguments: str | Path) -> str | None:
    """Writes a file in a process that gives its memory back; returns why that failed."""
    command = [sys.executable, "-m", "bit_keras.benchmark.peer_files", *map(str, arguments)]
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environment(threads),
            timeout=_WRITE_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        return f"Its file was not written within {_WRITE_TIMEOUT:.0f} seconds."
    if process.returncode == 0:
        return None
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else f"The writing of its file ended with {process.returncode}."
