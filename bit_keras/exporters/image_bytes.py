"""Encoded images to arrays, inside a TensorFlow graph."""

import tensorflow as tf

from bit_keras.exporters.image_headers import decode, read_header
from bit_keras.exporters.resampling import resize_and_crop
from bit_keras.preprocessing import EvalTransform

#: The most pixels that an image may have, where nothing else is said: those of a camera of
#: 24 megapixels. Resizing one takes about 30 bytes a pixel.
MAX_PIXELS = 25_000_000

_FINE, _UNREADABLE, _TOO_LARGE = range(3)


def decode_images(
    image_bytes: tf.Tensor, transform: EvalTransform, max_pixels: int | None = None
) -> tf.Tensor:
    """Decodes, resizes and crops images as an evaluation transform does.

    The 8-bit pixels are those of the transform, bit for bit, with one difference:
    EXIF is not read, so an image that its metadata turns is not turned. What TensorFlow
    would decode to other pixels than Pillow is refused: animated WebP, GIFs whose first
    frame is smaller than the canvas, BMPs with 1, 4 or 16 bits, with run lengths or masks.

    Args:
        image_bytes: string tensor `(batch,)`. JPEG, PNG, GIF (the first frame), BMP
            or WebP files.
        transform: EvalTransform.
        max_pixels: int. The most pixels of an image, which are known before it is
            decoded. Between the two steps of resizing a strip may have as many, or
            `MAX_PIXELS`. Defaults to `MAX_PIXELS`, 25,000,000.

    Returns:
        float32 tensor `(batch, size, size, 3)`, RGB in [-1, 1].

    Raises:
        tf.errors.InvalidArgumentError: Images that cannot be read or are too large; the
            message names their positions in the batch.

    Example:

    ```python
    import io

    import PIL.Image

    from bit_keras.exporters.image_bytes import decode_images

    file = io.BytesIO()
    PIL.Image.new("RGB", (300, 200)).save(file, "png")
    transform = bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
    decode_images(np.array([file.getvalue()]), transform).shape  # (1, 224, 224, 3)
    ```
    """
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    image_bytes = tf.convert_to_tensor(image_bytes)
    count = tf.shape(image_bytes, tf.int64)[0]
    nothing = tf.zeros((transform.size, transform.size, 3), tf.uint8)

    def pixels(index: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        verdict = _verdict(data, transform.size, max_pixels)
        image = tf.cond(
            verdict == _FINE,
            lambda: resize_and_crop(decode(data), transform),
            lambda: nothing,
        )
        return index, verdict, image

    images = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
    images = images.map(pixels, num_parallel_calls=tf.data.AUTOTUNE)
    # An operation that fails ends the whole graph with a message that does not say
    # which image it was; a data set can leave that image out.
    images = images.ignore_errors()
    # There is always one element more, because no batch can be made of none.
    spare = (tf.constant(-1, tf.int64), tf.constant(_FINE), nothing)
    images = tf.data.Dataset.from_tensors(spare).concatenate(images)
    indices, verdicts, decoded = images.batch(count + 1).get_single_element()
    with tf.control_dependencies([_require_all(indices[1:], verdicts[1:], count, max_pixels)]):
        return tf.cast(decoded[1:], tf.float32) / 127.5 - 1.0


def _verdict(data: tf.Tensor, size: int, max_pixels: int) -> tf.Tensor:
    header = read_header(data)
    height, width = header.height, header.width
    strip = tf.maximum(height, width) * size
    too_large = (height * width > max_pixels) | (strip > max(max_pixels, MAX_PIXELS))
    return tf.where(header.readable, tf.where(too_large, _TOO_LARGE, _FINE), _UNREADABLE)


def _require_all(
    indices: tf.Tensor, verdicts: tf.Tensor, count: tf.Tensor, max_pixels: int
) -> tf.Operation:
    known = indices[verdicts != _UNREADABLE][None]
    unreadable = tf.sets.difference(tf.range(count)[None], known).values
    too_large = indices[verdicts == _TOO_LARGE]
    return tf.debugging.Assert(
        tf.equal(tf.size(unreadable) + tf.size(too_large), 0),
        [
            "These images of the batch cannot be read, counted from 0:",
            unreadable,
            f"These have more than {max_pixels} pixels:",
            too_large,
            "JPEG, PNG, GIF, BMP and WebP files are allowed, except animated WebP, GIF frames "
            "smaller than their canvas, and BMP with 1, 4 or 16 bits, run lengths or masks.",
        ],
        summarize=16,
    )
