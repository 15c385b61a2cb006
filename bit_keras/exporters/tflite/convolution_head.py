"""The head in the form that older interpreters and class maps need."""

import keras
from keras import ops

from bit_keras.layers.moments import Tensor


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
