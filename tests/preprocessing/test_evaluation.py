"""The evaluation transform: exact pixels, every type of image, every mistake."""

import io
import logging
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bit_keras.errors import BitKerasError, ImageError, SizeError, UnknownModelError
from bit_keras.preprocessing import (
    EvalTransform,
    TrainTransform,
    eval_transform,
    load_image,
    load_labels,
)
from bit_keras.preprocessing.evaluation import image_size
from bit_keras.registry import CHECKPOINTS, Resizing

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "photos"
STUDENT = "bit_r50x1.distilled_in1k_224"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def unchanged(size):
    """A transform that neither resizes nor crops an image of `size`."""
    return EvalTransform(size, Resizing("squash", size, "bilinear", "test"))


def rescaled(pixels):
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


# Resizing and cropping


def test_range_is_exact_at_both_ends():
    grey = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    output = unchanged(32)(grey)
    assert output[0, 0].tolist() == [-1.0, -1.0, -1.0]
    assert output[7, 31].tolist() == [1.0, 1.0, 1.0]
    assert output[4, 0, 0] == pytest.approx(1 / 255, abs=1e-7)  # one float32 step at 1
    assert output.dtype == np.float32


@pytest.mark.parametrize(
    ("height", "width", "resized", "corner"),
    [
        # Corner (left, top) of the 224 crop; 58.5 and 80.5 round half to even.
        (375, 500, (341, 256), (58, 16)),
        (500, 375, (256, 341), (16, 58)),
        (501, 333, (256, 385), (16, 80)),
        (333, 501, (385, 256), (80, 16)),
        (256, 343, (343, 256), (60, 16)),
        (100, 100, (256, 256), (16, 16)),
        (1, 3, (768, 256), (272, 16)),
        (257, 256, (256, 257), (16, 16)),
    ],
)
def test_truncated_side_and_rounded_offset(height, width, resized, corner):
    pixels = photo(height, width)
    expected = Image.fromarray(pixels).resize(resized, Image.Resampling.BICUBIC)
    left, top = corner
    expected = np.asarray(expected)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(eval_transform(STUDENT)(pixels), rescaled(expected))


def test_crop_without_resizing_keeps_the_pixels():
    pixels = photo(256, 343)
    output = eval_transform(STUDENT)(pixels)
    np.testing.assert_array_equal(output, rescaled(pixels[16:240, 60:284]))


def test_squash_keeps_the_borders():
    pixels = np.zeros((64, 256, 3), np.uint8)
    pixels[:, :8], pixels[:, -8:] = RED, BLUE
    output = eval_transform("bit_r50x1.in21k_ft_cifar10")(pixels)
    assert output[64, 0].tolist() == [1.0, -1.0, -1.0]
    assert output[64, -1].tolist() == [-1.0, -1.0, 1.0]


# What the crop covers of the image


@pytest.mark.parametrize("name", [STUDENT, "bit_r50x1.in21k_ft_cifar10", "bit_tiny.cifar10"])
@pytest.mark.parametrize("size", [(500, 375), (333, 501), (301, 997), (997, 301), (1200, 257)])
def test_the_region_is_where_the_pixels_come_from(name, size):
    width, height = size
    transform = eval_transform(name)
    # A ramp along each axis tells where a pixel was; resizing keeps it, but for the borders.
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.rint(255 * (np.arange(width) + 0.5) / width)
    ramp[..., 1] = np.rint(255 * (np.arange(height) + 0.5) / height)[:, None]
    seen = (transform(ramp) + 1) / 2
    left, top, right, bottom = transform.region(width, height)
    middles = (np.arange(transform.size) + 0.5) / transform.size
    inner = slice(8, -8)
    across = (left + middles * (right - left)) / width
    down = (top + middles * (bottom - top)) / height
    # Pixels are rounded to 1/255, twice in one direction and once more at the start.
    assert np.abs(seen[40, :, 0] - across)[inner].max() < 1.6 / 255
    assert np.abs(seen[:, 40, 1] - down)[inner].max() < 1.6 / 255
    # On average, roundings vanish: less than a fifth of a pixel of the image is left.
    assert abs((seen[..., 0].mean(axis=0) - across)[inner].mean()) * width < 0.2
    assert abs((seen[..., 1].mean(axis=1) - down)[inner].mean()) * height < 0.2


