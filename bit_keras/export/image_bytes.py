"""Encoded pictures to images, inside a TensorFlow graph."""

import tensorflow as tf

from bit_keras.export.resampling import resize_and_crop
from bit_keras.preprocessing import EvalTransform


def decode_images(image_bytes: tf.Tensor, transform: EvalTransform) -> tf.Tensor:
    """Decodes, resizes and crops pictures as an evaluation transform does.

    The 8-bit pixels are those of the transform, bit for bit, with one difference:
    EXIF is not read, so a picture that its metadata turns is not turned.

    Args:
        image_bytes: string tensor `(batch,)`. JPEG, PNG, GIF (the first frame), BMP
            or WebP files of any size.
        transform: EvalTransform.

    Returns:
        float32 tensor `(batch, size, size, 3)`, RGB in [-1, 1].

    Raises:
        tf.errors.InvalidArgumentError: Pictures that cannot be read; the message
            names their positions in the batch.

    Example:

    ```python
    import io

    import PIL.Image

    from bit_keras.export.image_bytes import decode_images

    file = io.BytesIO()
    PIL.Image.new("RGB", (300, 200)).save(file, "png")
    transform = bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
    decode_images(np.array([file.getvalue()]), transform).shape  # (1, 224, 224, 3)
    ```
    """
    image_bytes = tf.convert_to_tensor(image_bytes)
    count = tf.shape(image_bytes, tf.int64)[0]
    size = transform.size
    pictures = tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
    pictures = pictures.map(
        lambda index, data: (index, resize_and_crop(_decode(data), transform)),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    # An operation that fails ends the whole graph with a message that does not say
    # which picture it was; a data set can leave that picture out.
    pictures = pictures.ignore_errors()
    # There is always one element more, because no batch can be made of none.
    spare = (tf.constant(-1, tf.int64), tf.zeros((size, size, 3), tf.uint8))
    pictures = tf.data.Dataset.from_tensors(spare).concatenate(pictures)
    indices, pixels = pictures.batch(count + 1).get_single_element()
    with tf.control_dependencies([_require_all(indices[1:], count)]):
        return tf.cast(pixels[1:], tf.float32) / 127.5 - 1.0


def _decode(data: tf.Tensor) -> tf.Tensor:
    # Only this decoder has the accurate transform, which Pillow uses too; only the
    # other reads every format.
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _require_all(readable: tf.Tensor, count: tf.Tensor) -> tf.Operation:
    broken = tf.sets.difference(tf.range(count)[None], readable[None]).values
    return tf.debugging.Assert(
        tf.equal(tf.size(broken), 0),
        [
            "These pictures of the batch cannot be read, counted from 0:",
            broken,
            "JPEG, PNG, GIF, BMP and WebP files are allowed.",
        ],
        summarize=16,
    )
