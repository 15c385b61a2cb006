"""The official array names, which every part of this package knows weights by.

    block1_unit01_conv2/kernel  <->  resnet/block1/unit01/b/standardized_conv2d/kernel

The rule is one-to-one for every architecture of the registry.
"""

import re
from collections.abc import Mapping

from bit_keras.checkpoints.dialects import (
    KERAS,
    OFFICIAL,
    OFFICIAL_BATCH_NORM,
    OFFICIAL_PLAIN_STEM,
    rearranged_shape,
)
from bit_keras.registry import ARCHITECTURES, RGB, Architecture, Shape

#: The stem convolutions under their official names: standardised, or not.
STEM = "resnet/root_block/standardized_conv2d/kernel"
PLAIN_STEM = "resnet/root_block/conv2d/kernel"

HEAD_KERNEL, HEAD_BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"


def official_names(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Maps weight paths (`layer/weight`) to official array names.

    Args:
        shapes: Mapping from the paths of one network to the shapes; whether it has
            BatchNorm, and a stem convolution without standardisation, shows in them.

    Returns:
        dict from path to name. Paths that no official name exists for, those of
        layers that are not the network's, are skipped.
    """
    stem = shapes.get("stem_conv/kernel", ())
    dialect = OFFICIAL
    if "norm/moving_mean" in shapes:
        dialect = OFFICIAL_BATCH_NORM
    elif len(stem) == 4 and stem[2] != RGB:
        dialect = OFFICIAL_PLAIN_STEM
    names = {path: dialect.array_name(path) for path in shapes}
    return {path: name for path, name in names.items() if name is not None}


def official_shape(path: str, shape: Shape) -> Shape:
    """The shape of a weight in the files, where the head is a 1x1 convolution."""
    return rearranged_shape(shape, KERAS.layout(path), OFFICIAL.layout(path))


def official_shapes(
    architecture: Architecture, classes: int | None, in_channels: int = RGB
) -> dict[str, Shape]:
    """Names and shapes of all arrays of a checkpoint, without building a network.

    Args:
        architecture: Architecture.
        classes: int. Width of the head; `None` omits the head.
        in_channels: int. Channels of the images. Defaults to `3`.

    Returns:
        dict from official name to shape.

    Example:

    ```python
    architecture = bit_keras.model_info("bit_tiny.cifar10").architecture
    shapes = bit_keras.checkpoints.names.official_shapes(architecture, classes=10)
    shapes["resnet/root_block/standardized_conv2d/kernel"]  # (7, 7, 3, 32)
    ```
    """
    shapes = architecture.weight_shapes(classes, in_channels)
    names = official_names(shapes)
    return {names[path]: official_shape(path, shape) for path, shape in shapes.items()}


def without_numbers(name: str) -> str:
    """An array name without the number that some files put after `standardized_conv2d`.

    Source: `google-research/big_vision`, `models/bit_paper.py`, which drops it too.
    """
    return re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", name)


def is_head(name: str) -> bool:
    """Whether an official name is that of the head's kernel or bias."""
    return name in (HEAD_KERNEL, HEAD_BIAS)


def head_classes(shapes: Mapping[str, Shape]) -> int | None:
    """The width of the head in a file, or `None` where it has none."""
    bias = shapes.get(HEAD_BIAS)
    return bias[0] if bias is not None and len(bias) == 1 else None


def input_channels(shapes: Mapping[str, Shape]) -> int:
    """The channels of the images that the stem convolution in a file takes."""
    stem = shapes.get(STEM, shapes.get(PLAIN_STEM, ()))
    return stem[2] if len(stem) == 4 else RGB


def identify(shapes: Mapping[str, Shape]) -> Architecture | None:
    """The architecture of the registry that has exactly these arrays, if any."""
    classes, in_channels = head_classes(shapes), input_channels(shapes)
    for architecture in ARCHITECTURES.values():
        # Most differ in the number of their arrays, which is quick to tell.
        if len(architecture.weight_shapes(classes)) != len(shapes):
            continue
        if official_shapes(architecture, classes, in_channels) == shapes:
            return architecture
    return None
