"""Root convolutions for pictures that have not three channels."""

import numpy as np

from bit_keras.layers.std_conv2d import EPSILON


def standardized(kernel: np.ndarray) -> np.ndarray:
    """The kernel that `StdConv2D` uses in place of `kernel`, taken in float64.

    Args:
        kernel: array, `(height, width, in, out)`.

    Returns:
        float32 array of the same shape.
    """
    wide = kernel.astype("float64")
    centred = wide - wide.mean((0, 1, 2), keepdims=True)
    variance = np.square(centred).mean((0, 1, 2), keepdims=True)
    return (centred / np.sqrt(variance + EPSILON)).astype("float32")
