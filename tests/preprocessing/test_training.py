"""The training transform: which part of an image it shows, and how often mirrored."""

import io

import numpy as np
import pytest
from PIL import Image

from bit_keras.errors import BitKerasError, ImageError, SizeError
from bit_keras.preprocessing import TrainTransform


def coordinates(height, width):
    """An image whose red is the column and whose green is the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return pixels


def views(transform, image, count):
    generator = np.random.default_rng(0)
    return [transform(image, generator) for _ in range(count)]


def test_random_crop_is_an_untouched_part_of_the_squashed_image():
    photo = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
    squashed = np.asarray(Image.fromarray(photo).resize((40, 40), Image.Resampling.BILINEAR))
    for view in views(TrainTransform(32, precrop=40, flip=False), photo, 5):
        assert any(
            np.array_equal(view, squashed[top : top + 32, left : left + 32])
            for top in range(9)
            for left in range(9)
        )


def test_random_crop_reaches_every_offset():
    cuts = views(TrainTransform(32, precrop=36, flip=False), coordinates(36, 36), 1000)
    offsets = {(int(view[0, 0, 1]), int(view[0, 0, 0])) for view in cuts}
    # 25 offsets: one is missed in 1,000 samples with a chance of 25 * 0.96^1000 = 5e-17.
    assert offsets == {(top, left) for top in range(5) for left in range(5)}


def test_mirrors_about_every_second_image():
    cuts = views(TrainTransform(32, precrop=32), coordinates(32, 32), 1000)
    mirrored = sum(int(view[0, 0, 0]) == 31 for view in cuts)
    # Six standard deviations of a fair coin, sqrt(1000) / 2 = 16; the samples are seeded.
    assert abs(mirrored - 500) < 95
    assert {view.tobytes() for view in cuts} == {
        coordinates(32, 32).tobytes(),
        coordinates(32, 32)[:, ::-1].tobytes(),
    }


def test_without_flip_nothing_is_mirrored():
    for transform in (TrainTransform(32, flip=False), TrainTransform(32, "inception", flip=False)):
        for view in views(transform, coordinates(64, 64), 50):
            assert view[0, 0, 0] < view[0, -1, 0]


def test_precrop_is_the_hyperrule_multiple_by_default():
    assert TrainTransform(128).precrop == 160


def test_inception_boxes_stay_in_their_bounds():
    # Red and green at the middle of opposite edges tell the box, up to the half pixel that
    # resizing averages over on each side.
    transform = TrainTransform(32, "inception", flip=False)
    areas = []
    for view in views(transform, coordinates(200, 200), 400):
        width = (float(view[16, -1, 0]) - float(view[16, 0, 0])) * 32 / 31
        height = (float(view[-1, 16, 1]) - float(view[0, 16, 1])) * 32 / 31
        # A box of 5 % has 45 pixels a side: two pixels of error are 5 % of a side.
        assert 0.70 < width / height < 1.43
        areas.append(width * height / 200**2)
    assert min(areas) < 0.1
    assert max(areas) > 0.85
    # Uniform from 0.05 up, less the large ones that do not fit with their aspect.
    assert 0.40 < np.mean(areas) < 0.55


def test_inception_takes_the_whole_image_where_no_box_fits():
    strip = np.random.default_rng(0).integers(0, 256, (1, 2000, 3), np.uint8)
    whole = np.asarray(Image.fromarray(strip).resize((32, 32), Image.Resampling.BILINEAR))
    (view,) = views(TrainTransform(32, "inception", flip=False), strip, 1)
    np.testing.assert_array_equal(view, whole)


@pytest.mark.parametrize("crop", ["random", "inception"])
def test_equal_generators_give_equal_views(crop):
    photo = np.random.default_rng(1).integers(0, 256, (70, 90, 3), np.uint8)
    transform = TrainTransform(48, crop)
    first = [transform(photo, np.random.default_rng(seed)) for seed in range(5)]
    again = [transform(photo, np.random.default_rng(seed)) for seed in range(5)]
    np.testing.assert_array_equal(first, again)
    assert len({view.tobytes() for view in first}) == 5


def test_view_is_uint8_and_its_owner_s():
    view = TrainTransform(48)(np.zeros((70, 90), np.uint8), np.random.default_rng(0))
    assert (view.shape, view.dtype) == ((48, 48, 3), np.uint8)
    view += 1


def test_decodes_like_the_evaluation():
    # Red above blue, stored lying on its side: orientation 6.
    exif = Image.Exif()
    exif[0x0112] = 6
    image = np.zeros((32, 32, 3), np.uint8)
    image[:16, :, 0] = image[16:, :, 2] = 255
    lying = Image.fromarray(np.rot90(image).copy())
    buffer = io.BytesIO()
    lying.save(buffer, "PNG", exif=exif)
    transform = TrainTransform(32, precrop=32, flip=False)
    view = transform(buffer.getvalue(), np.random.default_rng(0))
    np.testing.assert_array_equal(view, image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((16,), "at least 32 pixels.*16"),
        ((True,), "at least 32 pixels.*True"),
        ((64.0,), "at least 32 pixels.*64.0"),
        ((64, "random", 48), "crop of 64 pixels needs a precrop .*48"),
        ((64, "random", 80.5), "80.5"),
        ((64, "inception", 80), "leave `precrop` away"),
    ],
)
def test_impossible_sizes(arguments, message):
    with pytest.raises(SizeError, match=message):
        TrainTransform(*arguments)


def test_unknown_crop():
    with pytest.raises(BitKerasError, match="'random' or 'inception'; got 'centre'"):
        TrainTransform(64, "centre")


def test_unreadable_image():
    with pytest.raises(ImageError, match=r"no\.jpg cannot be opened"):
        TrainTransform(64)("no.jpg", np.random.default_rng(0))
