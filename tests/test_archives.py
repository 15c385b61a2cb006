"""Archives that someone tampered with are refused before anything is unpacked."""

import io
import struct
import zipfile

import numpy as np
import pytest

from bit_keras.archives import is_archive, open_archive, read_member


def written(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_ordinary_archives_are_read_wherever_they_begin(tmp_path, compression):
    path = written(tmp_path / "x.zip", {"a": b"first", "b/c": b"second" * 100}, compression)
    assert is_archive(path)
    with open_archive(path) as archive:
        assert read_member(archive, "b/c", 1000) == b"second" * 100
    # As at the end of a TFLite file.
    path.write_bytes(b"something else" + path.read_bytes())
    assert is_archive(path)
    with path.open("rb") as file, open_archive(file) as archive:
        assert read_member(archive, "a", 1000) == b"first"


def test_a_file_that_is_not_an_archive_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"PK nothing" * 20)
    assert not is_archive(tmp_path / "x")
    assert not is_archive(tmp_path / "missing")
    with pytest.raises(zipfile.BadZipFile, match="index"):
        open_archive(tmp_path / "x")


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, compression):
    path = written(tmp_path / "x.zip", {"a.npy": bytes(100_000_000)}, compression)
    assert path.stat().st_size < 20_000
    with pytest.raises(zipfile.BadZipFile, match=r"a\.npy.*stored or deflated"):
        open_archive(path)


def test_a_member_that_unpacks_to_much_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w") as member,
    ):
        for _ in range(110):
            member.write(bytes(1_000_000))
    with pytest.raises(zipfile.BadZipFile, match=r"a\.npy.*110,000,000"):
        open_archive(path)


def with_two_disks(data):
    """A ZIP64 record that speaks of two disks."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 46, 0)
    place = struct.pack("<4sLQL", b"PK\6\7", 0, len(data) - 22, 2)
    return data[:-22] + record + place + data[-22:]


def with_a_huge_index(data):
    return data[:-10] + struct.pack("<L", 50_000_000) + data[-6:] + bytes(0)


def with_two_of_one_name(data):
    return data.replace(b"b.npy", b"a.npy")


def encrypted(data):
    place = data.index(b"PK\1\2") + 8
    return data[:place] + b"\1\0" + data[place + 2 :]


@pytest.mark.parametrize(
    ("tamper", "fact"),
    [
        (with_two_disks, "disk"),
        (with_a_huge_index, "50,000,000"),
        (with_two_of_one_name, r"'a\.npy' twice"),
        (encrypted, "encrypted"),
    ],
)
def test_tampered_indices_are_refused_with_one_error(tmp_path, tamper, fact):
    path = written(tmp_path / "x.zip", {"a.npy": b"1", "b.npy": b"2"})
    path.write_bytes(tamper(path.read_bytes()))
    with pytest.raises(zipfile.BadZipFile, match=fact):
        open_archive(path)


def test_every_cut_and_every_flipped_byte_is_the_one_error_or_harmless(tmp_path):
    data = written(tmp_path / "x.zip", {"a": b"first"}, zipfile.ZIP_DEFLATED).read_bytes()
    damaged = [data[:length] for length in range(len(data))]
    for place in range(len(data)):
        for bit in (0, 3, 7):
            damaged.append(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
    refused = 0
    for content in damaged:
        try:
            with open_archive(io.BytesIO(content)) as archive:
                assert read_member(archive, archive.namelist()[0], 100) == b"first"
        except (zipfile.BadZipFile, IndexError):
            refused += 1
    assert refused > len(damaged) / 2


def test_a_large_member_is_not_read_as_a_small_one(tmp_path):
    path = written(tmp_path / "x.zip", {"config.json": bytes(2000)}, zipfile.ZIP_DEFLATED)
    with open_archive(path) as archive, pytest.raises(zipfile.BadZipFile, match="2,000 bytes"):
        read_member(archive, "config.json", 1000)
    with open_archive(path) as archive, pytest.raises(zipfile.BadZipFile, match="nothing"):
        read_member(archive, "nothing", 1000)


def test_what_numpy_writes_is_read(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(5), b=np.zeros(5_000_000))
    np.savez_compressed(tmp_path / "y.npz", a=np.arange(5), b=np.zeros(5_000_000))
    for name in ("x.npz", "y.npz"):
        with open_archive(tmp_path / name) as archive:
            assert archive.namelist() == ["a.npy", "b.npy"]
