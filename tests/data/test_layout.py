"""Splits and classes of people's folders: found, or refused in one sentence."""

import logging
import unicodedata

import pytest

from bit_keras.data import open_images, recognition
from bit_keras.data.datasets import open_data_source
from bit_keras.data.splits import role_of
from bit_keras.errors import DataError

CAFE = "café"
DECOMPOSED = unicodedata.normalize("NFD", CAFE)


@pytest.fixture(params=["folder", "tar"])
def make(request, make_folder, make_tar, encoded):
    """A function that makes a folder or an archive with an image at each of some paths."""

    def make(*paths):
        files = {path: encoded(value) for value, path in enumerate(paths)}
        return make_folder(files) if request.param == "folder" else make_tar(files)

    return make


def tree(*tops, classes=("cat", "dog")):
    return [f"{top}/{name}/a.jpg" for top in tops for name in classes]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, "train") for name in ("train", "Training", "TRN", "train_set", "train2017")),
        *((name, "validation") for name in ("val", "Valid", "VALIDATION", "dev", "val-images")),
        *((name, "test") for name in ("test", "Testing", "eval", "test data", "Test_Split")),
        *((name, None) for name in ("trains", "bullet_train", "cat", "", "value", "dataset")),
    ],
)
def test_usual_spellings(name, role):
    assert role_of(name) == role


@pytest.mark.parametrize(
    "splits", [("Train", "Val", "Test"), ("training", "dev", "testing"), ("TRAIN", "VALID", "Eval")]
)
def test_splits_in_any_spelling(make, splits):
    data = make(*tree(*reversed(splits)))
    source = open_data_source(data)
    assert source.splits == splits
    assert [source.split_for(role) for role in ("train", "validation", "test")] == [*splits]
    assert open_images(data, "validation").classes == ("cat", "dog")
    assert open_images(data, "test").names[0] == f"{splits[2]}/cat/a.jpg"


def test_unlabelled_images_of_a_split_are_skipped(make, caplog):
    data = make(*tree("train"), "test/1.jpg", "test/2.jpg")
    with caplog.at_level(logging.INFO, "bit_keras"):
        assert open_data_source(data).splits == ("train",)
    assert "2 files are skipped, such as test/1.jpg: of a split without class folders" in (
        caplog.text
    )


def test_folder_next_to_splits_is_skipped(make, caplog):
    data = make(*tree("Training", "Testing"), "docs/figure.png", "docs/more/figure.png")
    assert open_data_source(data).splits == ("Training", "Testing")
    assert open_images(data, "Training").classes == ("cat", "dog")
    assert "2 files are skipped, such as docs/figure.png" in caplog.text


def test_classes_named_like_splits(make):
    assert open_images(make("bus/a.jpg", "train/a.jpg")).classes == ("bus", "train")


@pytest.mark.parametrize(
    ("paths", "facts"),
    [
        (tree("north", "south"), ("north", "south", "cat", "train, val and test")),
        (tree("train", "test", "extra"), ("train and test", "extra", "rename")),
        ([*tree("train"), "docs/a.jpg"], ("train", "docs", "split or a class", "move")),
        (["train/a.jpg", "test/b.jpg"], ("train and test", "<split>/<class>/<image>")),
        ([*tree("train", "test"), "train/a.jpg"], ("1 images outside", "train/a.jpg")),
        ([*tree("train"), "val/Cat/a.jpg"], ("Cat and cat", "case")),
    ],
)
def test_ambiguous_folders_are_refused(make, paths, facts):
    with pytest.raises(DataError) as error:
        open_data_source(make(*paths))
    for fact in facts:
        assert fact in str(error.value)


def test_splits_in_a_folder_of_their_own(make_folder, make_tar, encoded):
    files = {f"pets/{path}": encoded(1) for path in tree("train", "test")}
    with pytest.raises(DataError, match=r"pass .*/pets"):
        open_data_source(make_folder(files))
    # Packing a folder makes such archives.
    assert open_data_source(make_tar(files)).splits == ("train", "test")


def test_several_splits_of_one_use(make):
    source = open_data_source(make(*tree("train", "val", "dev")))
    with pytest.raises(DataError, match="2 splits for validation: dev, val"):
        source.split_for("validation")
    assert len(source.images("dev")) == 2
    with pytest.raises(DataError, match=r"has the splits train, dev, val; .*split='valid'"):
        source.images("valid")


