"""Weights from files into networks and back, strictly: every array, every weight."""

import logging
import os

import keras
import numpy as np

from bit_keras.checkpoints.checkpoint_file import open_checkpoint
from bit_keras.checkpoints.files import ArrayFile, Arrays
from bit_keras.checkpoints.names import (
    PLAIN_STEM,
    STEM,
    head_classes,
    identify,
    input_channels,
    is_head,
    official_names,
    official_shape,
)
from bit_keras.checkpoints.published import published_spec
from bit_keras.checkpoints.writing import write_checkpoint
from bit_keras.errors import CheckpointError
from bit_keras.registry import RGB, Architecture, Shape, checkpoint_of

_logger = logging.getLogger("bit_keras")

#: Lines of a difference that are printed before the rest is only counted.
_SHOWN = 12


class ModelArrays(Arrays):
    """The weights of a network under their official names, read when requested.

    Args:
        model: A network of this package, or a model that contains one.

    Raises:
        CheckpointError: The model has weights that no official name exists for,
            or contains two networks.
    """

    def __init__(self, model: keras.Model) -> None:
        weights = {weight.path: weight for weight in model.weights}
        if len(weights) < len(model.weights):
            raise CheckpointError(
                f"The model {model.name!r} contains two layers of the same name, as two networks "
                "in one model have; load and save each network by itself."
            )
        names = official_names({path: tuple(weight.shape) for path, weight in weights.items()})
        foreign = [path for path in weights if path not in names]
        if foreign:
            raise CheckpointError(
                f"The model {model.name!r} has weights that no official name exists for: "
                f"{_shortened(foreign)}. Save it as .keras, or save the BiT network inside it."
            )
        self._weights = {name: weights[path] for path, name in names.items()}
        self.shapes = {
            name: official_shape(path, tuple(weights[path].shape)) for path, name in names.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        array = keras.ops.convert_to_numpy(self._weights[name])
        return array.astype("float32", copy=False).reshape(self.shapes[name])

    def assign(self, name: str, array: np.ndarray) -> None:
        weight = self._weights[name]
        weight.assign(array.reshape(tuple(weight.shape)))


def load_weights(
    model: keras.Model, path: str | os.PathLike, allow_nonfinite: bool = False
) -> None:
    """Fills a network with the arrays of a checkpoint.

    Every array is used and every weight is filled, or nothing is changed. A
    network without a head skips the head of the file, and logs it.

    Args:
        model: A network of this package.
        path: A file or a folder of any format that `bit_keras.checkpoints.open_checkpoint`
            knows; recognised by its content.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Raises:
        CheckpointError: The file is damaged, a weight is not finite, or they do not fit; the
            message lists what is missing, unexpected or misshapen.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.save_weights(model, "tiny.npz")
    bit_keras.load_weights(model, "tiny.npz")
    ```
    """
    with open_checkpoint(path, allow_nonfinite) as arrays:
        take_arrays(model, arrays)


def take_arrays(model: keras.Model, arrays: ArrayFile, *, replace_head: bool = False) -> None:
    """Fills a network from an open file, strictly, as `load_weights` does.

    Args:
        model: keras.Model from a builder.
        arrays: ArrayFile, under the official names.
        replace_head: bool. Skip the head of the file and the model's own as it
            is. Defaults to `False`.

    Raises:
        CheckpointError: Names or shapes differ, a checksum is wrong, or a weight is not finite.

    Example:

    ```python
    from bit_keras.checkpoints import open_checkpoint
    from bit_keras.checkpoints.download import pretrained_path
    from bit_keras.checkpoints.transfer import take_arrays

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None, num_classes=5)
    with open_checkpoint(pretrained_path(bit_keras.model_info("bit_tiny.cifar10"))) as arrays:
        take_arrays(model, arrays, replace_head=True)
    ```
    """
    target = ModelArrays(model)
    expected, found = target.shapes, dict(arrays.shapes)
    if replace_head or head_classes(expected) is None:
        classes = head_classes(found)
        if classes is not None and not replace_head:  # Who replaces a head says so.
            _logger.info("%s: its head for %d classes is skipped.", arrays.path.name, classes)
        expected, found = _without_head(expected), _without_head(found)
    require_equal(expected, found, checkpoint_of(model), arrays)
    # All values first: a damaged file must not leave a network half filled.
    arrays.verify()
    for name in expected:
        target.assign(name, arrays[name])


def require_equal(
    expected: dict[str, Shape], found: dict[str, Shape], model_name: str, arrays: ArrayFile
) -> None:
    """Raises with a readable difference unless names and shapes are the same."""
    if expected == found:
        return
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    misshapen = [name for name in expected if name in found and expected[name] != found[name]]
    lines = [
        *(f"  - missing     {name} {expected[name]}" for name in missing),
        *(f"  + unexpected  {name} {found[name]}" for name in unexpected),
        *(
            f"  ~ misshapen   {name} {found[name]} in the file, {expected[name]} in the network"
            for name in misshapen
        ),
    ]
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    advice = _advice(expected, [*missing, *unexpected, *misshapen], arrays)
    first = (
        f"{arrays.path} does not fit {model_name}: {len(missing)} arrays are missing, "
        f"{len(unexpected)} unexpected, {len(misshapen)} misshapen. {advice}"
    )
    raise CheckpointError("\n".join([first, *lines[:_SHOWN], *more]))


def _advice(expected: dict[str, Shape], differing: list[str], arrays: ArrayFile) -> str:
    architecture, classes = identify(arrays.shapes), head_classes(arrays.shapes)
    channels, wanted = input_channels(arrays.shapes), input_channels(expected)
    if channels != wanted and all(name in (STEM, PLAIN_STEM) for name in differing):
        # Only a file for RGB can be adapted.
        fitting = wanted if channels == RGB else channels
        return (
            f"It was made for in_channels={channels} and the network for in_channels={wanted}: "
            f"build the network with `weights=` and `in_channels={fitting}`."
        )
    if not all(is_head(name) for name in differing):
        if architecture is None:
            return "The file is not a network of the registry."
        return f"The file is a {architecture.name} with {classes} classes."
    if classes is None:
        return (
            "It has no head: build a feature extractor, or give the network a new head with "
            "`num_classes=`."
        )
    return (
        f"Its head has {classes} classes and the network's {head_classes(expected)}: take the "
        "model name that the file belongs to, or replace the head with `num_classes=`."
    )


def require_known(arrays: ArrayFile) -> Architecture:
    """The architecture that a file belongs to.

    Args:
        arrays: ArrayFile, under the official names.

    Returns:
        Architecture.

    Raises:
        CheckpointError: It is not a network of the registry.

    Example:

    ```python
    from bit_keras.checkpoints import open_checkpoint
    from bit_keras.checkpoints.download import pretrained_path
    from bit_keras.checkpoints.transfer import require_known

    with open_checkpoint(pretrained_path(bit_keras.model_info("bit_tiny.cifar10"))) as arrays:
        architecture = require_known(arrays)
    architecture.name  # 'bit_tiny'
    ```
    """
    architecture = identify(arrays.shapes)
    if architecture is None:
        raise CheckpointError(
            f"{arrays.path} is not a network of the registry, by the names and shapes of its "
            f"{len(arrays)} arrays."
        )
    return architecture


def save_weights(
    model: keras.Model,
    path: str | os.PathLike,
    format: str = "npz",
    dtype: str = "float32",
) -> None:
    """Writes a network's weights in a format that others read.

    | format           | what                  | read by                                       |
    |------------------|-----------------------|-----------------------------------------------|
    | `"npz"`          | a file                | big_transfer, big_vision, timm, this package  |
    | `"flax"`         | a file                | big_vision's `bit_paper`                      |
    | `"timm"`         | a safetensors file    | timm's `load_checkpoint`, `strict=True`       |
    | `"transformers"` | a folder              | `BitForImageClassification.from_pretrained`   |

    Args:
        model: A network of this package.
        path: The file to create or to replace, or the folder to create; atomic.
        format: str. `"npz"`, `"flax"`, `"timm"` or `"transformers"`. Defaults to `"npz"`.
        dtype: str. Of the arrays: `"float32"`, or `"float16"` for half the size.
            Defaults to `"float32"`.

    Raises:
        CheckpointError: An unknown format, a model that is not a BiT, or one that the
            format has no place for: BatchNorm, or images of other than three
            channels.
        BitKerasError: The file cannot be written.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.save_weights(model, "tiny.safetensors", format="timm")
    bit_keras.load_weights(model, "tiny.safetensors")
    ```
    """
    arrays = ModelArrays(model)
    write_checkpoint(
        path, arrays, format, dtype, published_spec(checkpoint_of(model), arrays.shapes)
    )


def _without_head(shapes: dict[str, Shape]) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if not is_head(name)}


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
