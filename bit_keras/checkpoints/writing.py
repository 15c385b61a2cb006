"""Writes weights in every format that others read."""

import os

import numpy as np

from bit_keras.checkpoints.dialects import (
    FLAX,
    KERAS,
    OFFICIAL,
    TIMM,
    TRANSFORMERS,
    TRANSFORMERS_BODY,
    Dialect,
    rearranged,
    rearranged_shape,
)
from bit_keras.checkpoints.files import Arrays, write_npz, write_safetensors
from bit_keras.checkpoints.names import (
    head_classes,
    identify,
    input_channels,
    official_names,
)
from bit_keras.checkpoints.transformers_folder import write_transformers
from bit_keras.errors import CheckpointError
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import RGB, Architecture

#: The formats that weights can be written in.
FORMATS = ("npz", "flax", "timm", "transformers")

#: The prefix of big_vision's files (`utils.py`, `load_params`).
_FLAX_PREFIX = "params/"


class ArraysInDialect(Arrays):
    """Arrays under the names and in the layout of another code base, each read when requested.

    Args:
        arrays: Arrays of one network.
        architecture: Architecture. The network's.
        dialect: Dialect.
        prefix: str. Precedes every name.

    Attributes:
        shapes: dict from name to shape.
    """

    def __init__(
        self, arrays: Arrays, architecture: Architecture, dialect: Dialect, prefix: str = ""
    ) -> None:
        self._arrays, self._dialect = arrays, dialect
        shapes = arrays.shapes
        paths = architecture.weight_shapes(head_classes(shapes), input_channels(shapes))
        #: Path and official name by name in the dialect.
        self._sources = {
            f"{prefix}{dialect.array_name(path)}": (path, official)
            for path, official in official_names(paths).items()
        }
        self.shapes = {
            name: rearranged_shape(
                tuple(arrays.shapes[official]), OFFICIAL.layout(path), dialect.layout(path)
            )
            for name, (path, official) in self._sources.items()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        path, official = self._sources[name]
        return rearranged(self._arrays[official], OFFICIAL.layout(path), self._dialect.layout(path))


def keras_arrays(arrays: Arrays) -> ArraysInDialect:
    """Arrays of a network of the registry under the paths of its Keras weights.

    Args:
        arrays: Arrays of one network, by official name.

    Returns:
        Arrays, read from those given one at a time.

    Raises:
        CheckpointError: They are not a network of the registry.

    Example:

    ```python
    from bit_keras.checkpoints import open_checkpoint
    from bit_keras.checkpoints.download import pretrained_path
    from bit_keras.checkpoints.writing import keras_arrays

    with open_checkpoint(pretrained_path(bit_keras.model_info("bit_tiny.cifar10"))) as arrays:
        keras_arrays(arrays)["stem_conv/kernel"].shape  # (7, 7, 3, 32)
    ```
    """
    return ArraysInDialect(arrays, _require_network(arrays, KERAS), KERAS)


def write_checkpoint(
    path: str | os.PathLike,
    arrays: Arrays,
    format: str,
    dtype: str = "float32",
    spec: ClassifierSpec | None = None,
) -> None:
    """Writes the weights of a network in a format that others read.

    One array at a time is in memory. The result is atomic.

    Args:
        path: The file to create or to replace; for `"transformers"` the folder to
            create, which must not exist.
        arrays: Arrays of one network, by official name.
        format: str. `"npz"`, the layout of the official files; `"flax"`, an npz for
            big_vision's `bit_paper`; `"timm"`, a safetensors file; `"transformers"`, a
            folder.
        dtype: str. Of the arrays: `"float32"`, or `"float16"` for half the size.
            Defaults to `"float32"`.
        spec: ClassifierSpec. Labels and transform, for formats that contain them: `"transformers"`.

    Raises:
        CheckpointError: An unknown format, a network that is not in the registry, or one that the
            format has no place for.
        BitKerasError: The path cannot be written.

    Example:

    ```python
    from bit_keras.checkpoints import open_checkpoint
    from bit_keras.checkpoints.download import pretrained_path
    from bit_keras.checkpoints.writing import write_checkpoint

    with open_checkpoint(pretrained_path(bit_keras.model_info("bit_tiny.cifar10"))) as arrays:
        write_checkpoint("tiny.safetensors", arrays, "timm")
    ```
    """
    if format == "npz":
        write_npz(path, arrays, dtype)
    elif format == "flax":
        named = ArraysInDialect(arrays, _require_network(arrays, FLAX), FLAX, _FLAX_PREFIX)
        write_npz(path, named, dtype)
    elif format == "timm":
        named = ArraysInDialect(arrays, _require_network(arrays, TIMM), TIMM)
        write_safetensors(path, named, dtype)
    elif format == "transformers":
        architecture, classes = _require_network(arrays, TRANSFORMERS), head_classes(arrays.shapes)
        named = ArraysInDialect(
            arrays, architecture, TRANSFORMERS_BODY if classes is None else TRANSFORMERS
        )
        write_transformers(path, named, architecture, classes, dtype, spec)
    else:
        raise CheckpointError(
            f"The format {format!r} is unknown; {', '.join(FORMATS)} can be written."
        )


def _require_network(arrays: Arrays, dialect: Dialect) -> Architecture:
    """The architecture, which the dialect must have a place for."""
    architecture = identify(dict(arrays.shapes))
    if architecture is None:
        raise CheckpointError(
            f"The {len(arrays.shapes)} arrays are not a network of the registry, and only such a "
            f"network can be written for {dialect.name}."
        )
    if architecture.normalization == "batch" and not dialect.batch_norm:
        raise CheckpointError(
            f"{architecture.name} has BatchNorm, and BiT has none in {dialect.name}; write it as "
            "npz, timm or keras."
        )
    channels = input_channels(arrays.shapes)
    plain = architecture.normalization == "batch" or dialect is KERAS
    if channels != RGB and not plain:
        raise CheckpointError(
            f"The network takes {channels} channels, with a stem convolution that {dialect.name} "
            "would standardise once more, to another function; write it as npz or keras."
        )
    return architecture
