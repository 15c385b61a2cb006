"""The entries of a benchmark."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import reference_size
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.registry import model_info
from bit_keras.sources import resolve

#: What tables call the targets of the exporters.
FORMATS = {
    "hub": "SavedModel",
    "serving": "SavedModel",
    "keras": "Keras",
    "tflite": "TFLite",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
}


@dataclasses.dataclass(frozen=True)
class Network:
    """What is computed: two entries of the same network do the same work.

    Attributes:
        model: str. A name in the registry; it says the architecture.
        height: int. Of the images in pixels.
        width: int.
        classes: int or None. Width of the head; None for a feature extractor.
    """

    model: str
    height: int
    width: int
    classes: int | None

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image."""
        architecture = model_info(self.model).architecture
        return architecture.multiply_adds(self.height, self.width, self.classes)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A program that computes a network, and is measured in a process of its own.

    Attributes:
        name: str. What tables call it; unique in a benchmark.
        network: Network.
        format: str. What it is: `"SavedModel"`, `"TFLite"`, `"PyTorch"`, ...
        precision: str. How it computes, as in `Metadata.precision`.
        program: str. What runs it, a key of `bit_keras.benchmark.entry_process.PROGRAMS`.
        path: str or None. The file or folder that it runs.
        peer: bool. Whether it is another project's program for the network.
        failure: str or None. Why it cannot take part, where that is known beforehand.
        trust: bool. Whether to run operations that this package does not export.
    """

    name: str
    network: Network
    format: str
    precision: str
    program: str = "file"
    path: str | None = None
    peer: bool = False
    failure: str | None = None
    trust: bool = False

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Entry":
        return cls(**{**document, "network": Network(**document["network"])})


def artifact_entry(
    path: str | os.PathLike, name: str | None = None, *, trust: bool = False
) -> Entry:
    """The entry of an artifact.

    Args:
        path: An artifact of this package, or a folder of versions, of which the newest is taken.
        name: str. Defaults to the path as it was given.
        trust: bool. Run operations that this package does not export: they may read and
            write files and run code. Defaults to `False`.

    Returns:
        Entry.

    Raises:
        CheckpointError: The path does not exist.
        ExportError: It is not an artifact of this package.

    Example:

    ```python
    from bit_keras.benchmark import artifact_entry
    from bit_keras.exporters.hub import export_hub

    export_hub(bit_keras.create_classifier("bit_tiny.cifar10"), "tiny")
    artifact_entry("tiny").network.multiply_adds  # 41265152
    ```
    """
    source = resolve(path)
    if source.path is None:
        raise ExportError(f"{path} is a model, not an artifact; export it first.")
    metadata = Artifact(source.path).metadata
    height, width = reference_size((None, None, None, None), metadata)
    classes = metadata.outputs if metadata.variant == "classification" else None
    return Entry(
        name=name or str(path),
        network=Network(metadata.model, height, width, classes),
        format=FORMATS[metadata.target],
        precision=metadata.precision,
        path=str(source.path),
        trust=trust,
    )


def require_distinct(entries: Sequence[Entry]) -> None:
    """Raises where two entries have one name.

    Raises:
        BitKerasError: It names them.
    """
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BitKerasError(f"{', '.join(twice)} was given twice; give every artifact once.")
