"""The ResNet-v2 network of BiT, and its variant with BatchNorm.

BiT is the pre-activation network of `google-research/big_transfer`,
`bit_jax/models.py`, and of `google-research/big_vision`, `models/bit_paper.py`
(not `models/bit.py`, which is a ResNet-v1). Order of a unit, with `p` the
normalised and rectified input:

    y = conv1x1(p);  y = conv3x3(relu(norm(y)));  y = conv1x1(relu(norm(y)))
    out = y + shortcut,  shortcut = projection(p) in a block's first unit, else x
"""

import functools
import itertools
from collections.abc import Callable, Iterable

import keras
from keras import layers, ops

from bit_keras.layers import GroupNorm, StdConv2D
from bit_keras.layers.functional import Functional
from bit_keras.layers.moments import Tensor
from bit_keras.registry import RGB, Architecture, ResidualUnit

#: Keras has 1e-3; torch's BatchNorm, and so the a1h networks of timm, 1e-5.
BATCH_NORM_EPSILON = 1e-5

#: torch's `momentum=0.1` in the convention of Keras.
BATCH_NORM_MOMENTUM = 0.9

#: The initialiser of the released networks (big_vision, `bit_paper.py`).
KERNEL_INITIALIZER = "lecun_normal"

#: `_convolution` with its argument `random` set.
Convolution = Callable[..., Tensor]

#: Names of the feature maps, in the order of the network.
FEATURE_MAPS = ("stem", "block1", "block2", "block3", "block4", "pre_logits_map")


def feature_maps(
    x: Tensor, architecture: Architecture, *, random: bool = True
) -> dict[str, Tensor]:
    """Applies the network to images.

    Args:
        x: KerasTensor. Images, channels last, float in [-1, 1], `(batch, height,
            width, channels)`: RGB, or images of any other number of channels, for
            which the stem convolution is not standardised.
        architecture: Architecture.
        random: bool. Initialise the kernels randomly. Zeros take a third of the time, for
            networks that are filled from a file. Defaults to `True`.

    Returns:
        dict of KerasTensor: `stem` (stride 2, the stem convolution), `block1` to
        `block4` (strides 4, 8, 16, 32: sums of the residual units, not
        normalised) and `pre_logits_map` (stride 32, normalised and rectified).
    """
    # For other images, `checkpoints/views.py` computes a kernel that is not standardised.
    plain = x.shape[-1] != RGB
    convolution = functools.partial(_convolution, random=random)
    x = convolution(
        x, architecture, architecture.stem_filters, 7, strides=2, plain=plain, name="stem_conv"
    )
    maps = {"stem": x}
    x = _max_pool(x, architecture.pool_border)
    for block, units in itertools.groupby(architecture.residual_units(), lambda unit: unit.block):
        name = f"block{block}"
        x = maps[name] = _block(x, architecture, units, convolution, name)(x)
    maps["pre_logits_map"] = _norm_relu(x, architecture, "norm")
    return maps


def _block(
    x: Tensor,
    architecture: Architecture,
    units: Iterable[ResidualUnit],
    convolution: Convolution,
    name: str,
) -> keras.Model:
    """Returns a block for maps like `x` as a model, so that it can be frozen by name."""
    # A model casts its inputs to the dtype of `keras.Input`, by default float32.
    inputs = x = keras.Input(x.shape[1:], dtype=x.dtype)
    for unit in units:
        x = _residual_unit(x, architecture, unit, convolution)
    return Functional(inputs, x, name=name)


def _residual_unit(
    x: Tensor, architecture: Architecture, unit: ResidualUnit, convolution: Convolution
) -> Tensor:
    name, middle, out, strides = unit.name, unit.middle_filters, unit.filters, unit.strides
    shortcut = x
    y = _norm_relu(x, architecture, f"{name}_norm1")
    if unit.projects:
        shortcut = convolution(y, architecture, out, 1, strides=strides, name=f"{name}_proj")
    y = convolution(y, architecture, middle, 1, name=f"{name}_conv1")
    y = _norm_relu(y, architecture, f"{name}_norm2")
    y = convolution(y, architecture, middle, 3, strides=strides, name=f"{name}_conv2")
    y = _norm_relu(y, architecture, f"{name}_norm3")
    y = convolution(y, architecture, out, 1, name=f"{name}_conv3")
    return layers.Add(name=f"{name}_add")([y, shortcut])


def _convolution(
    x: Tensor,
    architecture: Architecture,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    plain: bool = False,
    random: bool,
    name: str,
) -> Tensor:
    """Applies a convolution with `kernel_size // 2` zeros on every side.

    `padding="same"` differs for a stride and an even size: it pads one pixel less
    above and on the left, which changes features by 23 %.
    """
    if kernel_size > 1:
        x = layers.ZeroPadding2D(
            kernel_size // 2, data_format="channels_last", name=f"{name}_padding"
        )(x)
    plain = plain or architecture.normalization == "batch"
    convolution = (layers.Conv2D if plain else StdConv2D)(
        filters,
        kernel_size,
        strides=strides,
        padding="valid",
        use_bias=False,
        kernel_initializer=KERNEL_INITIALIZER if random else "zeros",
        data_format="channels_last",
        name=name,
    )
    y = convolution(x)
    # The configuration must not depend on whether the network is filled from a file.
    convolution.kernel_initializer = keras.initializers.get(KERNEL_INITIALIZER)
    return y


def _norm_relu(x: Tensor, architecture: Architecture, name: str) -> Tensor:
    if architecture.normalization == "group":
        norm = GroupNorm(architecture.groups, name=name)
    else:
        norm = layers.BatchNormalization(
            epsilon=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM, name=name
        )
    return layers.ReLU(name=f"{name}_relu")(norm(x))


def _max_pool(x: Tensor, border: float) -> Tensor:
    """Applies 3x3 max-pooling with stride 2 to a map padded with one pixel of `border`.

    The stem convolution is not rectified, so a border of zeros can be the maximum;
    the BiT weights were trained with it.
    """
    if border == 0.0:
        x = layers.ZeroPadding2D(1, data_format="channels_last", name="stem_pool_padding")(x)
    else:
        x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=border)
    return layers.MaxPooling2D(3, 2, data_format="channels_last", name="stem_pool")(x)
