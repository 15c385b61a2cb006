"""Convolutions in 8 bits between layers in float: which values they meet, and their rounding.

The converter of TFLite quantises what stands between two `fake_quant` operations, and
nothing else. So convolutions and the head get them, and GroupNorm, whose squares and
variances 8 bits cannot contain, stays in float by construction.

Reference:
    [Jacob et al., 2018](https://arxiv.org/abs/1712.05877), sections 2 and 3.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bit_keras.exporters.tflite.layers import with_layers

#: Images that go through the network at once while it is calibrated.
_BATCH = 8

#: How much farther than seen the outputs of a file reach.
_HEADROOM = 1.25

#: Of a filter that is zero everywhere, which has no scale of its own.
_SMALLEST_RANGE = 1e-9


@dataclasses.dataclass(frozen=True)
class Range:
    """The smallest and the largest value of a tensor; zero is between them."""

    low: float = 0.0
    high: float = 0.0

    def with_headroom(self) -> "Range":
        """For an output: images that were not seen may have larger values, which would tie.

        A range of their own also keeps the features apart from the input of the head: the
        converter gives an output its type in place, and would change what others read.
        """
        return Range(_HEADROOM * self.low, _HEADROOM * self.high)

    def including(self, values: tf.Tensor) -> "Range":
        low, high = float(tf.reduce_min(values)), float(tf.reduce_max(values))
        return Range(min(self.low, low), max(self.high, high))


@dataclasses.dataclass(frozen=True)
class Ranges:
    """What goes into a layer and what comes out of it."""

    inputs: Range = Range()
    outputs: Range = Range()


class _Observed(keras.layers.Layer):
    """A layer that tells a function its name and the values that it meets."""

    note: Callable[[str, tf.Tensor, tf.Tensor], None]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = super().call(inputs)
        self.note(self.name, inputs, outputs)
        return outputs


_OBSERVED = {
    layer: type(f"Observed{layer.__name__}", (_Observed, layer), {})
    for layer in (keras.layers.Conv2D, keras.layers.GlobalAveragePooling2D, keras.layers.Dense)
}


class _RoundedConv2D(keras.layers.Conv2D):
    """A convolution whose input, kernel and output have the values that int8 has."""

    ranges: Mapping[str, Ranges]

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        ranges = self.ranges[self.name]
        outputs = super().convolution_op(_rounded(inputs, ranges.inputs), _rounded_kernel(kernel))
        return _rounded(outputs, ranges.outputs)


class _RoundedDense(keras.layers.Dense):
    """The same of a dense layer, as a convolution of a single pixel.

    TFLite transposes the kernel of a product of matrices, and cannot do that where each
    filter has a scale of its own.
    """

    ranges: Mapping[str, Ranges]

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        ranges, (features, units) = self.ranges[self.name], self.kernel.shape
        pixels = tf.reshape(_rounded(inputs, ranges.inputs), (-1, 1, 1, features))
        kernel = _rounded_kernel(tf.reshape(self.kernel, (1, 1, features, units)))
        outputs = tf.nn.conv2d(pixels, kernel, 1, "VALID") + self.bias
        return tf.reshape(_rounded(outputs, ranges.outputs.with_headroom()), (-1, units))


def observed_ranges(network: keras.Model, images: np.ndarray) -> dict[str, Ranges]:
    """What goes into the convolutions, the pooling and the head, and what comes out.

    Args:
        network: keras.Model, folded.
        images: float32 array `(n, height, width, channels)` in [-1, 1].

    Returns:
        dict from the name of a layer to its Ranges.
    """
    ranges: dict[str, Ranges] = {}

    def note(name: str, inputs: tf.Tensor, outputs: tf.Tensor) -> None:
        # While the copy is built, the tensors have no values.
        if tf.is_tensor(inputs) and not tf.is_symbolic_tensor(inputs):
            known = ranges.get(name, Ranges())
            ranges[name] = Ranges(known.inputs.including(inputs), known.outputs.including(outputs))

    observed = with_layers(network, _OBSERVED, note=note)
    for start in range(0, len(images), _BATCH):
        observed(images[start : start + _BATCH], training=False)
    return ranges


def rounded(network: keras.Model, ranges: Mapping[str, Ranges]) -> keras.Model:
    """A copy of a network whose convolutions and head round as int8 does.

    Activations have one scale each, kernels one for every filter.

    Args:
        network: keras.Model, folded.
        ranges: mapping from `observed_ranges`.
    """
    classes = {keras.layers.Conv2D: _RoundedConv2D, keras.layers.Dense: _RoundedDense}
    return with_layers(network, classes, ranges=ranges)


def rounded_features(features: tf.Tensor, ranges: Mapping[str, Ranges]) -> tf.Tensor:
    """The pooled features with the values that int8 has, as an output of a file."""
    return _rounded(features, ranges["features"].outputs.with_headroom())


def _rounded(values: tf.Tensor, limits: Range) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(values, limits.low, limits.high)


def _rounded_kernel(kernel: Any) -> tf.Tensor:
    """Every filter with a scale of its own, and as many steps below zero as above it."""
    kernel = tf.convert_to_tensor(kernel)
    largest = tf.reduce_max(tf.abs(kernel), axis=list(range(kernel.shape.rank - 1)))
    largest = tf.maximum(largest, _SMALLEST_RANGE)
    return tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -largest, largest, narrow_range=True
    )
