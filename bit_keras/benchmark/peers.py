"""Other programs for the network of an artifact, as far as they are installed."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bit_keras.benchmark.entries import Entry, Network
from bit_keras.benchmark.entry_process import environment, failure_of, images_of
from bit_keras.errors import BitKerasError
from bit_keras.extras import require_extra
from bit_keras.processes import run_in_process

#: Seconds after which the writing of a peer's file counts as stuck.
_WRITE_TIMEOUT = 1800.0

#: Images that NNCF looks at: its ranges decide about accuracy, which random weights have not.
_CALIBRATION_IMAGES = 8


def peer_entries(networks: Iterable[Network], folder: Path, threads: int) -> list[Entry]:
    """The peers of artifacts: other programs that compute the same networks.

    timm's and transformers' networks run in PyTorch's eager mode, in float32 and with
    autocast to bfloat16; ONNX Runtime and OpenVINO run an ONNX file of the network with
    folded kernels and a fixed size, OpenVINO compiled for each batch size, in float32, in
    bfloat16, and quantised to int8 by NNCF. All have random weights. What is not
    installed, or cannot be written, is an entry with the reason.

    Args:
        networks: iterable of Network. Each counts once.
        folder: Path. Where the files that some of them run are written.
        threads: int. That the writing takes.

    Returns:
        list of Entry. Where there are several networks, each is named after its network, too.
    """
    different = list(dict.fromkeys(networks))
    entries = []
    for number, network in enumerate(different):
        suffix = f", {network.model} at {network.height}" if len(different) > 1 else ""
        onnx, int8 = (str(folder / f"{number}-{name}") for name in ("network.onnx", "int8.xml"))
        no_onnx = _written(threads, "write_onnx", dataclasses.asdict(network), onnx)
        no_int8 = no_onnx or _written(threads, "write_int8", onnx, int8)
        peers = (
            ("timm", "PyTorch", "float32", "timm", None, None),
            ("timm, bfloat16", "PyTorch", "bfloat16", "timm", None, None),
            ("transformers", "PyTorch", "float32", "transformers", None, None),
            ("transformers, bfloat16", "PyTorch", "bfloat16", "transformers", None, None),
            ("ONNX Runtime", "ONNX Runtime", "float32", "file", onnx, no_onnx),
            ("OpenVINO", "OpenVINO", "float32", "openvino", onnx, no_onnx),
            ("OpenVINO, bfloat16", "OpenVINO", "bfloat16", "openvino-bfloat16", onnx, no_onnx),
            ("OpenVINO, int8", "OpenVINO", "int8", "openvino", int8, no_int8),
        )
        entries += [
            Entry(name + suffix, network, format, precision, program, path, True, failure)
            for name, format, precision, program, path, failure in peers
        ]
    return entries


def _written(threads: int, function: str, source: Any, path: str) -> str | None:
    """Writes a file in a process that gives its memory back; returns why that failed."""
    try:
        run_in_process(
            f"bit_keras.benchmark.peers:{function}",
            {"source": source, "path": path},
            timeout=_WRITE_TIMEOUT,
            environment=environment(threads),
        )
    except BitKerasError as error:
        return failure_of(error)
    return None


# Each of these runs in a process of its own.


def write_onnx(job: dict[str, Any]) -> None:
    """Writes `path`: a `Network` with folded kernels and reproducible values, in float32."""
    from bit_keras.checkpoints import fill_with_seeded_values
    from bit_keras.exporters.onnx import export_onnx
    from bit_keras.models import create_classifier

    network = Network(**job["source"])
    model = create_classifier(
        network.model,
        weights=None,
        num_classes=network.classes or 0,  # 0 gives a feature extractor.
        input_shape=(network.height, network.width, 3),
    )
    fill_with_seeded_values(model)
    export_onnx(model, job["path"])


def write_int8(job: dict[str, Any]) -> None:
    """Writes `path`: an ONNX file quantised after training by NNCF with its defaults."""
    require_extra("benchmark", "nncf", "openvino", purpose="Quantising for OpenVINO")
    import nncf
    import openvino

    network = openvino.Core().read_model(job["source"])
    _, height, width, _ = network.inputs[0].partial_shape
    images = images_of(
        Network("", height.get_length(), width.get_length(), None), _CALIBRATION_IMAGES, "float32"
    )
    quantised = nncf.quantize(network, nncf.Dataset(list(images[:, None])))
    openvino.save_model(quantised, job["path"], compress_to_fp16=False)
