"""Whatever a user names -> one record: its format, where it is, and what is stored with it.

Resolving a name reads a few bytes and imports neither Keras nor TensorFlow: a TFLite file is
known, with its labels, before anything that runs it is loaded.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from bit_keras import documents
from bit_keras.artifacts.members import located
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.runtimes.opening import format_of
from bit_keras.errors import BitKerasError, CheckpointError, TrainingError, UnknownModelError
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import Checkpoint, model_info

#: `"model"` is a name of the registry, `"repository"` one of the Hugging Face hub, and
#: `"weights"` a file or a folder that `bit_keras.checkpoints.open_checkpoint` recognises.
Format = Literal[
    "model",
    "repository",
    "run",
    "keras",
    "saved_model",
    "tflite",
    "onnx",
    "openvino",
    "weights",
]

#: The formats whose weights were changed for inference, so that they do not fit a network.
_INFERENCE_ONLY: Mapping[str, str] = MappingProxyType(
    {"tflite": "a TFLite file", "onnx": "an ONNX file", "openvino": "OpenVINO IR"}
)

#: What files of weights are called, in whatever format.
_SUFFIXES = frozenset(
    [".bin", ".ckpt", ".h5", ".hdf5", ".keras", ".npz", ".pt", ".pth", ".safetensors", ".tar"]
)

#: The file that makes a folder a run, and the one with its best weights.
RUN_RECORD, RUN_WEIGHTS = "run.json", "best.npz"

#: What every record of a run has, and what must be the same for a training to continue.
RUN_IDENTITY = ("model", "options", "rule", "data")


@dataclasses.dataclass(frozen=True)
class Source:
    """What a user has named.

    Attributes:
        name: str. As it was named.
        format: str. `"model"`, `"repository"`, `"run"`, `"keras"`, `"saved_model"`,
            `"tflite"`, `"onnx"`, `"openvino"` or `"weights"`.
        path: Path or None. The file or the folder; of versioned artifacts the newest version.
            None for a model or a repository, which `weights` downloads.
        checkpoint: Checkpoint or None. What the registry knows a model or a repository as.
        metadata: Metadata or None. What an artifact of this package says of itself; None for
            everything else. Read on first use.
        spec: ClassifierSpec or None. The labels and the transform that are stored with the
            source, None where it stores none. Read on first use.
    """

    name: str
    format: Format
    path: Path | None = None
    checkpoint: Checkpoint | None = None

    @property
    def is_program(self) -> bool:
        """Whether it is an exported file that a program runs, without a network of Keras."""
        if self.format == "saved_model":
            return self.metadata is not None
        return self.format in _INFERENCE_ONLY

    @property
    def runs_without_keras(self) -> bool:
        """Whether the engine of its format runs it, which needs neither Keras nor TensorFlow."""
        return self.format in _INFERENCE_ONLY

    @functools.cached_property
    def metadata(self) -> Metadata | None:
        if self.path is None or self.format in ("run", "weights"):
            return None
        return Metadata.find(self.path)

    @functools.cached_property
    def spec(self) -> ClassifierSpec | None:
        if self.path is not None and self.format == "run":
            return ClassifierSpec.from_json(read_run(self.path).get("task", {}))
        return None if self.metadata is None else self.metadata.spec

    def weights(self) -> Path:
        """The checkpoint that fills a network, downloaded on first use.

        Returns:
            Path, for `bit_keras.checkpoints.open_checkpoint`. Of a repository it is the folder.

        Raises:
            DownloadError: The weights cannot be fetched.
            BitKerasError: It is an artifact whose weights were changed for inference.
        """
        if self.format in _INFERENCE_ONLY:
            raise BitKerasError(
                f"{self.path} is {_INFERENCE_ONLY[self.format]}, whose weights are changed for "
                "inference; name the model, run or file that it was exported from."
            )
        if self.path is not None:
            return self.path / RUN_WEIGHTS if self.format == "run" else self.path
        if self.format == "repository":
            from bit_keras.checkpoints.hugging_face import repository_weights

            return repository_weights(self.name).parent

        from bit_keras.checkpoints.download import pretrained_path

        assert self.checkpoint is not None
        return pretrained_path(self.checkpoint)


def resolve(source: str | os.PathLike | Source) -> Source:
    """Finds out what a user has named.

    Args:
        source: A file or a folder that exists: a `.keras` file, a SavedModel, a TFLite or ONNX
            file, OpenVINO IR, a folder of versions of these, the folder of a fine-tuning run,
            or weights of any format. Else `hf://OWNER/NAME`, also with `@REVISION`, or
            `timm/NAME` for a repository of the Hugging Face hub; or a model name or an alias.

    Returns:
        Source. Nothing is downloaded before its `weights` are requested.

    Raises:
        UnknownModelError: It is none of these.
        CheckpointError: It looks like a file, and there is none; or it is a damaged archive.

    Example:

    ```python
    from bit_keras.sources import resolve

    resolve("bit_tiny.cifar10").format  # 'model'
    ```
    """
    if isinstance(source, Source):
        return source
    name, path = os.fspath(source), Path(source)
    if path.exists():
        return _local(name, path)
    # Here: it imports the client of HTTP, which nothing local needs.
    from bit_keras.checkpoints.hugging_face import is_repository

    if is_repository(name):
        return Source(name, "repository", checkpoint=_known(name))
    try:
        return Source(name, "model", checkpoint=model_info(name))
    except UnknownModelError as error:
        is_path = not {"/", os.sep}.isdisjoint(name) and "://" not in name
        if is_path or path.suffix.lower() in _SUFFIXES:
            raise CheckpointError(f"There is no file {path}.") from None
        raise UnknownModelError(f"{error} Nor is there a file of that name.") from None


def _local(name: str, path: Path) -> Source:
    if (path / RUN_RECORD).is_file():
        return Source(name, "run", path)
    artifact = located(path)
    exported = format_of(artifact)
    if exported is not None:
        return Source(name, exported, artifact)
    # Here: it imports the readers of every format of weights, which no program needs.
    from bit_keras.checkpoints.files import is_keras_file

    if path.is_file() and is_keras_file(path):
        return Source(name, "keras", path)
    return Source(name, "weights", path)


def _known(name: str) -> Checkpoint | None:
    try:
        return model_info(name)
    except UnknownModelError:
        return None


def read_run(path: Path) -> dict[str, Any]:
    """Reads the record of a run.

    Args:
        path: Path. The folder that `bit-keras finetune` wrote.

    Raises:
        TrainingError: It is missing or damaged.
    """
    record = path / RUN_RECORD
    try:
        document = documents.read_document(record, dict[str, Any])
        if all(key in document for key in RUN_IDENTITY):
            documents.typed(document["model"], str, "model")
            documents.typed(document.get("task", {}), dict[str, Any], "task")
            documents.typed(document.get("results"), dict[str, Any] | None, "results")
    except FileNotFoundError:
        raise TrainingError(
            f"{path} is not a run: there is no {RUN_RECORD} in it, which `bit-keras finetune` "
            "writes."
        ) from None
    except (OSError, ValueError) as error:
        raise TrainingError(f"{record} cannot be read ({error}).") from error
    if any(key not in document for key in RUN_IDENTITY):
        raise TrainingError(f"{record} was not written by `bit-keras finetune`.")
    return document
