"""Encoded pictures inside the graph: which are taken, and what a broken one does."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bit_keras.export.image_bytes import decode_images
from bit_keras.preprocessing import EvalTransform
from bit_keras.registry import Resizing
from tests.cifar10 import SAMPLES
from tests.pictures import picture_files

TRANSFORM = EvalTransform(32, Resizing("short_side", 37, "bicubic", "this test"))

#: One step of 8 bits is 2 / 255; equal pixels differ by the rounding of float32.
SAME = 1e-6


@pytest.fixture(scope="module")
def decode():
    spec = tf.TensorSpec([None], tf.string)
    return tf.function(
        lambda data: decode_images(data, TRANSFORM), input_signature=[spec], autograph=False
    )


def picture():
    """A photograph-like picture, 70 x 50."""
    return Image.open(SAMPLES / "cat.jpg").convert("RGB").resize((70, 50), Image.Resampling.BICUBIC)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def every_format():
    rgb = picture()
    alpha = rgb.copy()
    alpha.putalpha(90)
    yield "jpeg", encoded(rgb, "JPEG")
    yield "jpeg without subsampling", encoded(rgb, "JPEG", subsampling=0, quality=95)
    yield "progressive jpeg", encoded(rgb, "JPEG", progressive=True)
    yield "grey jpeg", encoded(rgb.convert("L"), "JPEG")
    yield "png", encoded(rgb, "PNG")
    yield "grey png", encoded(rgb.convert("L"), "PNG")
    yield "png with alpha", encoded(alpha, "PNG")
    yield "png with a palette", encoded(rgb.quantize(16), "PNG")
    yield (
        "16-bit png",
        encoded(Image.fromarray(np.arange(3500, dtype=np.uint16).reshape(50, 70) * 18), "PNG"),
    )
    yield "gif", encoded(rgb.quantize(64), "GIF")
    yield (
        "animated gif",
        encoded(rgb, "GIF", save_all=True, append_images=[Image.new("RGB", rgb.size)]),
    )
    yield "bmp", encoded(rgb, "BMP")
    yield "webp", encoded(rgb, "WEBP", lossless=True)


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in every_format()])
def test_formats_give_what_the_transform_gives(decode, data):
    (image,) = decode([data]).numpy()
    assert np.abs(image - TRANSFORM(data)).max() < SAME


def test_a_batch_keeps_its_order_whatever_the_sizes(decode):
    data = [path.read_bytes() for path in picture_files()]
    images = decode(data).numpy()
    assert images.dtype == np.float32
    for image, file in zip(images, data, strict=True):
        assert np.abs(image - TRANSFORM(file)).max() < SAME


def test_exif_does_not_turn_the_picture(decode):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = encoded(picture(), "PNG", exif=exif), encoded(picture(), "PNG")
    assert np.array_equal(*decode([turned, plain]).numpy())


def test_no_pictures_give_no_images(decode):
    assert decode(tf.constant([], tf.string)).shape == (0, 32, 32, 3)


BROKEN = {
    "empty": b"",
    "text": b"no picture at all",
    "a cut JPEG": encoded(picture(), "JPEG")[:500],
    "a cut PNG": encoded(picture(), "PNG")[:500],
    "TIFF": encoded(picture(), "TIFF"),
    "base64 that nobody decoded": b"/9j/4AAQSkZJRgABAQAAAQABAAD",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_pictures_are_named_by_their_place(decode, kind):
    good = encoded(picture(), "PNG")
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"cannot be read, counted from 0:\] \[1 3\] \[JPEG, PNG, GIF, BMP and WebP",
    ):
        decode([good, BROKEN[kind], good, BROKEN[kind]])
    # What comes after is not disturbed.
    assert decode([good]).shape == (1, 32, 32, 3)
