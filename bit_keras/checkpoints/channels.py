"""Stem convolutions for images of other than three channels."""

import numpy as np

from bit_keras.checkpoints.files import ArrayFile
from bit_keras.checkpoints.names import PLAIN_STEM, STEM, input_channels
from bit_keras.checkpoints.views import ArrayFileView
from bit_keras.errors import CheckpointError
from bit_keras.layers.std_conv2d import EPSILON
from bit_keras.registry import RGB, Shape


class ArraysWithChannels(ArrayFileView):
    """The weights of a network for RGB images, for images of `channels` channels.

    Only the stem convolution differs. It has `spread_over_channels` of the kernel
    that the network for RGB computes with: where convolutions are standardised that is
    the standardised one, and the new one is plain, as `feature_maps` has it. To sum or
    to repeat the stored kernel, and to standardise the result, would be another function.

    Args:
        arrays: ArrayFile, under the official names. It is closed with this object.
        channels: int. Of the images, 1 or more.

    Raises:
        CheckpointError: The file is not for images of three channels.
    """

    def __init__(self, arrays: ArrayFile, channels: int) -> None:
        super().__init__(arrays)
        found = input_channels(arrays.shapes)
        if found != RGB:
            raise CheckpointError(
                f"{arrays.path} was made for in_channels={found} and the network for "
                f"in_channels={channels}; only files for {RGB} can be adapted: pass "
                f"in_channels={found}, or take another file."
            )
        self._channels = channels
        self._stem = STEM if STEM in arrays.shapes else PLAIN_STEM
        self.shapes = {self._renamed(name): self._shape(name) for name in arrays.shapes}
        self.dtypes = {
            self._renamed(name): "float32" if name == self._stem else dtype
            for name, dtype in arrays.dtypes.items()
        }

    def _renamed(self, name: str) -> str:
        return PLAIN_STEM if name == self._stem else name

    def _shape(self, name: str) -> Shape:
        shape = self._arrays.shapes[name]
        return (*shape[:2], self._channels, *shape[3:]) if name == self._stem else shape

    def __getitem__(self, name: str) -> np.ndarray:
        if name != PLAIN_STEM:
            return self._arrays[name]
        kernel = self._arrays[self._stem].astype("float64")
        # To standardise what is spread would change the gain of each filter. To put it right
        # takes a weight that no format has a place for; a plain kernel needs none.
        if self._stem == STEM:
            kernel = _standardized(kernel)
        return spread_over_channels(kernel, self._channels).astype("float32")


def spread_over_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A kernel for `channels` channels that acts on equal ones as `kernel` on a grey image.

    From three channels on, channel `c` has the kernel of colour `c % 3`, divided by
    the number of channels with that colour: an image whose channels repeat those of an
    RGB image gives what that gives. Fewer channels share the sum over the colours.

    Args:
        kernel: array, `(height, width, 3, out)`.
        channels: int, 1 or more.

    Returns:
        array, `(height, width, channels, out)`.
    """
    if channels < RGB:
        return np.repeat(kernel.sum(2, keepdims=True) / channels, channels, axis=2)
    colours = np.arange(channels) % RGB
    return kernel[:, :, colours] / np.bincount(colours)[colours][:, None]


def standardized(kernel: np.ndarray) -> np.ndarray:
    """The kernel that `StdConv2D` uses in place of `kernel`, taken in float64.

    Args:
        kernel: array, `(height, width, in, out)`.

    Returns:
        float32 array of the same shape.
    """
    return _standardized(kernel.astype("float64")).astype("float32")


def _standardized(kernel: np.ndarray) -> np.ndarray:
    centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
    variance = np.square(centred).mean((0, 1, 2), keepdims=True)
    return centred / np.sqrt(variance + EPSILON)
