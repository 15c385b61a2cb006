"""What each code base calls the weights of the network, and how it lays them out.

A weight has a path in our network, `layer/weight`; a dialect turns it into a name:

    block1_unit01_conv2/kernel
        official      resnet/block1/unit01/b/standardized_conv2d/kernel
        timm          stages.0.blocks.0.conv2.weight
        transformers  bit.encoder.stages.0.layers.0.conv2.weight
        flax          block1/unit01/conv2/kernel
        bit_pytorch   body.block1.unit01.conv2.weight

Sources: `google-research/big_transfer` @140de6e, `bit_tf2/models.py`,
`bit_pytorch/models.py` and `bit_jax/models.py`; `google-research/big_vision` @0127fb6,
`models/bit_paper.py`; timm 1.0.31, `models/resnetv2.py`; transformers 5,
`models/bit/modeling_bit.py`.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bit_keras.registry import ARCHITECTURES, Shape

_IN_UNIT = re.compile(r"block(\d)_unit(\d\d)_(norm|conv|proj)([123]?)")

_KERAS_WEIGHTS = {
    name: name for name in ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
}
_TORCH_WEIGHTS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_FLAX_WEIGHTS = {"kernel": "kernel", "bias": "bias", "gamma": "scale", "beta": "bias"}


@dataclasses.dataclass(frozen=True, eq=False)  # Compared by identity: keys of caches.
class Dialect:
    """Names and layouts of one code base.

    Names of layers are templates over `block` (from 1), `stage` (from 0), `unit`
    (from 1), `index` (from 0), `number` (1 to 3, within a unit) and `letter` (a to c, the
    same). Layouts are letters: `HWIO` is height, width, input, output; an axis that a
    layout does not name has size 1.

    Attributes:
        name: str.
        stem: str. The stem convolution.
        norm: str. A normalisation within a unit.
        convolution: str. A convolution within a unit.
        projection: str. The convolution of the shortcut.
        last_norm: str. The normalisation before the pooling.
        head: str.
        separator: str. Between the name of a layer and that of its weight.
        weights: Mapping from our name of a weight to theirs.
        kernel_layout: str.
        head_layout: str. Of the head's kernel.
        norm_layout: str. Of gains, offsets and statistics; `C` is a vector.
        batch_norm: bool. Whether it has the networks with BatchNorm.
    """

    name: str
    stem: str
    norm: str
    convolution: str
    projection: str
    last_norm: str
    head: str
    separator: str
    weights: Mapping[str, str]
    kernel_layout: str
    head_layout: str
    norm_layout: str = "C"
    batch_norm: bool = False

    def array_name(self, path: str) -> str | None:
        """The name of a weight, or None for one that is not a weight of the network."""
        layer, _, weight = path.rpartition("/")
        layer_name, weight_name = self._layer_name(layer), self.weights.get(weight)
        if layer_name is None or weight_name is None:
            return None
        return f"{layer_name}{self.separator}{weight_name}"

    def _layer_name(self, layer: str) -> str | None:
        match = _IN_UNIT.fullmatch(layer)
        if match is None:
            return {"stem_conv": self.stem, "norm": self.last_norm, "head": self.head}.get(layer)
        block, unit, role, number = match.groups()
        template = {"norm": self.norm, "conv": self.convolution, "proj": self.projection}[role]
        return template.format(
            block=int(block),
            stage=int(block) - 1,
            unit=int(unit),
            index=int(unit) - 1,
            number=number,
            letter=" abc"[int(number or 0)],
        )

    def layout(self, path: str) -> str:
        """The layout of a weight."""
        if path == "head/kernel":
            return self.head_layout
        if path.endswith("/kernel"):
            return self.kernel_layout
        return "C" if path == "head/bias" else self.norm_layout

    def renamed(self, *changes: tuple[str, str], **attributes: Any) -> "Dialect":
        """A dialect with other parts in the names of its layers, and with other attributes."""
        names = {name: getattr(self, name) for name in _LAYERS}
        for old, new in changes:
            names = {name: template.replace(old, new) for name, template in names.items()}
        return dataclasses.replace(self, **{**names, **attributes})


#: The attributes of a dialect that are names of layers.
_LAYERS = ("stem", "norm", "convolution", "projection", "last_norm", "head")

#: The npz files of big_transfer; the names that this package uses everywhere.
OFFICIAL = Dialect(
    name="official",
    stem="resnet/root_block/standardized_conv2d",
    norm="resnet/block{block}/unit{unit:02d}/{letter}/group_norm",
    convolution="resnet/block{block}/unit{unit:02d}/{letter}/standardized_conv2d",
    projection="resnet/block{block}/unit{unit:02d}/a/proj/standardized_conv2d",
    last_norm="resnet/group_norm",
    head="resnet/head/conv2d",
    separator="/",
    weights=_KERAS_WEIGHTS,
    kernel_layout="HWIO",
    head_layout="HWIO",
)

#: The same rule for networks with BatchNorm, for which no official npz exists.
OFFICIAL_BATCH_NORM = OFFICIAL.renamed(
    ("standardized_conv2d", "conv2d"), ("group_norm", "batch_norm"), batch_norm=True
)

#: The same rule for a stem convolution without weight standardisation, as it is for
#: images that have not three channels.
OFFICIAL_PLAIN_STEM = dataclasses.replace(OFFICIAL, stem="resnet/root_block/conv2d")

TIMM = Dialect(
    name="timm",
    stem="stem.conv",
    norm="stages.{stage}.blocks.{index}.norm{number}",
    convolution="stages.{stage}.blocks.{index}.conv{number}",
    projection="stages.{stage}.blocks.{index}.downsample.conv",
    last_norm="norm",
    head="head.fc",
    separator=".",
    weights=_TORCH_WEIGHTS,
    kernel_layout="OIHW",
    head_layout="OIHW",
    batch_norm=True,
)

#: transformers' `BitForImageClassification`.
TRANSFORMERS = TIMM.renamed(
    ("stages.{stage}.blocks", "bit.encoder.stages.{stage}.layers"),
    name="transformers",
    stem="bit.embedder.convolution",
    last_norm="bit.norm",
    head="classifier.1",
    head_layout="OI",
    batch_norm=False,
)

#: transformers' `BitModel`, the network without its head.
TRANSFORMERS_BODY = TRANSFORMERS.renamed(("bit.", ""))

#: big_vision's `bit_paper`.
FLAX = Dialect(
    name="flax",
    stem="root_block/conv_root",
    norm="block{block}/unit{unit:02d}/gn{number}",
    convolution="block{block}/unit{unit:02d}/conv{number}",
    projection="block{block}/unit{unit:02d}/conv_proj",
    last_norm="norm-pre-head",
    head="head",
    separator="/",
    weights=_FLAX_WEIGHTS,
    kernel_layout="HWIO",
    head_layout="IO",
    norm_layout="NHWC",
)

#: big_transfer's `bit_jax`, which big_vision's code descends from.
BIT_JAX = dataclasses.replace(FLAX, name="bit_jax", head="conv_head")

BIT_PYTORCH = dataclasses.replace(
    TIMM,
    name="bit_pytorch",
    stem="root.conv",
    norm="body.block{block}.unit{unit:02d}.gn{number}",
    convolution="body.block{block}.unit{unit:02d}.conv{number}",
    projection="body.block{block}.unit{unit:02d}.downsample",
    last_norm="head.gn",
    head="head.conv",
    batch_norm=False,
)

#: Our own paths, as Keras and TensorFlow store them.
KERAS = dataclasses.replace(
    OFFICIAL,
    name="keras",
    stem="stem_conv",
    norm="block{block}_unit{unit:02d}_norm{number}",
    convolution="block{block}_unit{unit:02d}_conv{number}",
    projection="block{block}_unit{unit:02d}_proj",
    last_norm="norm",
    head="head",
    head_layout="IO",
    batch_norm=True,
)

#: Keras models of `bit_tf2`: names repeat in them, and weights are known by their order.
BIT_TF2 = dataclasses.replace(KERAS, name="bit_tf2", batch_norm=False)

#: All others, in the order in which they are looked for.
DIALECTS = (
    OFFICIAL,
    OFFICIAL_BATCH_NORM,
    OFFICIAL_PLAIN_STEM,
    FLAX,
    BIT_JAX,
    TIMM,
    TRANSFORMERS,
    TRANSFORMERS_BODY,
    BIT_PYTORCH,
    KERAS,
)


@functools.cache
def paths_by_name(dialect: Dialect) -> Mapping[str, str]:
    """The path of every weight that any architecture has, by its name in a dialect."""
    paths = [
        path
        for architecture in ARCHITECTURES.values()
        if dialect.batch_norm or architecture.normalization == "group"
        for path in architecture.weight_shapes(classes=1)
    ]
    names = {path: dialect.array_name(path) for path in paths}
    return MappingProxyType({name: path for path, name in names.items() if name is not None})


def rearranged_shape(shape: Shape, source: str, target: str) -> Shape:
    """A shape in another layout.

    Raises:
        ValueError: It has not the axes of its layout.
    """
    sizes = dict(zip(source, shape, strict=False))
    if len(shape) != len(source) or any(sizes[axis] != 1 for axis in source if axis not in target):
        raise ValueError(f"{shape} is not a shape of the layout {source}")
    return tuple(sizes.get(axis, 1) for axis in target)


def rearranged(array: np.ndarray, source: str, target: str) -> np.ndarray:
    """An array in another layout, as a view where NumPy can."""
    shape = rearranged_shape(array.shape, source, target)
    common = "".join(axis for axis in source if axis in target)
    array = array.reshape(rearranged_shape(array.shape, source, common))
    return array.transpose([common.index(axis) for axis in target if axis in common]).reshape(shape)


def bit_tf2_order(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Weights in the order of big_transfer's `bit_tf2`, where a projection comes last in its unit.

    Args:
        shapes: Mapping from path to shape in our order, `Architecture.weight_shapes`.
    """
    ordered: dict[str, Shape] = {}
    waiting: dict[str, Shape] = {}
    for path, shape in shapes.items():
        if path.endswith("_proj/kernel"):
            waiting[path] = shape
            continue
        ordered[path] = shape
        if path.endswith("_conv3/kernel"):
            ordered |= waiting
            waiting = {}
    return ordered
