"""From what a user names to a network: a model name, a run, a file in any format."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bit_keras.artifacts.members import METADATA, located
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.runtimes import format_of
from bit_keras.artifacts.runtimes.opening import Format
from bit_keras.errors import BitKerasError
from bit_keras.preprocessing import ClassifierSpec

if TYPE_CHECKING:
    import keras

#: The types of artifact that contain other weights than a network of Keras takes.
_WITHOUT_WEIGHTS: Mapping[Format | None, str] = MappingProxyType(
    {"tflite": "a TFLite file", "onnx": "an ONNX file", "openvino": "OpenVINO IR"}
)


def load_network(
    source: str | os.PathLike, trust: bool = False, allow_nonfinite: bool = False
) -> tuple["keras.Model", ClassifierSpec | None]:
    """The network that a user names, and the spec that is stored with it.

    Args:
        source: The folder of a fine-tuning run, a `.keras` file, an exported SavedModel (but
            not a TFLite or ONNX file or OpenVINO IR, which contain other weights),
            or anything that `bit_keras.checkpoints.weights_path` takes: a checkpoint of any
            format, a repository of the Hugging Face hub, a model name or an alias.
        trust: bool. Take what runs code from the source, as
            `bit_keras.checkpoints.load_keras_model` says. Defaults to `False`.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model with its weights, and its ClassifierSpec; None where the source stores
        none, and the registry knows it by the model's name.

    Raises:
        UnknownModelError: Neither a path nor a model name.
        BitKerasError: It cannot be read, or is not a network of the registry.

    Example:

    ```python
    from bit_keras.exporters.keras_file import export_keras

    export_keras(bit_keras.create_classifier("bit_tiny.cifar10", weights=None), "tiny.keras")
    model, spec = bit_keras.inference.load_network("tiny.keras")
    model.name, spec.labels.name  # ('bit_tiny.cifar10', 'cifar10')
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
        return network, _spec_of(metadata)
    return network_of_file(source, allow_nonfinite=allow_nonfinite), None


def has_network(source: str | os.PathLike) -> bool:
    """Whether a source is a Keras model, or a run of one: it has a name, and maybe more layers."""
    path = Path(source)
    return _is_run(path) or _is_keras_file(path)


def stored_weights(source: str | os.PathLike) -> tuple[Path, ClassifierSpec | None]:
    """The checkpoint that `load_network` would fill a network with, and the stored spec.

    Args:
        source: What `load_network` takes.

    Returns:
        Path for `bit_keras.checkpoints.open_checkpoint`, and ClassifierSpec or None.

    Raises:
        The errors of `load_network`.
    """
    from bit_keras.checkpoints import weights_path

    path = weights_path(source)
    if _is_run(path):
        from bit_keras.training.run import BEST, read_document

        return path / BEST, ClassifierSpec.from_json(read_document(path).get("task", {}))
    if _is_keras_file(path):
        from bit_keras.artifacts.metadata import read_spec

        return path, read_spec(path)
    _require_weights(path)
    return path, _spec_of(Metadata.read(path)) if _is_saved_model(path) else None


def _spec_of(metadata: Metadata) -> ClassifierSpec | None:
    return None if metadata.task is None else ClassifierSpec.from_json(metadata.task)


def is_artifact(path: Path) -> bool:
    """Whether it is an exported file that answers without a network of Keras."""
    return _is_saved_model(path) or format_of(located(path)) in _WITHOUT_WEIGHTS


def _is_saved_model(path: Path) -> bool:
    return path.is_dir() and (located(path) / METADATA).is_file()


def _require_weights(path: Path) -> None:
    kind = format_of(located(path))
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
) -> tuple["keras.Model", ClassifierSpec | None]:
    from bit_keras.artifacts.metadata import read_spec
    from bit_keras.checkpoints import load_keras_model
    from bit_keras.exporters.specs import as_built

    return as_built(load_keras_model(path, trust, allow_nonfinite), read_spec(path))
