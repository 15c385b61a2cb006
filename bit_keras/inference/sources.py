"""From what a user names to a network: a model name, a run, a file in any format."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bit_keras.errors import BitKerasError
from bit_keras.export.artifact import METADATA, Metadata, located
from bit_keras.preprocessing import Task
from bit_keras.runtimes import kind_of
from bit_keras.runtimes.opening import Kind

if TYPE_CHECKING:
    import keras

#: The kinds of artifact that hold other weights than a network of Keras takes.
_WITHOUT_WEIGHTS: Mapping[Kind | None, str] = MappingProxyType(
    {"tflite": "a TFLite file", "onnx": "an ONNX file", "openvino": "OpenVINO IR"}
)


def load_network(
    source: str | os.PathLike, trust: bool = False, allow_nonfinite: bool = False
) -> tuple["keras.Model", Task | None]:
    """The network that a user names, and the task that is stored with it.

    Args:
        source: The folder of a fine-tuning run, a `.keras` file, an exported SavedModel (but
            not a TFLite or ONNX file or OpenVINO IR, which hold other weights),
            or anything that `bit_keras.checkpoints.weights_path` takes: a checkpoint of any
            format, a repository of the Hugging Face hub, a model name or an alias.
        trust: bool. Take what runs code from the source, as
            `bit_keras.checkpoints.load_keras_model` says. Defaults to `False`.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model with its weights, and its Task; None where the source stores
        none, and the registry knows it by the model's name.

    Raises:
        UnknownModelError: Neither a path nor a model name.
        BitKerasError: It cannot be read, or is no network of the registry.

    Example:

    ```python
    from bit_keras.export.keras_file import export_keras

    export_keras(bit_keras.create_classifier("bit_tiny.cifar10", weights=None), "tiny.keras")
    model, task = bit_keras.inference.load_network("tiny.keras")
    model.name, task.labels.name  # ('bit_tiny.cifar10', 'cifar10')
    ```
    """
    from bit_keras.checkpoints import weights_path
    from bit_keras.models import network_of_file

    path = weights_path(source)
    if _is_run(path):
        from bit_keras.training import load_run

        return load_run(path, allow_nonfinite)
    if _is_keras_file(path):
        return _from_keras_file(path, trust, allow_nonfinite)
    _require_weights(path)
    if _is_saved_model(path):
        metadata = Metadata.read(path)
        network = network_of_file(path, metadata.model, allow_nonfinite)
        return network, _task_of(metadata)
    return network_of_file(source, allow_nonfinite=allow_nonfinite), None


def has_network(source: str | os.PathLike) -> bool:
    """Whether a source is a Keras model, or a run of one: it has a name, and maybe more layers."""
    path = Path(source)
    return _is_run(path) or _is_keras_file(path)


def stored_weights(source: str | os.PathLike) -> tuple[Path, Task | None]:
    """The checkpoint that `load_network` would fill a network with, and the stored task.

    Args:
        source: What `load_network` takes.

    Returns:
        Path for `bit_keras.checkpoints.open_checkpoint`, and Task or None.

    Raises:
        The errors of `load_network`.
    """
    from bit_keras.checkpoints import weights_path

    path = weights_path(source)
    if _is_run(path):
        from bit_keras.training.run import BEST, read_document

        return path / BEST, Task.from_json(read_document(path).get("task", {}))
    if _is_keras_file(path):
        from bit_keras.export.keras_file import read_task

        return path, read_task(path)
    _require_weights(path)
    return path, _task_of(Metadata.read(path)) if _is_saved_model(path) else None


def _task_of(metadata: Metadata) -> Task | None:
    return None if metadata.task is None else Task.from_json(metadata.task)


def is_artifact(path: Path) -> bool:
    """Whether it is an exported file that answers without a network of Keras."""
    return _is_saved_model(path) or kind_of(located(path)) in _WITHOUT_WEIGHTS


def _is_saved_model(path: Path) -> bool:
    return path.is_dir() and (located(path) / METADATA).is_file()


def _require_weights(path: Path) -> None:
    kind = kind_of(located(path))
    if kind in _WITHOUT_WEIGHTS:
        raise BitKerasError(
            f"{path} is {_WITHOUT_WEIGHTS[kind]}, whose weights are changed for inference; name "
            "the model, run or file that it was exported from."
        )


def _is_run(path: Path) -> bool:
    if not path.is_dir():
        return False

    from bit_keras.training import is_run

    return is_run(path)


def _is_keras_file(path: Path) -> bool:
    if not path.is_file():
        return False

    from bit_keras.checkpoints.files import is_keras_file

    return is_keras_file(path)


def _from_keras_file(
    path: Path, trust: bool, allow_nonfinite: bool
) -> tuple["keras.Model", Task | None]:
    from bit_keras.checkpoints import load_keras_model
    from bit_keras.export.keras_file import read_task
    from bit_keras.export.task import as_built

    return as_built(load_keras_model(path, trust, allow_nonfinite), read_task(path))