def test_spellings_of_unicode_are_one_class(make):
    data = make(
        f"train/{CAFE}/a.jpg", "train/bar/a.jpg", f"val/{DECOMPOSED}/a.jpg", "val/bar/b.jpg"
    )
    train, val = open_images(data, "train"), open_images(data, "val")
    assert len(train.classes) == 2
    assert train.classes == val.classes
    assert train.targets.tolist() == val.targets.tolist()


def test_letters_in_both_cases_are_classes(make):
    assert open_images(make("A/1.jpg", "a/1.jpg")).classes == ("A", "a")


def test_name_that_is_not_utf8(make_tar, encoded):
    path = make_tar({"caf\udce9/a.jpg": encoded(1), "bar/a.jpg": encoded(2)})
    with pytest.raises(DataError, match=r"class folder caf\\xe9 .* is not UTF-8; rename it"):
        open_images(path)
    path = make_tar({"cat/caf\udce9.jpg": encoded(1), "dog/a.jpg": encoded(2)})
    images = open_images(path)
    assert images.names[0] == r"cat/caf\xe9.jpg"
    assert images[0] == encoded(1)


# Classes that would disappear

HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 20


def test_images_are_known_by_their_content(make_folder, encoded):
    root = make_folder(
        {"cat/IMG_1": encoded(1), "cat/2.photo": encoded(2), "dog/a.jpg": encoded(3)}
    )
    assert list(open_images(root).names) == ["cat/2.photo", "cat/IMG_1", "dog/a.jpg"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"dog/a.heic": HEIC, "dog/b.HEIC": HEIC}, "HEIC, which needs pip install"),
        ({"dog/a": b"\0\1", "dog/b": b"\0\2"}, "not an image that Pillow reads"),
        ({"dog/a.jpg": b"<html>", "dog/b.jpg": b""}, "not an image that Pillow can read"),
        ({"dog/a.jpg": HEIC, "dog/b.jpg": HEIC}, "HEIC needs pip install"),
        ({"dog/a.svg": b"<svg>", "dog/deep/b.mp4": b"\0"}, "not an image that Pillow reads"),
    ],
)
def test_class_without_an_image_stops(make_folder, encoded, files, reason, caplog, monkeypatch):
    # Without the decoder, also where it is installed.
    formats = tuple(name for name in recognition._formats() if name != "HEIF")
    monkeypatch.setattr(recognition, "_formats", lambda: formats)
    monkeypatch.setattr(recognition, "_extensions", recognition._extensions.__wrapped__)
    monkeypatch.setattr("bit_keras.preprocessing.evaluation.register_heif", lambda: False)
    root = make_folder({"cat/a.jpg": encoded(1), "owl/a.jpg": encoded(2), **files})
    with pytest.raises(DataError, match=r"'dog' \(2 files, such as dog/") as error:
        open_images(root)
    assert reason in str(error.value)
    assert "--skip-unreadable-classes" in str(error.value)
    images = open_images(root, skip_unreadable_classes=True)
    assert set(images.targets) == {images.classes.index(name) for name in ("cat", "owl")}
    assert "'dog' (2 files" in caplog.text


def test_folder_of_texts_is_not_a_class(make_folder, encoded):
    files = {"cat/a.jpg": encoded(1), "dog/a.jpg": encoded(2), "labels/a.xml": b"<a/>"}
    assert open_images(make_folder(files)).classes == ("cat", "dog")


def test_empty_folder_of_a_class_stops(make_folder, encoded):
    root = make_folder({"cat/a.jpg": encoded(1), "owl/a.jpg": encoded(2)})
    (root / "dog").mkdir()
    with pytest.raises(DataError, match=r"'dog' .* an empty folder"):
        open_images(root)


def test_many_unreadable_classes_give_a_short_message(make_folder, encoded):
    files = {f"class {number:03d}/a.jpg": b"" for number in range(300)}
    with pytest.raises(DataError, match=r"300 classes .* and 295 more") as error:
        open_images(make_folder({"cat/a.jpg": encoded(1), **files}))
    assert len(str(error.value)) < 2000
