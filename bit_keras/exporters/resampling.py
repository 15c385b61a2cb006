"""Pillow's resampling as a TensorFlow graph, equal to it in every bit.

`tf.image.resize(antialias=True)` is 0.2 grey levels from Pillow on average, since
it neither rounds between the two passes nor takes its weights in fixed point.
The arithmetic here is Pillow's (`python-pillow/Pillow`, `src/libImaging/Resample.c`):
weights of 22 bits, integer sums, which float64 contains exactly, and 8 bits after
each pass.
"""

from collections.abc import Callable
from types import MappingProxyType

import tensorflow as tf

from bit_keras.preprocessing import EvalTransform

#: Bits after the point of a weight (`PRECISION_BITS` of `Resample.c`).
_ONE = float(1 << 22)

#: Rows that are computed from one band of the image. Each row needs a few
#: neighbours only, and a product with the whole image would mostly add zeros.
_ROWS = 32


def _triangle(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _cubic(x: tf.Tensor) -> tf.Tensor:
    a, x = -0.5, tf.abs(x)
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    outer = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x < 1.0, inner, tf.where(x < 2.0, outer, 0.0))


def _box(x: tf.Tensor) -> tf.Tensor:
    return tf.cast((x > -0.5) & (x <= 0.5), x.dtype)


#: Each filter and how far it reaches, in pixels of the smaller image.
_FILTERS: MappingProxyType[str, tuple[Callable[[tf.Tensor], tf.Tensor], float]] = MappingProxyType(
    {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0), "area": (_box, 0.5)}
)


def resize_and_crop(image: tf.Tensor, transform: EvalTransform) -> tf.Tensor:
    """The pixels that an evaluation transform takes from a decoded image.

    Only what is left after the crop is computed.

    Args:
        image: uint8 tensor `(height, width, 3)`.
        transform: EvalTransform.

    Returns:
        uint8 tensor `(size, size, 3)`.

    Example:

    ```python
    from bit_keras.exporters.resampling import resize_and_crop

    transform = bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
    resize_and_crop(np.zeros((300, 400, 3), "uint8"), transform).shape  # (224, 224, 3)
    ```
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    resized_height, resized_width = _resized_size(height, width, transform)
    interpolation, size = transform.resizing.interpolation, transform.size
    columns = tf.transpose(image, (1, 0, 2))
    columns = _resampled_rows(columns, resized_width, size, interpolation)
    rows = tf.transpose(columns, (1, 0, 2))
    return _resampled_rows(rows, resized_height, size, interpolation)


def _resized_size(
    height: tf.Tensor, width: tf.Tensor, transform: EvalTransform
) -> tuple[tf.Tensor, tf.Tensor]:
    side = transform.resizing.side
    if transform.resizing.mode == "squash":
        # Not a constant, or TensorFlow's optimiser multiplies by its inverse where `_weights`
        # divides by it, which moves a pixel in a thousand.
        varying = side + tf.minimum(height, 0)
        return varying, varying
    short = tf.minimum(height, width)
    # The product of the sides of a long strip does not fit into 32 bits.
    sides = [
        tf.cast(side * tf.cast(x, tf.int64) // tf.cast(short, tf.int64), tf.int32)
        for x in (height, width)
    ]
    return sides[0], sides[1]


def _resampled_rows(
    image: tf.Tensor, resized: tf.Tensor, size: int, interpolation: str
) -> tf.Tensor:
    """The `size` middle rows of `resized` ones, `(size, width, 3)`, uint8."""
    width = tf.shape(image)[1]
    spare = resized - size
    # Half of it, rounded half to even as Python's `round` does.
    first = spare // 2 + (spare % 2) * ((spare // 2) % 2)
    bands = []
    for start in range(0, size, _ROWS):
        count = min(_ROWS, size - start)
        top, bottom, weights = _weights(
            first + start, count, tf.shape(image)[0], resized, interpolation
        )
        band = tf.reshape(image[top:bottom], (bottom - top, width * 3))
        sums = tf.linalg.matmul(weights, tf.cast(band, tf.float64))
        pixels = tf.clip_by_value(tf.floor(sums / _ONE + 0.5), 0.0, 255.0)
        bands.append(tf.reshape(tf.cast(pixels, tf.uint8), (count, width, 3)))
    return tf.concat(bands, axis=0)


def _weights(
    first: tf.Tensor, count: int, before: tf.Tensor, after: tf.Tensor, interpolation: str
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which rows the resized rows from `first` on are made of, and with which weights.

    Returns:
        The first row and the one after the last, and float64 whole numbers
        `(count, rows)`, whose sum in a row is about `_ONE`.
    """
    kernel, reach = _FILTERS[interpolation]
    scale = tf.cast(before, tf.float64) / tf.cast(after, tf.float64)
    stretch = tf.maximum(scale, 1.0)
    centers = (tf.cast(first + tf.range(count), tf.float64) + 0.5) * scale
    lowest = tf.maximum(tf.cast(centers - reach * stretch + 0.5, tf.int32), 0)
    highest = tf.minimum(tf.cast(centers + reach * stretch + 0.5, tf.int32), before)
    rows = tf.range(lowest[0], highest[-1])
    distances = tf.cast(rows, tf.float64) - centers[:, None] + 0.5
    weights = kernel(distances * (1.0 / stretch))
    weights = tf.where((rows >= lowest[:, None]) & (rows < highest[:, None]), weights, 0.0)
    weights *= 1.0 / tf.reduce_sum(weights, axis=1, keepdims=True)
    fixed = weights * _ONE
    fixed = tf.where(fixed < 0.0, tf.math.ceil(fixed - 0.5), tf.floor(fixed + 0.5))
    return lowest[0], highest[-1], fixed