def test_regions_of_known_images():
    # The 224 of 256 pixels in the middle of 500: (341 - 224) / 2 = 58.5, to even.
    left, top, right, bottom = eval_transform(STUDENT).region(500, 375)
    assert (left, right) == pytest.approx((58 * 500 / 341, 282 * 500 / 341))
    assert (top, bottom) == pytest.approx((16 * 375 / 256, 240 * 375 / 256))
    assert unchanged(32).region(320, 64) == (0.0, 0.0, 320.0, 64.0)
    with pytest.raises(ImageError, match="0x5 pixels has no pixels"):
        unchanged(32).region(0, 5)


def triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def keys_cubic(x):
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = -0.5 * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def box(x):
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def resampling_matrix(new, old, kernel):
    """Row i: the float64 weights of the old pixels in new pixel i, antialiased."""
    scale = old / new
    centers = (np.arange(new)[:, None] + 0.5) * scale
    distance = (np.arange(old) + 0.5 - centers) / max(scale, 1)
    weights = kernel(distance)
    return weights / weights.sum(axis=1, keepdims=True)


# Reduced to odd sides (41, 55), where no pixel centre falls on the edge of a box, and enlarged.
@pytest.mark.parametrize("old", [(61, 83), (20, 45)])
@pytest.mark.parametrize(
    ("interpolation", "kernel"),
    [("bilinear", triangle), ("bicubic", keys_cubic), ("area", box)],
)
def test_resizing_agrees_with_float64_matrices(interpolation, kernel, old):
    pixels = photo(*old)
    height, width = 41, 41 * old[1] // old[0]
    transform = EvalTransform(41, Resizing("short_side", 41, interpolation, "test"))
    # Two passes, width first, each stored in 8 bits.
    rows = resampling_matrix(width, old[1], kernel)
    columns = resampling_matrix(height, old[0], kernel)
    expected = np.clip(np.floor(np.einsum("ij,hjc->hic", rows, pixels) + 0.5), 0, 255)
    expected = np.clip(np.floor(np.einsum("ij,jwc->iwc", columns, expected) + 0.5), 0, 255)
    left = round((width - 41) / 2)
    difference = (transform(pixels) + 1) * 127.5 - expected[:, left : left + 41]
    # Pillow's weights are fixed-point numbers of 22 bits, so an exact tie can round the other
    # way: after the first pass, every value that differs (bilinear: 0.2 %, others: none) is a tie.
    assert np.abs(difference).max() < 1.001
    assert np.mean(np.abs(difference) > 0.5) < (1e-2 if interpolation == "bilinear" else 1e-3)


# Every type of image


def mode_cases():
    transparent = Image.new("P", (40, 32), 1)
    transparent.putpalette([*RED, *GREEN, *BLUE])
    yield "palette with alpha", encode(transparent, "PNG", transparency=bytes([0, 128, 9])), GREEN
    yield "RGB PNG", encode(Image.new("RGB", (40, 32), GREEN), "PNG"), GREEN
    yield "RGB WebP", encode(Image.new("RGB", (40, 32), GREEN), "WEBP", lossless=True), GREEN
    yield "RGBA", encode(Image.new("RGBA", (40, 32), (*BLUE, 0)), "PNG"), BLUE
    yield "grey", encode(Image.new("L", (40, 32), 77), "PNG"), (77, 77, 77)
    yield "grey JPEG", encode(Image.new("L", (40, 32), 77), "JPEG"), (77, 77, 77)
    yield (
        "grey with key colour",
        encode(Image.new("L", (40, 32), 7), "PNG", transparency=7),
        (7,) * 3,
    )
    yield "grey with alpha", encode(Image.new("LA", (40, 32), (77, 3)), "PNG"), (77, 77, 77)
    yield "1 bit", encode(Image.new("1", (40, 32), 1), "PNG"), WHITE
    yield "CMYK TIFF", encode(Image.new("CMYK", (40, 32), (0, 255, 255, 0)), "TIFF"), RED
    for value, byte in ((0, 0), (255, 0), (256, 1), (0x8000, 128), (0xABCD, 0xAB), (0xFFFF, 255)):
        deep = Image.fromarray(np.full((32, 40), value, np.uint16))
        yield f"16 bits, {value}", encode(deep, "PNG"), (byte,) * 3
        yield f"16 bits TIFF, {value}", encode(deep, "TIFF"), (byte,) * 3
        wide = b"P5 40 32 65535\n" + value.to_bytes(2, "big") * 1280
        yield f"16 bits PGM, {value}", wide, (byte,) * 3


