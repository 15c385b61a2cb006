"""Layers in the form that TFLite computes, and copies of networks with them."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from bit_keras.layers import GroupNorm
from bit_keras.layers.moments import Tensor
from bit_keras.models.folding import clone_with, copy_state


def with_layers(
    network: keras.Model,
    classes: Mapping[type[keras.layers.Layer], type[keras.layers.Layer]],
    **attributes: Any,
) -> keras.Model:
    """Copies a network with other classes of layers.

    Args:
        network: keras.Model, folded.
        classes: mapping from a class of layers in the network to the class in its place, which
            has the same weights.
        **attributes: What each new layer gets before it is called.
    """

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        copy = classes.get(type(layer), type(layer)).from_config(layer.get_config())
        if type(layer) in classes:
            for name, value in attributes.items():
                setattr(copy, name, value)
        return copy

    copy = clone_with(network, swap)
    copy_state(network, copy)
    return copy


class CentredGroupNorm(GroupNorm):
    """The function of `GroupNorm`, with the mean of its group taken from every pixel first.

    `GroupNorm` combines moments of channels, small tensors of numbers of very different
    size, which 8 bits cannot contain; here the squares are those of centred pixels, and
    every tensor is four-dimensional. In float it takes longer.
    """

    def call(self, inputs: Tensor) -> Tensor:
        channels = inputs.shape[-1]
        centred = inputs - self._mean_of_groups(inputs)
        # Not a square, which TFLite would merge with the subtraction: SQUARED_DIFFERENCE in
        # int8 ends the process where the scales are far apart (`squared_difference.cc`).
        variance = self._mean_of_groups(centred * centred)
        scale = ops.reshape(self.gamma, (1, 1, 1, channels)) * ops.rsqrt(variance + self.epsilon)
        return centred * scale + ops.reshape(self.beta, (1, 1, 1, channels))

    def _mean_of_groups(self, x: Tensor) -> Tensor:
        """The mean of each group, `(batch, 1, 1, channels)`, the same for all its channels.

        Four axes throughout: the converter omits a reshape of `(1, channels)` that changes
        nothing for one image, and callers may resize the batch.
        """
        channels = x.shape[-1]
        members = channels // self.groups
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        if members == 1:
            return mean
        mean = ops.reshape(mean, (-1, 1, self.groups, members))
        mean = ops.mean(mean, axis=-1, keepdims=True)
        return ops.reshape(ops.tile(mean, (1, 1, 1, members)), (-1, 1, 1, channels))


class ConvolutionHead(keras.layers.Dense):
    """A dense layer as a convolution, of one pixel or of every pixel of a map.

    The converter quantises either with a scale for every filter. Every interpreter that
    was tried reads that of convolutions; that of FULLY_CONNECTED, version 12 of the
    operator, TensorFlow reads from 2.17 on (`docs/deploy.md`).

    Input shape:
        `(batch, channels)` or `(batch, height, width, channels)`.

    Output shape:
        The same with `units` in place of the channels.
    """

    def call(self, inputs: Tensor) -> Tensor:
        channels, units = self.kernel.shape
        is_map = len(inputs.shape) == 4
        pixels = inputs if is_map else ops.reshape(inputs, (-1, 1, 1, channels))
        kernel = ops.reshape(self.kernel, (1, 1, channels, units))
        outputs = ops.conv(pixels, kernel, data_format="channels_last") + self.bias
        return outputs if is_map else ops.reshape(outputs, (-1, units))
