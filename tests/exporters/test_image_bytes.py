"""Encoded images inside the graph: which are taken, and what a broken one does."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.members import located
from bit_keras.errors import ImageError
from bit_keras.exporters.image_bytes import decode_images
from bit_keras.preprocessing import EvalTransform
from bit_keras.registry import Resizing
from tests.cli.running import succeeds
from tests.exporters.encodings import ENCODINGS, photo, saved
from tests.photos import photo_files

TRANSFORM = EvalTransform(32, Resizing("short_side", 37, "bicubic", "this test"))

#: One step of 8 bits is 2 / 255; equal pixels differ by the rounding of float32.
SAME = 1e-6


@pytest.fixture(scope="module")
def decode():
    spec = tf.TensorSpec([None], tf.string)
    return tf.function(
        lambda data: decode_images(data, TRANSFORM), input_signature=[spec], autograph=False
    )


#: What is refused. Everything else must be read, and to Pillow's pixels.
REFUSED = {
    "bmp of 16 bits",
    "bmp of 1 bit",
    "bmp of 4 bits",
    "bmp of run lengths",
    "bmp with a header of OS/2",
    "bmp with masks",
    "gif with a small frame",
    "webp animated",
    *("tiff", "ppm", "ico", "tga", "jpeg 2000", "avif"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_encoding_gives_what_pillow_gives_or_is_refused(decode, name):
    data = ENCODINGS[name]
    if name in REFUSED:
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"counted from 0:\] \[0\]"):
            decode([data])
    else:
        (image,) = decode([data]).numpy()
        assert np.abs(image - TRANSFORM(data)).max() < SAME


def test_the_encodings_are_sixty_and_more():
    assert len(ENCODINGS) >= 60
    assert set(ENCODINGS) >= REFUSED


#: How each format states its size: where the test writes another one, and in which form.
SIZES = {
    "png": (16, ">II"),
    "bmp of 24 bits": (18, "<II"),
    "gif": (6, "<HH"),
    "webp": (26, "<HH"),
    "jpeg": (None, ">HH"),
}


@pytest.mark.parametrize("name", SIZES)
def test_an_image_that_is_too_large_is_refused_by_its_header(decode, name):
    data, (start, form) = ENCODINGS[name], SIZES[name]
    if start is None:  # Behind the marker of the frame, its length and its precision.
        start = data.index(b"\xff\xc0") + 5
    side = 16_000 if name == "webp" else 40_000
    large = data[:start] + struct.pack(form, side, side) + data[start + struct.calcsize(form) :]
    if name == "gif":  # The frame as well.
        frame = large.index(b",", 13 + 3 * 64)
        large = large[: frame + 5] + struct.pack(form, side, side) + large[frame + 9 :]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"25000000 pixels:\] \[1\]"):
        decode([data, large])


def test_a_strip_is_refused_by_what_it_is_between_the_steps_of_resizing(decode):
    strip = saved(Image.new("L", (1, 1_000_000)), "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"25000000 pixels:\] \[0\]"):
        decode([strip])


@pytest.mark.slow
def test_the_limit_is_the_callers(decode):
    spec = tf.TensorSpec([None], tf.string)
    data = saved(Image.new("RGB", (100, 80)), "PNG")
    for limit, readable in ((8_000, True), (7_999, False)):
        limited = tf.function(
            lambda data, limit=limit: decode_images(data, TRANSFORM, limit),
            input_signature=[spec],
            autograph=False,
        )
        if readable:
            assert limited([data]).shape == (1, 32, 32, 3)
        else:
            with pytest.raises(tf.errors.InvalidArgumentError, match=r"7999 pixels:\] \[0\]"):
                limited([data])


@pytest.mark.long
@pytest.mark.parametrize("target", [("serving",), ("hub", "--folded")])
def test_the_limit_travels_in_the_artifact(tmp_path, target):
    out = tmp_path / "out"
    options = ("--max-pixels", 32 * 32, "--out", out)
    succeeds("export", "bit_tiny.cifar10", "--to", *target, *options)
    artifact = located(out)
    assert Artifact(artifact).metadata.max_pixels == 32 * 32
    image_bytes = tf.saved_model.load(str(artifact)).signatures["image_bytes"]
    fitting, large = (saved(Image.new("RGB", (32, height)), "PNG") for height in (32, 33))
    assert image_bytes(image_bytes=tf.constant([fitting]))["scores"].shape == (1, 5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"1024 pixels:\] \[0\]"):
        image_bytes(image_bytes=tf.constant([large]))


@pytest.mark.long
@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp with a palette", "webp with alpha"])
def test_damaged_images_are_refused_or_read_as_pillow_reads_them(decode, name):
    generator = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(ENCODINGS[name])
        for place in generator.integers(0, min(len(data), 200), 2):
            data[place] = generator.integers(256)
        try:
            (image,) = decode([bytes(data)]).numpy()
        except tf.errors.InvalidArgumentError:
            continue
        try:
            expected = TRANSFORM(bytes(data))
        except ImageError:  # What one decoder mends, another refuses.
            continue
        assert np.abs(image - expected).max() < SAME


def test_a_batch_keeps_its_order_whatever_the_sizes(decode):
    data = [path.read_bytes() for path in photo_files()]
    images = decode(data).numpy()
    assert images.dtype == np.float32
    for image, file in zip(images, data, strict=True):
        assert np.abs(image - TRANSFORM(file)).max() < SAME


def test_exif_does_not_turn_the_image(decode):
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, plain = saved(photo(), "PNG", exif=exif), saved(photo(), "PNG")
    assert np.array_equal(*decode([turned, plain]).numpy())


def test_an_empty_batch_is_decoded_to_an_empty_batch(decode):
    assert decode(tf.constant([], tf.string)).shape == (0, 32, 32, 3)


BROKEN = {
    "empty": b"",
    "text": b"no image at all",
    "a cut JPEG": saved(photo(), "JPEG")[:500],
    "a cut PNG": saved(photo(), "PNG")[:500],
    "TIFF": saved(photo(), "TIFF"),
    "base64 that nobody decoded": b"/9j/4AAQSkZJRgABAQAAAQABAAD",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_images_are_named_by_their_place(decode, broken):
    good = saved(photo(), "PNG")
    with pytest.raises(
        tf.errors.InvalidArgumentError,
        match=r"counted from 0:\] \[1 3\] \[.*\] \[JPEG, PNG, GIF, BMP and WebP",
    ):
        decode([good, BROKEN[broken], good, BROKEN[broken]])
    # What comes after is not disturbed.
    assert decode([good]).shape == (1, 32, 32, 3)