@pytest.mark.parametrize(
    ("data", "colour"), [pytest.param(*case, id=name) for name, *case in mode_cases()]
)
def test_every_mode_becomes_rgb(data, colour):
    image = load_image(data)
    assert (image.mode, image.size) == ("RGB", (40, 32))
    assert image.getcolors() == [(1280, colour)]


def test_cmyk_jpeg():
    image = load_image(encode(Image.new("CMYK", (40, 32), (0, 255, 255, 0)), "JPEG", quality=100))
    np.testing.assert_allclose(np.asarray(image)[16, 20], RED, atol=3)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(file_format):
    frames = [Image.new("RGB", (40, 32), colour) for colour in (RED, BLUE)]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert load_image(data).getcolors() == [(1280, RED)]


# What a camera stores for an upright image (EXIF 2.32, tag Orientation): value 6, for
# example, says that the stored row 0 is the right side of the image.
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientations_give_the_same_upright_image(orientation, file_format):
    upright = photo(48, 64)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encode(stored, file_format, exif=exif, **options)
    np.testing.assert_array_equal(np.asarray(load_image(data)), upright)
    np.testing.assert_array_equal(np.asarray(load_image(Image.open(io.BytesIO(data)))), upright)


@pytest.mark.parametrize("orientation", STORED)
def test_orientations_of_jpeg(orientation):
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[:24, :32], upright[:24, 32:], upright[24:, :32] = 250, 170, 90
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encode(stored, "JPEG", exif=exif, quality=100))
    np.testing.assert_allclose(np.asarray(image), upright, atol=2)


@pytest.mark.parametrize("exif", [b"garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12\0\x03"])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_damaged_metadata_does_not_matter(exif, file_format):
    data = encode(Image.new("RGB", (40, 32), WHITE), file_format, exif=exif)
    assert load_image(data).getcolors() == [(1280, WHITE)]


@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_arrays(channels):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, *channels), np.uint8)
    output = unchanged(40)(pixels)
    colours = pixels.reshape(40, 40, -1)[:, :, :3]
    np.testing.assert_array_equal(output, np.broadcast_to(rescaled(colours), (40, 40, 3)))


def test_arrays_with_strides():
    pixels = photo(80, 80)[::2, ::-2]
    np.testing.assert_array_equal(unchanged(40)(pixels), rescaled(pixels))


def test_all_sources_of_one_image_agree(tmp_path):
    pixels = photo(300, 401)
    path = tmp_path / "an image.png"
    Image.fromarray(pixels).save(path)
    transform = eval_transform(STUDENT)
    expected = transform(pixels)
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        np.testing.assert_array_equal(transform(source), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(transform(image), expected)


def test_a_pil_image_is_left_as_it_was():
    image = Image.new("P", (40, 32))
    image.info["transparency"] = b"\0\x01"
    load_image(image).putpixel((0, 0), WHITE)
    assert (image.mode, image.getpixel((0, 0))) == ("P", 0)
    assert image.info == {"transparency": b"\0\x01"}


def test_large_photographs_are_read_without_a_warning(monkeypatch):
    data = encode(Image.new("RGB", (40, 32)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_image(data)
    assert caught == []
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match=r"too large: .*1280 pixels"):
        load_image(data)


def test_threads_leave_the_warning_filters_unchanged():
    data = encode(Image.new("RGB", (40, 32)), "JPEG")
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_image, [data] * 200))
    assert list(warnings.filters) == before


# Every model


SIZED = [checkpoint for checkpoint in CHECKPOINTS.values() if checkpoint.size]


