"""Archives, read where they lie; and those that cannot be."""

import io
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from bit_keras.data import open_images, splits_of
from bit_keras.errors import DataError
from tests.cifar10 import ARCHIVE


def test_archive_of_splits(make_tar, encoded):
    path = make_tar(
        {
            "train/dog/a.jpg": encoded(1),
            "train/cat/x/b.jpg": encoded(2),
            "test/dog/a.jpg": encoded(3),
            "train/cat/readme.txt": b"",
        }
    )
    assert splits_of(path) == ("train", "test")
    images = open_images(path, "train")
    assert images.classes == ("cat", "dog")
    assert list(images.names) == ["train/cat/x/b.jpg", "train/dog/a.jpg"]
    assert [images[0], images[1]] == [encoded(2), encoded(1)]


@pytest.mark.parametrize("prefix", ["./", "pets/", "./pets/"])
def test_folder_around_all_others_is_looked_into(make_tar, encoded, prefix):
    path = make_tar({f"{prefix}cat/a.jpg": encoded(1), f"{prefix}dog/a.jpg": encoded(2)})
    assert open_images(path).classes == ("cat", "dog")
    path = make_tar({f"{prefix}{split}/cat/a.jpg": encoded(1) for split in ("test", "train")})
    assert splits_of(path) == ("train", "test")


def test_one_class_is_no_folder_around_others(make_tar, encoded):
    assert open_images(make_tar({"cat/a.jpg": encoded(1)})).classes == ("cat",)
    assert splits_of(make_tar({"train/cat/a.jpg": encoded(1)}, "split.tar")) == ("train",)


def test_pax_header_long_names_links_and_folders(tmp_path, encoded):
    long = "d" * 180
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "0123"}
    ) as archive:
        folder = tarfile.TarInfo("cat")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("cat/a.jpg", f"{long}/{long}.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(7))
            archive.addfile(member, io.BytesIO(encoded(7)))
        link = tarfile.TarInfo("cat/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    images = open_images(tmp_path / "a.tar")
    assert images.classes == ("cat", long)
    assert [images[0], images[1]] == [encoded(7)] * 2


def test_nothing_is_written(make_tar, encoded, tmp_path, monkeypatch):
    path = make_tar({"/absolute/a.jpg": encoded(1), "evil/../../b/c.jpg": encoded(2)})
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    images = open_images(path)
    assert images[0] == encoded(1)
    assert list(images.names) == ["absolute/a.jpg"]
    assert sorted(tmp_path.rglob("*")) == before


def test_changed_archive_is_read_anew(make_tar, encoded):
    assert len(open_images(make_tar({"cat/a.jpg": encoded(1)}))) == 1
    time.sleep(0.02)  # The time of change tells the two apart.
    assert len(open_images(make_tar({"cat/a.jpg": encoded(1), "cat/b.jpg": encoded(2)}))) == 2


def test_threads_do_not_disturb_each_other(make_tar, encoded):
    files = {f"cat/{value:03d}.jpg": encoded(value) for value in range(200)}
    images = open_images(make_tar(files))
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(images.__getitem__, range(200)))
    assert read == list(files.values())


@pytest.mark.parametrize(
    ("mode", "program"), [("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")]
)
def test_compressed_archive(make_tar, encoded, mode, program):
    path = make_tar({"cat/a.jpg": encoded(1)}, f"a.tar.{mode}", f"w:{mode}")
    with pytest.raises(DataError, match=f"is compressed, .* decompress it first with `{program}`"):
        open_images(path)


def test_file_of_another_kind(tmp_path, encoded):
    for name, content in (("a.jpg", encoded(1)), ("empty.tar", b""), ("short.tar", b"abc")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} is (not a tar archive|damaged|empty)"):
            open_images(tmp_path / name)


def test_empty_archive(make_tar):
    with pytest.raises(DataError, match="is empty; images are stored"):
        open_images(make_tar({}))


def test_archive_cut_anywhere_is_damaged(make_tar, encoded):
    content = make_tar({f"cat/{value}.jpg": encoded(value) for value in range(3)}).read_bytes()
    end = len(content.rstrip(b"\0"))
    path = make_tar({})
    for length in (*range(300, end + 512, 300), 512, 1536):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"damaged|not a tar archive"):
            open_images(path)


def test_damaged_header_does_not_hide_what_follows(make_tar, encoded):
    path = make_tar({f"cat/{value}.jpg": encoded(value) for value in range(3)})
    content = bytearray(path.read_bytes())
    second = content.index(b"cat/1.jpg")
    content[second : second + 512] = b"\x01" * 512
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or was not copied to its end"):
        open_images(path)


@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs cifar10.tar, which is not distributed")
def test_cifar10():
    assert splits_of(ARCHIVE) == ("train", "test")
    images = open_images(ARCHIVE, "test")
    assert (len(images), len(images.classes)) == (10_000, 10)
    assert np.bincount(images.targets).tolist() == [1000] * 10
    assert images.names[1001] == "test/automobile/0001.jpg"
    assert Image.open(io.BytesIO(images[1001])).size == (32, 32)
