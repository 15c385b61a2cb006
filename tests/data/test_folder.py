"""Other entries of folders: links, pipes, sockets and devices."""

import os
import socket

import pytest

from bit_keras.data import open_images
from bit_keras.errors import DataError


@pytest.fixture
def pets(make_folder, encoded):
    return make_folder({"cat/a.jpg": encoded(1), "cat/b.jpg": encoded(2), "dog/a.jpg": encoded(3)})


NAMES = ["cat/a.jpg", "cat/b.jpg", "dog/a.jpg"]


@pytest.mark.parametrize("target", ["..", "../..", ".", "/", "../cat"])
def test_cyclic_links_are_skipped(pets, target, caplog):
    (pets / "cat" / "again").symlink_to(target)
    assert list(open_images(pets).names) == NAMES
    assert "cat/again/: a link to a parent folder" in caplog.text


def test_two_cyclic_links_end(pets, encoded):
    (pets / "cat" / "up").symlink_to("..")
    (pets / "dog" / "up").symlink_to("..")
    assert list(open_images(pets).names) == NAMES


def test_classes_that_link_to_each_other_are_refused(pets):
    (pets / "cat" / "other").symlink_to("../dog")
    (pets / "dog" / "other").symlink_to("../cat")
    with pytest.raises(DataError, match="are one file, by a link, in the folders of two classes"):
        open_images(pets)


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_one_file_counts_once_and_has_one_label(pets, link, caplog):
    link(pets / "cat" / "a.jpg", pets / "cat" / "0.jpg")
    images = open_images(pets)
    assert len(images) == 3
    assert images.counts() == {"cat": 2, "dog": 1}
    assert "another path of a file" in caplog.text
    link(pets / "cat" / "b.jpg", pets / "dog" / "b.jpg")
    with pytest.raises(DataError, match=r"cat/b.jpg and dog/b.jpg are one file") as error:
        open_images(pets)
    assert "two classes" in str(error.value)


def test_images_of_a_subset_are_links(pets, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "subset" / name).mkdir(parents=True)
        (tmp_path / "subset" / name / "x.jpg").symlink_to(pets / name / "a.jpg")
    images = open_images(tmp_path / "subset")
    assert list(images.names) == ["cat/x.jpg", "dog/x.jpg"]
    assert images[1] == (pets / "dog" / "a.jpg").read_bytes()


def test_one_file_may_be_in_two_splits(make_folder, encoded):
    root = make_folder({f"train/{name}/a.jpg": encoded(1) for name in ("cat", "dog")})
    (root / "val").symlink_to("train")
    assert len(open_images(root, "val")) == 2
    assert len(open_images(root, "train")) == 2


def test_what_is_not_a_file_is_skipped_and_counted(pets, caplog, monkeypatch):
    os.mkfifo(pets / "cat" / "pipe.jpg")
    (pets / "cat" / "zero.jpg").symlink_to("/dev/zero")
    (pets / "dog" / "gone.jpg").symlink_to("/nowhere/a.jpg")
    (pets / "dog" / "gone2.jpg").symlink_to("/nowhere/b.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        # Paths of sockets have to be short.
        monkeypatch.chdir(pets / "dog")
        listener.bind("socket.jpg")
        images = open_images(pets)
    assert list(images.names) == NAMES
    for line in (
        "1 file is skipped, such as cat/pipe.jpg: a named pipe",
        "1 file is skipped, such as cat/zero.jpg: a device",
        "2 files are skipped, such as dog/gone.jpg: a broken link",
        "1 file is skipped, such as dog/socket.jpg: a socket",
    ):
        assert line in caplog.text


@pytest.mark.parametrize("target", ["/nowhere", "/dev/null"])
def test_class_folder_that_is_a_broken_link_is_missed(pets, target):
    (pets / "owl").mkdir()
    (pets / "owl" / "a.jpg").symlink_to(target)
    with pytest.raises(DataError, match=r"'owl' .1 file, such as owl/a.jpg"):
        open_images(pets)
    (pets / "owl" / "a.jpg").unlink()
    (pets / "owl").rmdir()
    (pets / "owl").symlink_to("/nowhere")
    with pytest.raises(DataError, match=r"'owl' .* a broken link"):
        open_images(pets)


def test_file_of_a_terabyte_is_not_read(pets, caplog):
    with (pets / "cat" / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    assert list(open_images(pets).names) == NAMES
    assert "cat/huge.jpg: a file larger than 1.2 GB" in caplog.text


def test_pipe_instead_of_data(tmp_path):
    os.mkfifo(tmp_path / "data.tar")
    with pytest.raises(DataError, match=r"data.tar is neither a folder nor an ordinary file"):
        open_images(tmp_path / "data.tar")


def test_names_that_are_not_utf8(pets, encoded):
    (pets / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(encoded(4))
    images = open_images(pets)
    assert images.names[2] == r"cat/caf\xe9.jpg"
    assert images[2] == encoded(4)
    (pets / "dog").rename(pets / os.fsdecode(b"ni\xf1o"))
    with pytest.raises(DataError, match=r"ni\\xf1o in .* is not UTF-8; rename it"):
        open_images(pets)
