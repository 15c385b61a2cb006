"""Archives, read where they are; and those that cannot be."""

import contextlib
import io
import shutil
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from bit_keras.data import open_images
from bit_keras.data.datasets import open_data_source
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
    assert open_data_source(path).splits == ("train", "test")
    images = open_images(path, "train")
    assert images.classes == ("cat", "dog")
    assert list(images.names) == ["train/cat/x/b.jpg", "train/dog/a.jpg"]
    assert [images[0], images[1]] == [encoded(2), encoded(1)]


@pytest.mark.parametrize("prefix", ["./", "pets/", "./pets/"])
def test_folder_around_all_others_is_looked_into(make_tar, encoded, prefix):
    path = make_tar({f"{prefix}cat/a.jpg": encoded(1), f"{prefix}dog/a.jpg": encoded(2)})
    assert open_images(path).classes == ("cat", "dog")
    path = make_tar({f"{prefix}{split}/cat/a.jpg": encoded(1) for split in ("test", "train")})
    assert open_data_source(path).splits == ("train", "test")


def test_one_class_is_not_a_folder_around_others(make_tar, encoded):
    assert open_images(make_tar({"cat/a.jpg": encoded(1)})).classes == ("cat",)
    split = make_tar({"train/cat/a.jpg": encoded(1)}, "split.tar")
    assert open_data_source(split).splits == ("train",)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_headers_of_every_form_long_names_and_folders(tmp_path, encoded, form):
    long = "d" * 180
    with tarfile.open(
        tmp_path / "a.tar", "w", format=form, pax_headers={"comment": "0123"}
    ) as archive:
        folder = tarfile.TarInfo("cat")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name in ("cat/a.jpg", f"{long}/{long}.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(encoded(7))
            archive.addfile(member, io.BytesIO(encoded(7)))
    images = open_images(tmp_path / "a.tar")
    assert images.classes == ("cat", long)
    assert [images[0], images[1]] == [encoded(7)] * 2


def packed(path, files, links):
    """An archive of files and links; a link has a name, a type and a target."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, link_type, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = link_type, target
            archive.addfile(member)
    return path


HARD, SYMBOLIC, PIPE = tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE


def test_links_are_the_files_that_they_lead_to(tmp_path, encoded):
    files = {".pool/1.jpg": encoded(1), ".pool/2.jpg": encoded(2), "ant/a.jpg": encoded(3)}
    links = [
        ("cat/a.jpg", HARD, ".pool/1.jpg"),
        ("dog/a.jpg", SYMBOLIC, "../.pool/2.jpg"),
        ("dog/b.jpg", SYMBOLIC, "a.jpg"),
        ("cat/c.jpg", SYMBOLIC, "/etc/passwd"),
        ("cat/d.jpg", SYMBOLIC, "d.jpg"),
    ]
    images = open_images(packed(tmp_path / "a.tar", files, links))
    assert list(images.names) == ["ant/a.jpg", "cat/a.jpg", "dog/a.jpg"]
    assert [images[index] for index in range(3)] == [encoded(3), encoded(1), encoded(2)]


def test_link_into_another_class_is_refused(tmp_path, encoded):
    links = [("cat/b.jpg", HARD, "dog/a.jpg")]
    path = packed(tmp_path / "a.tar", {"dog/a.jpg": encoded(1)}, links)
    with pytest.raises(DataError, match=r"cat/b.jpg and dog/a.jpg are one file"):
        open_images(path)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (("owl/a.jpg", HARD, "gone.jpg"), "a link to a file that is not in the archive"),
        (("owl", SYMBOLIC, "../elsewhere"), "a link to a file that is not in the archive"),
        (("owl", SYMBOLIC, "dog"), "a link to a folder of the archive"),
        (("owl/a.jpg", PIPE, ""), "not an ordinary file"),
        (("owl", tarfile.DIRTYPE, ""), "an empty folder"),
    ],
)
def test_class_that_links_have_lost_stops(tmp_path, encoded, link, reason):
    path = packed(tmp_path / "a.tar", {"cat/a.jpg": encoded(1), "dog/a.jpg": encoded(2)}, [link])
    with pytest.raises(DataError, match=f"'owl' .*{reason}"):
        open_images(path)
    assert len(open_images(path, skip_unreadable_classes=True)) == 2


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_files(tmp_path, form):
    image = Image.new("L", (600, 600))
    image.paste(200, (0, 0, 600, 20))
    (tmp_path / "data" / "cat").mkdir(parents=True)
    image.save(tmp_path / "plain.bmp")
    content = (tmp_path / "plain.bmp").read_bytes()
    with (tmp_path / "data" / "cat" / "a.bmp").open("wb") as file:
        for start in range(0, len(content), 4096):
            block = content[start : start + 4096]
            file.seek(start)
            if any(block):
                file.write(block)
        file.truncate(len(content))
    command = ["tar", "--sparse", f"--format={form}", "--hole-detection=raw", "-cf", "a.tar"]
    subprocess.run([*command, "-C", "data", "cat"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.tar").stat().st_size < len(content) / 2
    assert open_images(tmp_path / "a.tar")[0] == content


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
    time.sleep(0.02)  # The modification times must differ.
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


def test_file_of_another_format(tmp_path, encoded):
    for name, content in (("a.jpg", encoded(1)), ("empty.tar", b""), ("short.tar", b"abc")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            DataError, match=f"{name} is (not a readable tar archive|damaged|empty)"
        ):
            open_images(tmp_path / name)


def test_empty_archive(make_tar):
    with pytest.raises(DataError, match="is empty"):
        open_images(make_tar({}))


def test_archive_cut_anywhere_is_damaged(make_tar, encoded):
    content = make_tar({f"cat/{value}.jpg": encoded(value) for value in range(3)}).read_bytes()
    end = len(content.rstrip(b"\0"))
    path = make_tar({})
    for length in (*range(300, end + 512, 300), 512, 1536):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"damaged|not a readable tar archive"):
            open_images(path)


def test_damaged_header_does_not_hide_what_follows(make_tar, encoded):
    path = make_tar({f"cat/{value}.jpg": encoded(value) for value in range(3)})
    content = bytearray(path.read_bytes())
    second = content.index(b"cat/1.jpg")
    content[second : second + 512] = b"\x01" * 512
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged or incomplete"):
        open_images(path)


def with_size(path, name, size):
    """Writes another size, 12 bytes, into the header of a member."""
    content = bytearray(path.read_bytes())
    start = content.index(name.encode() + b"\0")
    content[start + 124 : start + 136] = size
    content[start + 148 : start + 156] = b" " * 8
    content[start + 148 : start + 156] = b"%06o\0 " % sum(content[start : start + 512])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("count", [-1, -512, -1024, -1536, -(2**60), 2**60])
def test_size_that_cannot_be_ends_with_one_sentence(make_tar, encoded, count):
    path = make_tar({f"cat/{value}.jpg": encoded(value) for value in range(3)})
    size = (0xFF << 88 | count % 2**88) if count < 0 else (0x80 << 88 | count)
    with pytest.raises(DataError, match=r"damaged|not a readable tar archive"):
        open_images(with_size(path, "cat/1.jpg", size.to_bytes(12, "big")))


@pytest.mark.parametrize(
    "header",
    [
        {"GNU.sparse.map": "0,x", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,10,-5,10", "GNU.sparse.size": "10"},
        {"GNU.sparse.map": "0,99999999999", "GNU.sparse.size": "10"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
        {"size": "-512"},
        {"size": "99999999999999"},
    ],
)
def test_damaged_extended_headers_end_with_one_sentence(tmp_path, encoded, header):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for name, extra in (("cat/a.jpg", {}), ("cat/b.jpg", header), ("cat/c.jpg", {})):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = len(encoded(1)), extra
            archive.addfile(member, io.BytesIO(encoded(1)))
    with pytest.raises(DataError, match=r"damaged|not a readable tar archive"):
        open_images(tmp_path / "a.tar")


def test_thousands_of_long_names_of_one_member_end_with_one_sentence(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10
    block = header.tobuf(tarfile.GNU_FORMAT) + b"cat/a.jpg".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(block * 5000 + bytes(1024))
    with pytest.raises(DataError, match=r"damaged|not a readable tar archive"):
        open_images(tmp_path / "a.tar")


def mutations(content, count, seed):
    """An archive with a few bytes of its headers changed, many times."""
    generator = np.random.default_rng(seed)
    headers = [at for at in range(0, len(content), 512) if content[at + 257 : at + 262] == b"ustar"]
    for _ in range(count):
        changed = bytearray(content)
        start = int(generator.choice(headers))
        for at in generator.integers(0, 512, generator.integers(1, 4)):
            changed[start + at] = generator.choice([0, 0x2D, 0x37, 0x80, 0xFF])
        if generator.random() < 0.8:
            changed[start + 148 : start + 156] = b" " * 8
            checksum = b"%06o\0 " % sum(changed[start : start + 512])
            changed[start + 148 : start + 156] = checksum
        yield bytes(changed)


@pytest.mark.parametrize(
    ("count", "seed"),
    [
        (150, 0),
        pytest.param(2000, None, marks=pytest.mark.full),
    ],
)
def test_mutated_headers_are_read_or_refused_in_a_sentence(tmp_path, encoded, count, seed):
    path = tmp_path / "a.tar"
    links = [("cat/l.jpg", HARD, "cat/0.jpg"), ("dog/l.jpg", SYMBOLIC, "1.jpg")]
    files = {f"{name}/{value}.jpg": encoded(value) for name in ("cat", "dog") for value in (0, 1)}
    content = packed(path, files, links).read_bytes()
    for number, changed in enumerate(mutations(content, count, seed)):
        # A new name for each, since the index of an archive is kept.
        other = tmp_path / f"{number}.tar"
        other.write_bytes(changed)
        with contextlib.suppress(DataError):
            images = open_images(other)
            assert all(len(images[index]) < 10**6 for index in range(len(images)))
        other.unlink()


@pytest.mark.skipif(not ARCHIVE.exists(), reason="needs cifar10.tar, which is not distributed")
def test_cifar10():
    assert open_data_source(ARCHIVE).splits == ("train", "test")
    images = open_images(ARCHIVE, "test")
    assert (len(images), len(images.classes)) == (10_000, 10)
    assert np.bincount(images.targets).tolist() == [1000] * 10
    assert images.names[1001] == "test/automobile/0001.jpg"
    assert Image.open(io.BytesIO(images[1001])).size == (32, 32)
