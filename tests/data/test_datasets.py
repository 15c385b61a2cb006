"""Folders and arrays: the images that are found, and errors."""

import logging

import numpy as np
import pytest

from bit_keras.data import open_images
from bit_keras.data.datasets import open_data_source
from bit_keras.errors import DataError

# Folders


def test_folder_of_classes(make_folder, encoded):
    root = make_folder(
        {
            "dog/b.jpg": encoded(1),
            "dog/deep/er/a.JPG": encoded(2),
            "cat/a.png": encoded(3),
        }
    )
    images = open_images(root)
    assert open_data_source(root).splits == ()
    assert images.classes == ("cat", "dog")
    assert list(images.names) == ["cat/a.png", "dog/b.jpg", "dog/deep/er/a.JPG"]
    assert images.targets.tolist() == [0, 1, 1]
    assert images.targets.dtype == np.int64
    assert [images[index] for index in range(3)] == [encoded(3), encoded(1), encoded(2)]


def test_folder_of_splits_shares_its_classes(make_folder, encoded):
    root = make_folder(
        {
            "test/dog/a.jpg": encoded(1),
            "train/ant/a.jpg": encoded(2),
            "train/dog/a.jpg": encoded(3),
            "val/ant/a.jpg": encoded(4),
        }
    )
    assert open_data_source(str(root)).splits == ("train", "val", "test")
    images = open_images(root, "test")
    # A class that only training has does not shift the targets of the test.
    assert images.classes == ("ant", "dog")
    assert (images.targets.tolist(), list(images.names)) == ([1], ["test/dog/a.jpg"])
    assert len(open_images(root, "train")) == 2


def test_class_may_be_called_like_a_split(make_folder, encoded):
    root = make_folder({"bus/a.jpg": encoded(1), "train/a.jpg": encoded(2)})
    assert open_data_source(root).splits == ()
    assert open_images(root).classes == ("bus", "train")


def test_hidden_and_other_files_are_ignored_and_counted(make_folder, encoded, caplog):
    root = make_folder(
        {
            "cat/a.jpg": encoded(1),
            "cat/.hidden.jpg": b"",
            ".cache/dog/a.jpg": encoded(2),
            "__MACOSX/dog/a.jpg": encoded(2),
            "dog/a.jpg": encoded(3),
            "dog/notes.txt": b"text",
            "dog/b.bin": b"\0\1\2",
            "Thumbs.db": b"",
            "about.md": b"text",
        }
    )
    with caplog.at_level(logging.INFO, "bit_keras"):
        images = open_images(root)
    assert list(images.names) == ["cat/a.jpg", "dog/a.jpg"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: 2 files are skipped, such as about.md: a text.",
        f"{root}: 1 file is skipped, such as dog/b.bin: not an image that Pillow reads.",
    ]


def test_links_to_folders_are_followed(make_folder, encoded, tmp_path):
    root = make_folder({"cat/a.jpg": encoded(1)})
    whole = make_folder({"dog/a.jpg": encoded(2)}, "elsewhere")
    (root / "dog").symlink_to(whole / "dog", target_is_directory=True)
    assert open_images(root).classes == ("cat", "dog")


def test_class_names_are_any_text(make_folder, encoded):
    root = make_folder({"größe ñ/a.jpg": encoded(1), "b c/ü.jpg": encoded(2)})
    images = open_images(root)
    assert images.classes == ("b c", "größe ñ")
    assert images[1] == encoded(1)
    assert len(images.fingerprint) == 64


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ({".keep": b""}, None, "is empty; .*one folder per class"),
        (
            {"a.txt": b"", "b/c.py": b""},
            None,
            r"contains 2 files.* 0 images .*a.txt: an empty file",
        ),
        (
            {"a.jpg": b"", "cat/a.jpg": b""},
            None,
            "1 images outside of class folders, such as a.jpg",
        ),
        ({"cat/a.jpg": b""}, "train", "has no splits.*split='train'"),
        (
            {"train/cat/a.jpg": b"", "test/cat/a.jpg": b""},
            "val",
            "has the splits train, test; .*split='val'",
        ),
        (
            {"train/cat/a.jpg": b"", "test/cat/a.jpg": b""},
            None,
            "has the splits train, test; .*split=None",
        ),
    ],
)
def test_unusable_folders_are_an_error(make_folder, files, split, message):
    with pytest.raises(DataError, match=message):
        open_images(make_folder(files), split)


