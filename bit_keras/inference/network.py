"""From what a user names to a network with its weights."""

import os
from typing import TYPE_CHECKING

from bit_keras.preprocessing import ClassifierSpec
from bit_keras.sources import Source, resolve

if TYPE_CHECKING:
    import keras


def load_network(
    source: str | os.PathLike | Source, trust: bool = False, allow_nonfinite: bool = False
) -> tuple["keras.Model", ClassifierSpec | None]:
    """Loads the network that a user names, and the spec that is stored with it.

    Args:
        source: What `bit_keras.sources.resolve` takes, or its result; but not a TFLite or
            ONNX file or OpenVINO IR, whose weights were changed for inference.
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
    from bit_keras.exporters.keras_archive import export_keras

    export_keras(bit_keras.create_classifier("bit_tiny.cifar10", weights=None), "tiny.keras")
    model, spec = bit_keras.inference.load_network("tiny.keras")
    model.name, spec.labels.name  # ('bit_tiny.cifar10', 'cifar10')
    ```
    """
    from bit_keras.models.builders import network_of_file

    source = resolve(source)
    if source.format == "run":
        from bit_keras.training import load_run

        assert source.path is not None
        return load_run(source.path, allow_nonfinite)
    if source.format == "keras":
        from bit_keras.checkpoints import load_keras_model
        from bit_keras.exporters.specs import as_built

        return as_built(load_keras_model(source.weights(), trust, allow_nonfinite), source.spec)
    name = source.metadata.model if source.format == "saved_model" and source.metadata else None
    return network_of_file(source, name, allow_nonfinite), source.spec
