"""Parts of the data, what identifies it, and a part held out for validation."""

import shutil

import numpy as np
import pytest

from bit_keras.data import open_images
from bit_keras.data.images import hold_out
from bit_keras.errors import DataError


def with_labels(labels):
    return open_images((np.zeros((len(labels), 8, 8, 3), np.uint8), labels))


# Parts


def test_part_keeps_order_classes_and_names(greys):
    images = open_images(greys(6, classes=3))
    part = images.select([5, 0, 4]).select([2, 0])
    assert (len(part), part.classes) == (2, images.classes)
    assert part.targets.tolist() == [1, 2]
    assert list(part.names) == ["image 4", "image 5"]
    assert [int(part[index].max()) for index in range(2)] == [4, 5]


def test_part_shares_what_could_not_be_read(greys):
    images = open_images(greys(4))
    images.select([2, 3]).note_unreadable(1, "truncated")
    assert images.unreadable == {"image 3": "truncated"}


def test_unreadable_image_is_logged_once(greys, caplog):
    images = open_images(greys(4))
    for _ in range(3):
        images.note_unreadable(2, "truncated")
    assert [record.getMessage() for record in caplog.records] == ["image 2 is skipped: truncated"]


# The fingerprint


def test_fingerprint_is_that_of_the_data_wherever_it_is(make_folder, make_tar, encoded, tmp_path):
    files = {"cat/a.jpg": encoded(1), "dog/b.jpg": encoded(2)}
    here = open_images(make_folder(files)).fingerprint
    shutil.move(tmp_path / "images", tmp_path / "moved")
    assert open_images(tmp_path / "moved").fingerprint == here
    assert open_images(make_tar(files)).fingerprint == here
    assert len(here) == 64


@pytest.mark.parametrize(
    "files",
    [
        {"cat/a.jpg": 1, "dog/c.jpg": 2},
        {"cat/a.jpg": 1, "cat/b.jpg": 2},
        {"cat/a.jpg": 1, "cow/b.jpg": 2},
        {"cat/a.jpg": 1, "dog/b.jpg": 2, "dog/c.jpg": 2},
    ],
    ids=["name", "class", "class name", "one more"],
)
def test_fingerprint_of_other_data_differs(make_folder, encoded, files):
    def fingerprint(of, name):
        return open_images(
            make_folder({path: encoded(value) for path, value in of.items()}, name)
        ).fingerprint

    assert fingerprint(files, "other") != fingerprint({"cat/a.jpg": 1, "dog/b.jpg": 2}, "one")


def test_fingerprint_sees_another_size(make_folder, encoded):
    first = open_images(make_folder({"cat/a.jpg": encoded(1)}, "one")).fingerprint
    longer = {"cat/a.jpg": encoded(1) + b"\0"}
    assert open_images(make_folder(longer, "other")).fingerprint != first


def test_fingerprint_of_arrays_sees_pixels_and_parts(greys):
    pixels, labels = greys(4)
    images = open_images((pixels, labels))
    assert open_images((pixels.copy(), labels)).fingerprint == images.fingerprint
    assert open_images((pixels + 1, labels)).fingerprint != images.fingerprint
    assert images.select([0, 1]).fingerprint != images.select([0, 3]).fingerprint


# Holding out


def test_every_class_gives_its_share():
    images = with_labels([0] * 50 + [1] * 20 + [2] * 10)
    train, validation = hold_out(images, 0.1, seed=0)
    assert np.bincount(validation.targets).tolist() == [5, 2, 1]
    assert np.bincount(train.targets).tolist() == [45, 18, 9]
    assert not set(train.names) & set(validation.names)
    assert set(train.names) | set(validation.names) == set(images.names)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_every_class_has_an_image_in_both_parts(fraction):
    train, validation = hold_out(with_labels([0] * 9 + [1] * 2), fraction, seed=0)
    assert set(train.targets) == set(validation.targets) == {0, 1}


def test_a_class_without_images_is_kept(greys):
    pixels, labels = greys(4)
    train, _ = hold_out(open_images((pixels, labels, ["a", "b", "none"])), 0.5, seed=0)
    assert train.classes == ("a", "b", "none")


def test_the_split_depends_only_on_the_seed():
    images = with_labels([0, 1] * 20)
    names = [tuple(hold_out(images, 0.25, seed)[1].names) for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_the_fraction_must_be_between_0_and_1(fraction):
    with pytest.raises(DataError, match=rf"between 0 and 1\. Received: fraction={fraction}"):
        hold_out(with_labels([0, 0, 1, 1]), fraction, seed=0)


def test_class_of_one_image_is_learnt_and_not_measured():
    train, validation = hold_out(with_labels([0, 0, 1]), 0.5, seed=0)
    assert (len(train), validation.targets.tolist()) == (2, [0])
    assert set(train.targets) == {0, 1}


def test_nothing_can_be_held_out_of_one_image_per_class():
    with pytest.raises(DataError, match=r"2 images of 2 classes.*--validation 0"):
        hold_out(with_labels([0, 1]), 0.5, seed=0)


# Classes


def test_counts_are_those_of_the_classes(greys):
    pixels, _ = greys(4)
    images = open_images((pixels, ["b", "a", "b", "b"], ["a", "b", "none"]))
    assert images.counts() == {"a": 1, "b": 3, "none": 0}
    assert images.describe() == "4 images of 2 classes: a (1), b (3)"
    assert images.select([1]).describe() == "1 image of 1 class: a (1)"


def test_description_of_many_classes_is_bounded():
    images = with_labels([*range(1000), 999])
    assert "1,001 images of 1,000 classes: class_0 (1), class_1 (1)" in images.describe()
    assert "and 980 more with 1 to 2 images each" in images.describe()
    assert len(images.describe()) < 500


def test_dropped_classes_leave_the_others_in_order():
    images = with_labels(["a", "b", "c", "a", "c"]).drop_classes(["b"])
    assert images.classes == ("a", "c")
    assert images.targets.tolist() == [0, 1, 0, 1]
    assert list(images.names) == ["image 0", "image 2", "image 3", "image 4"]
