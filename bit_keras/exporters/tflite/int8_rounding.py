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

from bit_keras.models.folding import clone_with, copy_state

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


class _Observer:
    """Notes the values that layers meet, by the names of the layers."""

    def __init__(self) -> None:
        self.ranges: dict[str, Ranges] = {}

    def note(self, name: str, inputs: tf.Tensor, outputs: tf.Tensor) -> None:
        # While the copy is built, the tensors have no values.
        if tf.is_tensor(inputs) and not tf.is_symbolic_tensor(inputs):
            known = self.ranges.get(name, Ranges())
            self.ranges[name] = Ranges(
                known.inputs.including(inputs), known.outputs.including(outputs)
            )


class _ObservedConv2D(keras.layers.Conv2D):
    """A convolution that has its values noted."""

    observer: _Observer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = super().call(inputs)
        self.observer.note(self.name, inputs, outputs)
        return outputs


class _ObservedDense(keras.layers.Dense):
    """The same of a dense layer."""

    observer: _Observer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = super().call(inputs)
        self.observer.note(self.name, inputs, outputs)
        return outputs


class _ObservedPooling(keras.layers.GlobalAveragePooling2D):
    """The same of the pooling, which makes the features."""

    observer: _Observer

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        outputs = super().call(inputs)
        self.observer.note(self.name, inputs, outputs)
        return outputs


class _RoundedConv2D(keras.layers.Conv2D):
    """A convolution whose input, kernel and output have the values that int8 has."""

    ranges: Ranges

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        outputs = super().convolution_op(
            _rounded(inputs, self.ranges.inputs), _rounded_kernel(kernel)
        )
        return _rounded(outputs, self.ranges.outputs)


class _RoundedDense(keras.layers.Dense):
    """The same of a dense layer, as a convolution of a single pixel.

    TFLite transposes the kernel of a product of matrices, and cannot do that where each
    filter has a scale of its own.
    """

    ranges: Ranges

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        features, units = self.kernel.shape
        pixels = tf.reshape(_rounded(inputs, self.ranges.inputs), (-1, 1, 1, features))
        kernel = _rounded_kernel(tf.reshape(self.kernel, (1, 1, features, units)))
        outputs = tf.nn.conv2d(pixels, kernel, 1, "VALID") + self.bias
        return tf.reshape(_rounded(outputs, self.ranges.outputs.with_headroom()), (-1, units))


def observed_ranges(network: keras.Model, images: np.ndarray) -> dict[str, Ranges]:
    """What goes into the convolutions, the pooling and the head, and what comes out.

    Args:
        network: keras.Model, folded.
        images: float32 array `(n, height, width, channels)` in [-1, 1].

    Returns:
        dict from the name of a layer to its Ranges.
    """
    observer = _Observer()
    classes = (_ObservedConv2D, _ObservedPooling, _ObservedDense)
    observed = _with_layers(network, classes, lambda name: {"observer": observer})
    for start in range(0, len(images), _BATCH):
        observed(images[start : start + _BATCH], training=False)
    return observer.ranges


def rounded(network: keras.Model, ranges: Mapping[str, Ranges]) -> keras.Model:
    """A copy of a network whose convolutions and head round as int8 does.

    Activations have one scale each, kernels one for every filter.

    Args:
        network: keras.Model, folded.
        ranges: mapping from `observed_ranges`.
    """
    classes = (_RoundedConv2D, _RoundedDense)
    return _with_layers(network, classes, lambda name: {"ranges": ranges[name]})


def rounded_features(features: tf.Tensor, ranges: Mapping[str, Ranges]) -> tf.Tensor:
    """The pooled features with the values that int8 has, as an output of a file."""
    return _rounded(features, ranges["features"].outputs.with_headroom())


def _with_layers(
    network: keras.Model,
    classes: tuple[type[keras.layers.Layer], ...],
    attributes: Callable[[str], dict[str, Any]],
) -> keras.Model:
    """A copy of a network with other classes of layers, which get attributes by their names."""
    format_of = {layer_class.__base__: layer_class for layer_class in classes}

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        layer_class = format_of.get(type(layer), type(layer))
        copy = layer_class.from_config(layer.get_config())
        if layer_class in classes:
            for name, value in attributes(layer.name).items():
                setattr(copy, name, value)
        return copy

    copy = clone_with(network, swap)
    copy_state(network, copy)
    return copy


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