@pytest.mark.parametrize("find", [open_images, open_data_source])
def test_the_error_for_a_missing_path_suggests_tfds(find, tmp_path):
    with pytest.raises(DataError, match=r"no folder or archive .*pets; .* tfds:pets"):
        find(tmp_path / "pets")


def test_data_of_another_type_is_an_error():
    with pytest.raises(DataError, match=r"`data` must be .*tfds:name.* type int"):
        open_images(3)


# Arrays


def test_array_with_numbers(greys):
    pixels, labels = greys(5)
    images = open_images((pixels, labels))
    assert (images.classes, images.targets.tolist()) == (("class_0", "class_1"), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(images[3], pixels[3])
    assert images.names[3] == "image 3"
    assert open_data_source((pixels, labels)).splits == ()


def test_column_of_labels_as_in_keras_datasets(greys):
    pixels, labels = greys(4)
    assert open_images((pixels, labels[:, None])).targets.tolist() == [0, 1, 0, 1]


def test_names_for_numbers_keep_their_order(greys):
    pixels, labels = greys(3)
    assert open_images((pixels, labels, ["zebra", "ant", "bee"])).classes == ("zebra", "ant", "bee")


def test_labels_as_names(greys):
    pixels, _ = greys(3)
    images = open_images((pixels, ["b", "a", "b"]))
    assert (images.classes, images.targets.tolist()) == (("a", "b"), [1, 0, 1])
    images = open_images((pixels, ["b", "a", "b"], ["c", "b", "a"]))
    assert (images.classes, images.targets.tolist()) == (("c", "b", "a"), [1, 2, 1])


def test_images_of_different_sizes():
    pixels = [np.zeros((40, 50, 3), np.uint8), np.zeros((30, 20), np.uint8)]
    assert open_images((pixels, [0, 1]))[1].shape == (30, 20)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.zeros((3, 8, 8, 3), np.uint8), [0, 1]), "3 images, 2 labels"),
        ((np.zeros((2, 8, 8, 3), np.uint8), [0, -1]), "at least 0.* -1"),
        ((np.zeros((2, 8, 8, 3), np.uint8), [0.0, 1.0]), r"`labels`.*dtype=float64, shape=\(2,\)"),
        (
            (np.zeros((2, 8, 8, 3), np.uint8), np.eye(2, dtype=int)),
            r"`labels`.*dtype=int64, shape=\(2, 2\)",
        ),
        ((np.zeros((2, 8, 8, 3), np.uint8), [0, 2], ["a", "b"]), "class names, 2.* 2$"),
        ((np.zeros((2, 8, 8, 3), np.uint8), ["a", "c"], ["a", "b"]), "2 class names.* 'c'"),
        ((np.zeros((2, 8, 8, 3)), [0, 1]), r"image 0 with dtype=float64, shape=\(8, 8, 3\)"),
        (([np.zeros((8, 8, 3), np.uint8), "a.jpg"], [0, 1]), "image 1 with dtype=str"),
        (
            (np.zeros((2, 3, 8, 8), np.uint8), [0, 1]),
            r"image 0 with dtype=uint8, shape=\(3, 8, 8\)",
        ),
        ((np.zeros((0, 8, 8, 3), np.uint8), []), "`pixels`.*empty"),
        ((np.zeros((2, 8, 8, 3), np.uint8),), "a tuple of length 1"),
    ],
)
def test_unusable_arrays_are_an_error(data, message):
    with pytest.raises(DataError, match=message):
        open_images(data)


def test_arrays_have_no_splits(greys):
    with pytest.raises(DataError, match=r"has no splits.*split='train'"):
        open_images(greys(2), "train")