@pytest.mark.parametrize("checkpoint", SIZED, ids=lambda checkpoint: checkpoint.name)
def test_every_sized_checkpoint(checkpoint):
    output = eval_transform(checkpoint.name)(photo(45, 64))
    assert output.shape == (checkpoint.size, checkpoint.size, 3)
    assert output.dtype == np.float32
    assert -1 <= output.min() < -0.5
    assert 0.5 < output.max() <= 1


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        (STUDENT, None, ("short_side", 256, "bicubic", 224)),
        (STUDENT, 192, ("short_side", 219, "bicubic", 192)),
        ("bit_r152x2.teacher_in1k_384", None, ("short_side", 384, "bicubic", 384)),
        ("bit_r152x2.teacher_pet_128", None, ("short_side", 160, "area", 128)),
        ("BiT-M-R50x1-ILSVRC2012", None, ("short_side", 448, "bilinear", 448)),
        ("BiT-M-R50x1-ILSVRC2012", 384, ("short_side", 384, "bilinear", 384)),
        ("BiT-M-R50x1", np.int64(160), ("short_side", 183, "bilinear", 160)),
        ("resnetv2_50.a1h_in1k", 288, ("short_side", 302, "bicubic", 288)),
        ("bit_r50x1.in21k_ft_cifar10", 160, ("squash", 160, "bilinear", 160)),
        ("bit_tiny.cifar10", None, ("squash", 72, "bilinear", 64)),
    ],
)
def test_published_transforms(name, size, expected, caplog):
    transform = eval_transform(name, size)
    resizing = transform.resizing
    assert (resizing.mode, resizing.side, resizing.interpolation, transform.size) == expected
    assert caplog.records == []


@pytest.mark.parametrize(
    ("name", "size", "side", "crop"),
    [
        ("bit_r50x1.distilled_in1k_160", None, 183, 160),
        ("BiT-S-R50x1", None, 256, 224),
        ("BiT-S-R50x1", 128, 146, 128),
        ("BiT-M-R50x1-run0-dsprites-xpos", 224, 256, 224),
    ],
)
def test_default_transform_is_logged(name, size, side, crop, caplog):
    with caplog.at_level(logging.INFO, "bit_keras"):
        transform = eval_transform(name, size)
    assert transform == EvalTransform(
        crop, Resizing("short_side", side, "bilinear", "default of this project")
    )
    assert [record.name for record in caplog.records] == ["bit_keras"]
    assert caplog.messages[0].startswith(
        "No published evaluation transform is known for bit_r50x1."
    )
    assert caplog.messages[0].endswith(f"short side {side}, bilinear, centre crop {crop}.")


def test_a_scaled_transform_says_so():
    assert eval_transform(STUDENT).resizing.source == "timm 1.0.31"
    assert eval_transform(STUDENT, 192).resizing.source == "timm 1.0.31, scaled from 224 pixels"


def test_representation():
    assert repr(eval_transform(STUDENT)) == (
        "EvalTransform(short side to 256, bicubic, centre crop 224x224, float32 RGB in [-1, 1])"
    )
    assert "squash both sides to 72, bilinear" in repr(eval_transform("bit_tiny.cifar10"))


@pytest.mark.parametrize("size", [31, 0, -224, 224.0, "224", True])
def test_impossible_sizes(size):
    with pytest.raises(SizeError, match=r"at least 32 pixels; got .*") as error:
        eval_transform(STUDENT, size)
    assert isinstance(error.value, BitKerasError)
    with pytest.raises(SizeError, match="at least 32 pixels"):
        EvalTransform(size, Resizing("squash", 32, "bilinear", "test"))


def test_a_crop_larger_than_the_resized_image():
    with pytest.raises(SizeError, match=r"crop of 64 pixels does not fit .* 32 pixels"):
        EvalTransform(64, Resizing("short_side", 32, "bilinear", "test"))


def test_size_that_no_source_states():
    with pytest.raises(SizeError, match=r"No source states .*svhn_run0; pass `size=`"):
        eval_transform("BiT-M-R50x1-run0-svhn")


def test_unknown_model():
    with pytest.raises(UnknownModelError, match="no model 'resnet'"):
        eval_transform("resnet")


# Mistakes and damage


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match=r"none\.jpg cannot be opened: No such file"):
        load_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=f"^{tmp_path} cannot be opened: Is a directory"):
        load_image(str(tmp_path))


