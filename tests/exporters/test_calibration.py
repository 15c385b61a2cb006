"""Images for a quantiser: from anywhere, seeded, and without those that cannot be read."""

import shutil

import numpy as np
import pytest

from bit_keras.errors import DataError
from bit_keras.exporters.calibration import calibration_images
from bit_keras.preprocessing import eval_transform
from tests.cifar10 import CLASSES, SAMPLES

TRANSFORM = eval_transform("bit_tiny.cifar10")


@pytest.fixture
def classes(tmp_path):
    """Three class folders below two splits."""
    for split in ("test", "train"):
        for name in CLASSES[:3]:
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            shutil.copy(SAMPLES / f"{name}.jpg", folder / "0.jpg")
    (tmp_path / "data" / "train" / CLASSES[0] / "1.jpg").write_bytes(
        (SAMPLES / f"{CLASSES[5]}.jpg").read_bytes()
    )
    return tmp_path / "data"


def test_a_folder_needs_no_classes():
    images = calibration_images(SAMPLES, TRANSFORM, count=4)
    assert images.shape == (4, 64, 64, 3)
    assert images.dtype == np.float32
    every = [TRANSFORM(path) for path in sorted(SAMPLES.glob("*.jpg"))]
    assert all(any(np.array_equal(image, one) for one in every) for image in images)


def test_the_seed_chooses_the_images():
    first, again, other = (
        calibration_images(SAMPLES, TRANSFORM, count=4, seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_trains_calibrates_unless_another_split_is_named(classes):
    assert len(calibration_images(classes, TRANSFORM)) == 4
    assert len(calibration_images(classes, TRANSFORM, split="test")) == 3


def test_a_image_that_cannot_be_read_gives_way_to_another(classes, caplog):
    broken = classes / "train" / CLASSES[1] / "0.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    done = []
    images = calibration_images(classes, TRANSFORM, advance=done.append)
    assert len(images) == len(done) == 3
    assert "0.jpg is skipped" in caplog.text


def test_there_must_be_an_image(classes, tmp_path):
    for path in classes.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"calibrated with images, and none of the 4 in .* read"):
        calibration_images(classes, TRANSFORM)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        calibration_images(tmp_path / "empty", TRANSFORM)
    with pytest.raises(DataError, match="There is no folder or archive"):
        calibration_images(tmp_path / "nowhere", TRANSFORM)
    with pytest.raises(DataError, match="At least one image"):
        calibration_images(SAMPLES, TRANSFORM, count=0)
