"""Open files whose stem convolution or head is changed on its way into a network."""

from collections.abc import Sequence

import numpy as np

from bit_keras.checkpoints.files import ArrayFile, ArrayFileView
from bit_keras.checkpoints.names import PLAIN_STEM, STEM, head_classes, input_channels, is_head
from bit_keras.errors import CheckpointError
from bit_keras.layers.std_conv2d import EPSILON
from bit_keras.preprocessing import Labels
from bit_keras.registry import RGB


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
        names = {name: PLAIN_STEM if name == self._stem else name for name in arrays}
        self.shapes = {names[name]: shape for name, shape in arrays.shapes.items()}
        self.dtypes = {names[name]: dtype for name, dtype in arrays.dtypes.items()}
        height, width, _, filters = arrays.shapes[self._stem]
        self.shapes[PLAIN_STEM] = height, width, channels, filters
        self.dtypes[PLAIN_STEM] = "float32"

    def __getitem__(self, name: str) -> np.ndarray:
        if name != PLAIN_STEM:
            return self._arrays[name]
        kernel = self._arrays[self._stem].astype("float64")
        # To standardise what is spread would change the gain of each filter. To put it right
        # takes a weight that no format has a place for; a plain kernel needs none.
        if self._stem == STEM:
            kernel = _standardized(kernel)
        return spread_over_channels(kernel, self._channels).astype("float32")


class ArraysWithClasses(ArrayFileView):
    """The weights of a classifier whose head keeps some classes, in an order of one's own.

    Args:
        arrays: ArrayFile, under the official names. It is closed with this object.
        labels: Labels. Of the head in the file.
        indices: sequence of int. Of the classes to keep, in their new order.

    Raises:
        CheckpointError: The head in the file is not that of the labels.
    """

    def __init__(self, arrays: ArrayFile, labels: Labels, indices: Sequence[int]) -> None:
        super().__init__(arrays)
        found = head_classes(arrays.shapes)
        if found != len(labels):
            head = "no head" if found is None else f"a head for {found} classes"
            raise CheckpointError(
                f"{arrays.path} has {head}, and classes can be selected from one for the "
                f"{len(labels)} of {labels.name} only; take the file of the model name, or "
                "replace the head with num_classes=."
            )
        self._indices = list(indices)
        for name in filter(is_head, arrays.shapes):
            self.shapes[name] = (*arrays.shapes[name][:-1], len(self._indices))

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        return array.take(self._indices, axis=-1) if is_head(name) else array


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
