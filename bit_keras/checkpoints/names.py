"""The rule between the weights of the network and the official array names.

    block1_unit01_conv2/kernel  <->  resnet/block1/unit01/b/standardized_conv2d/kernel

It is one-to-one for every architecture of the registry. The networks with
BatchNorm have no official npz; theirs follow the same rule with `conv2d` and
`batch_norm` (source of the names: `google-research/big_transfer`,
`bit_tf2/models.py`).
"""

import re
from collections.abc import Iterable

from bit_keras.registry import ARCHITECTURES, Architecture, Shape

_LETTERS = {"1": "a", "2": "b", "3": "c"}
_UNIT = re.compile(r"(block\d)_(unit\d\d)_(norm|conv)([123])")
_PROJECTION = re.compile(r"(block\d)_(unit\d\d)_proj")


def official_names(paths: Iterable[str]) -> dict[str, str]:
    """Maps weight paths (`layer/weight`) to official array names.

    Args:
        paths: The paths of one network; whether it has BatchNorm shows in them.

    Returns:
        dict from path to name. Paths that no official name exists for, those of
        layers that are not the network's, are left out.
    """
    paths = list(paths)
    batch_norm = "norm/moving_mean" in paths
    names = {path: _official_name(path, batch_norm) for path in paths}
    return {path: name for path, name in names.items() if name is not None}


def _official_name(path: str, batch_norm: bool) -> str | None:
    convolution = "conv2d" if batch_norm else "standardized_conv2d"
    normalization = "batch_norm" if batch_norm else "group_norm"
    layer, _, weight = path.rpartition("/")
    if layer == "stem_conv":
        return f"resnet/root_block/{convolution}/{weight}"
    if layer == "norm":
        return f"resnet/{normalization}/{weight}"
    if layer == "head":
        return f"resnet/head/conv2d/{weight}"
    if match := _PROJECTION.fullmatch(layer):
        block, unit = match.groups()
        return f"resnet/{block}/{unit}/a/proj/{convolution}/{weight}"
    if match := _UNIT.fullmatch(layer):
        block, unit, kind, number = match.groups()
        kind = normalization if kind == "norm" else convolution
        return f"resnet/{block}/{unit}/{_LETTERS[number]}/{kind}/{weight}"
    return None


def official_shape(path: str, shape: Shape) -> Shape:
    """The shape of a weight in the files, where the head is a 1x1 convolution."""
    return (1, 1, *shape) if path == "head/kernel" else tuple(shape)


def official_shapes(architecture: Architecture, classes: int | None) -> dict[str, Shape]:
    """Names and shapes of all arrays of a checkpoint, without building a network."""
    shapes = architecture.weight_shapes(classes)
    names = official_names(shapes)
    return {names[path]: official_shape(path, shape) for path, shape in shapes.items()}


def without_numbers(name: str) -> str:
    """An array name without the number that some files put after `standardized_conv2d`.

    Source: `google-research/big_vision`, `models/bit_paper.py`, which drops it too.
    """
    return re.sub(r"/standardized_conv2d_\d+/", "/standardized_conv2d/", name)


def head_classes(shapes: dict[str, Shape]) -> int | None:
    """The width of the head in a file, or `None` where it has none."""
    bias = shapes.get("resnet/head/conv2d/bias")
    return bias[0] if bias is not None and len(bias) == 1 else None


def identify(shapes: dict[str, Shape]) -> Architecture | None:
    """The architecture of the registry that has exactly these arrays, if any."""
    classes = head_classes(shapes)
    for architecture in ARCHITECTURES.values():
        if official_shapes(architecture, classes) == shapes:
            return architecture
    return None