def test_file_that_is_not_an_image(tmp_path):
    path = tmp_path / "notes.jpg"
    for content in (b"", b"Not an image."):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"notes\.jpg is not an image that Pillow can read"):
            load_image(path)
    with pytest.raises(ImageError, match="The image of 13 bytes is not an image"):
        load_image(b"Not an image.")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_file(tmp_path, file_format):
    path = tmp_path / "half.image"
    whole = encode(Image.fromarray(photo(64, 64)), file_format)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ImageError, match=r"half\.image (cannot be decoded: .*\.|is not an image.*)$"
    ):
        load_image(path)


def test_damaged_pixels():
    data = bytearray(encode(Image.fromarray(photo(64, 64)), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match=r"The image of \d+ bytes cannot be decoded"):
        load_image(bytes(data))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((8, 8, 3)), r"must be uint8.* float64, \(8, 8, 3\)"),
        (np.zeros((8, 8, 2), np.uint8), r"uint8, \(8, 8, 2\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"\(1, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), np.uint8), r"no pixels; its shape is \(0, 8, 3\)"),
        (Image.new("F", (8, 8)), "The PIL image cannot be decoded: floating-point pixels"),
        (Image.new("I", (8, 8), 65536), r"integer pixels must be in \[0, 65535\]"),
        ([[0]], "An object of type list is not an image; pass a path"),
    ],
)
def test_other_objects(source, message):
    with pytest.raises(ImageError, match=message):
        load_image(source)


def test_strip_that_would_fill_the_memory():
    with pytest.raises(ImageError, match=r"too elongated: .*1000000x1 "):
        eval_transform(STUDENT)(np.zeros((1, 1_000_000), np.uint8))


@pytest.mark.parametrize("shape", [(20_000_000, 1), (1, 20_000_000)], ids=["tall", "wide"])
def test_no_step_of_resizing_fills_the_memory(shape):
    # The square is small, and what stands between the two steps would not be.
    strip = np.zeros(shape, np.uint8)
    squash = EvalTransform(64, Resizing("squash", 72, "bilinear", "this test"))
    with pytest.raises(ImageError, match="too elongated"):
        squash(strip)
    for train in (TrainTransform(64), TrainTransform(64, crop="inception")):
        with pytest.raises(ImageError, match="too elongated"):
            train(strip, np.random.default_rng(0))


def test_the_size_is_read_from_the_header(monkeypatch):
    file = io.BytesIO()
    Image.new("RGB", (30, 20)).save(file, "PNG")
    assert image_size(file.getvalue()[:60]) == (20, 30)
    assert image_size(np.zeros((5, 7, 3), np.uint8)) == (5, 7)
    for broken in (b"", b"GIF89a"):
        with pytest.raises(ImageError):
            image_size(broken)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow refuses twice as many.
    with pytest.raises(ImageError, match="too large"):
        image_size(file.getvalue())


def test_photographs_of_phones(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = (200, 80, 40)
    heif.from_pillow(Image.fromarray(pixels)).save(tmp_path / "IMG_1", quality=100)
    image = np.asarray(load_image(tmp_path / "IMG_1"), int)
    assert image.shape == (40, 60, 3)
    # HEVC is lossy; away from the edge the colours are flat.
    assert np.abs(image[:, :25]).max() <= 4
    assert np.abs(image[:, 35:] - (200, 80, 40)).max() <= 4


# Real images, and the cost of the import


def test_demo_images_are_one_per_class():
    files = sorted((ROOT / "demo" / "images").glob("*.jpg"))
    assert [file.stem for file in files] == list(load_labels("cifar10").names)
    for file in files:
        assert load_image(file).size == (32, 32)
        assert eval_transform("bit_tiny.cifar10")(file).shape == (64, 64, 3)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the sample photographs are not distributed")
def test_photographs():
    files = sorted(PHOTOS.glob("*.JPEG"))
    assert len(files) == 64
    transform = eval_transform(STUDENT)
    for file in files:
        output = transform(file)
        assert output.shape == (224, 224, 3)
        assert output.dtype == np.float32
        assert -1 <= output.min() < output.max() <= 1
        assert output.std() > 0.1


def test_import_pays_for_no_framework():
    code = (
        "import sys, bit_keras.preprocessing\n"
        "print(sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
