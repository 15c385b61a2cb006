"""Official npz files: the byte layout, and everything that must be refused."""

import functools
import io
import itertools
import os
import pickle
import random
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Mapping

import numpy as np
import pytest

from bit_keras.checkpoints.files import NpzFile, write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.errors import CheckpointError
from bit_keras.registry import ARCHITECTURES, CHECKPOINTS
from tests.checkpoints import reading
from tests.checkpoints.reading import bits

read_all = functools.partial(reading.read_all, NpzFile)
refusal = functools.partial(reading.refusal, NpzFile)

NAME = "resnet/group_norm/gamma"
#: Opening reads the first 10,000 bytes of an array, so one is larger.
LARGE = "resnet/block1/unit01/a/standardized_conv2d/kernel"
SMALL = {
    NAME: np.float32([1.5, -0.0, np.inf]),
    LARGE: np.arange(3000, dtype="f4").reshape(3, 1000),
    "resnet/head/conv2d/bias": np.float32([7.25]),
}


class Zeros(Mapping):
    """Zeros of given shapes, each made when it is requested."""

    def __init__(self, shapes):
        self.shapes = shapes

    def __getitem__(self, name):
        return np.zeros(self.shapes[name], "float32")

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)


def npy(array):
    """The bytes of an array in a file of its own, as NumPy writes them."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_with_header(header, data=b"", version=(1, 0)):
    """The bytes of an npy file with a header of one's own."""
    text = f"{header}\n".encode("latin1")
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def header(shape, dtype="<f4"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"


def archive(path, *members, compression=zipfile.ZIP_STORED):
    """Writes a zip of `(name, bytes)` members, repeated ones too."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as file:
        warnings.filterwarnings("ignore", "Duplicate name", UserWarning)
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def test_arrays_come_back_to_the_bit(tmp_path):
    odd = np.array([0x7FC00123, 0x80000000, 0xFF800000, 0x00000001, 0x3F800000], "u4").view("f4")
    arrays = SMALL | {"resnet/head/conv2d/kernel": odd.reshape(1, 1, 5, 1)}
    write_npz(tmp_path / "x.npz", arrays)
    assert bits(read_all(tmp_path / "x.npz")) == bits(arrays)


def test_opening_tells_names_and_shapes(tiny_file, tiny_arrays):
    with NpzFile(str(tiny_file)) as arrays:
        assert arrays.path == tiny_file
        assert arrays.shapes == {name: array.shape for name, array in tiny_arrays.items()}
        assert list(arrays) == sorted(tiny_arrays)
        assert len(arrays) == len(tiny_arrays)
        assert "resnet/nothing" not in arrays


def test_bytes_equal_those_of_an_independent_writer(tiny_file, tiny_arrays, tmp_path):
    members = [(f"{name}.npy", npy(array)) for name, array in sorted(tiny_arrays.items())]
    expected = archive(tmp_path / "x.npz", *members)
    assert tiny_file.read_bytes() == expected.read_bytes()


def test_numpy_reads_the_file_and_writes_20_bytes_more_per_array(tiny_file, tiny_arrays, tmp_path):
    with np.load(tiny_file) as arrays:
        assert bits(arrays) == bits(tiny_arrays)
    np.savez(tmp_path / "numpy.npz", **dict(sorted(tiny_arrays.items())))
    # The zip64 field that NumPy puts into every local header.
    more = (tmp_path / "numpy.npz").stat().st_size - tiny_file.stat().st_size
    assert more == 20 * len(tiny_arrays)


def test_r50x1_has_the_published_size_and_is_written_array_by_array(tmp_path):
    shapes = official_shapes(ARCHITECTURES["bit_r50x1"], 1000)
    tracemalloc.start()
    write_npz(tmp_path / "x.npz", Zeros(shapes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    published = CHECKPOINTS["bit_r50x1.in21k_ft_in1k"].bytes
    assert (tmp_path / "x.npz").stat().st_size == published == 102_242_668
    assert peak < 25e6  # The largest array has 9.4 MB.
    with NpzFile(tmp_path / "x.npz") as arrays:
        assert arrays.shapes == dict(sorted(shapes.items()))


def test_equal_arrays_give_equal_bytes(tmp_path):
    write_npz(tmp_path / "a.npz", SMALL)
    write_npz(tmp_path / "b.npz", dict(reversed(SMALL.items())))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_write_that_fails_keeps_the_old_file(tmp_path):
    class Broken(Zeros):
        def __getitem__(self, name):
            raise RuntimeError("no value")

    write_npz(tmp_path / "x.npz", SMALL)
    with pytest.raises(RuntimeError, match="no value"):
        write_npz(tmp_path / "x.npz", Broken({"a": (3,)}))
    assert bits(read_all(tmp_path / "x.npz")) == bits(SMALL)
    assert [file.name for file in tmp_path.iterdir()] == ["x.npz"]


def test_deflated_files_are_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **SMALL)
    assert bits(read_all(tmp_path / "x.npz")) == bits(SMALL)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_every_float_is_read_in_the_byte_order_of_the_machine(tmp_path, dtype):
    path = archive(tmp_path / "x.npz", (f"{NAME}.npy", npy(np.array([1.5, -2.0], dtype))))
    array = read_all(path)[NAME]
    assert array.dtype == np.dtype(dtype).newbyteorder("=")
    assert array.dtype.isnative
    assert array.tolist() == [1.5, -2.0]


def test_fortran_order_is_read_and_written_right(tmp_path):
    array = np.asfortranarray(np.arange(24, dtype="f4").reshape(2, 3, 4))
    np.savez(tmp_path / "numpy.npz", x=array)
    assert b"'fortran_order': True" in (tmp_path / "numpy.npz").read_bytes()
    write_npz(tmp_path / "ours.npz", {"x": array})
    assert b"'fortran_order': False" in (tmp_path / "ours.npz").read_bytes()
    for path in (tmp_path / "numpy.npz", tmp_path / "ours.npz"):
        assert np.array_equal(read_all(path)["x"], array)


@pytest.fixture
def small_bytes(tmp_path):
    write_npz(tmp_path / "whole.npz", SMALL)
    return (tmp_path / "whole.npz").read_bytes()


def test_a_file_cut_short_anywhere_is_refused(small_bytes, tmp_path):
    path = tmp_path / "x.npz"
    for length in itertools.chain(range(60), range(60, len(small_bytes), 97), range(-60, 0)):
        path.write_bytes(small_bytes[:length])
        message = refusal(path)
        if length < 0 or length > 3:
            assert "is damaged (it is cut short" in message
            assert "Download it again" in message


@pytest.mark.slow
def test_a_flipped_bit_is_refused_or_changes_nothing(small_bytes, tmp_path):
    path, outcomes = tmp_path / "x.npz", []
    index = small_bytes.index(b"PK\x01\x02")
    generator = random.Random(0)
    # Few bits of the index are protected by a checksum: it is tried bit by bit.
    positions = generator.sample(range(index * 8), 500) + list(
        range(index * 8, len(small_bytes) * 8)
    )
    for position in positions:
        damaged = bytearray(small_bytes)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            arrays = read_all(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            outcomes.append("refused")
        else:
            assert bits(arrays) == bits(SMALL), f"bit {position}"
            outcomes.append("equal")
    # Time stamps and the like, which nobody reads, are the lesser part.
    assert outcomes.count("refused") > outcomes.count("equal") > 0


def test_every_flipped_bit_of_the_values_is_refused(small_bytes, tmp_path):
    path, values = tmp_path / "x.npz", SMALL[NAME].tobytes()
    start = small_bytes.index(values)
    for position in range(start * 8, (start + len(values)) * 8):
        damaged = bytearray(small_bytes)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert f"array {NAME!r}, is damaged (Bad CRC-32" in refusal(path)


def test_a_damaged_array_is_refused_when_it_is_read_and_the_others_are_not(small_bytes, tmp_path):
    damaged = bytearray(small_bytes)
    damaged[small_bytes.index(SMALL[LARGE].tobytes()) + 11_999] ^= 1
    (tmp_path / "x.npz").write_bytes(damaged)
    with NpzFile(tmp_path / "x.npz") as arrays:
        with pytest.raises(CheckpointError, match="Bad CRC-32"):
            arrays[LARGE]
        with pytest.raises(CheckpointError, match="Bad CRC-32"):
            arrays.verify()
        assert arrays["resnet/head/conv2d/bias"].tolist() == [7.25]
        with pytest.raises(KeyError):
            arrays["resnet/nothing"]


def test_python_objects_are_refused_and_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    np.savez(tmp_path / "x.npz", **{NAME: np.array([Trap()], object)})
    assert "trapped" in pickle.dumps(Trap()).decode("latin1")
    message = refusal(tmp_path / "x.npz")
    assert "contains Python objects" in message
    assert "could run code" in message
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"P", "is not an npz file: it begins with b'P'"),
        (b"epoch loss\n1 0.5\n", "is not an npz file: it begins with b'epoc'"),
        (npy(np.ones(3)), "is not an npz file: it begins with b'\\x93NUM'"),
        (b"PK\x03\x04" + bytes(100), "is damaged (it is cut short"),
    ],
    ids=["one byte", "text", "npy", "zip without index"],
)
def test_what_is_not_an_npz_is_named(tmp_path, content, words):
    (tmp_path / "x.npz").write_bytes(content)
    assert words in refusal(tmp_path / "x.npz")


def test_a_path_below_a_file_is_refused(tmp_path):
    below = tmp_path / "file" / "x.npz"
    below.parent.write_bytes(b"")
    assert "cannot be read (Not a directory)" in refusal(below)


@pytest.mark.parametrize("forbidden", ["file", "folder"])
def test_a_file_that_may_not_be_read_is_refused(tmp_path, forbidden):
    folder = tmp_path / "folder"
    folder.mkdir()
    write_npz(folder / "x.npz", SMALL)
    (folder / "x.npz" if forbidden == "file" else folder).chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # Root may read everything.
            os.seteuid(65534)
        message = refusal(folder / "x.npz")
    finally:
        os.seteuid(user)
        folder.chmod(0o700)
    assert message.endswith("cannot be read (Permission denied).")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("readme.txt", "contains 'readme.txt', which is not an array"),
        ("folder/", "contains 'folder/', which is not an array"),
        ("../../x.npy", "contains '../../x.npy', a name that leads out of the archive"),
        ("/etc/x.npy", "contains '/etc/x.npy', a name that leads out of the archive"),
    ],
)
def test_members_that_are_not_arrays_of_the_archive_are_refused(tmp_path, name, words):
    path = archive(tmp_path / "x.npz", (f"{NAME}.npy", npy(np.ones(3, "f4"))), (name, npy(1.0)))
    assert words in refusal(path)


def test_names_that_occur_twice_are_refused(tmp_path):
    path = archive(
        tmp_path / "x.npz",
        (f"{NAME}.npy", npy(np.zeros(2, "f4"))),
        (f"{NAME}.npy", npy(np.ones(2, "f4"))),
    )
    assert f"{NAME}.npy' twice" in refusal(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (npy_with_header(header((2500, 1000, 1000, 1000))), "the data have another size"),
        (npy_with_header(header((-3, -1)), bytes(12)), "the data have another size"),
        (npy_with_header(header((4,)), bytes(12)), "the data have another size"),
        (npy_with_header(header((2,)), bytes(12)), "the data have another size"),
        (npy_with_header(header((3,)), bytes(12), version=(3, 7)), "npy format (3, 7) is unknown"),
        (npy_with_header(header("(3.0,)"), bytes(12)), "shape is not valid"),
        (npy_with_header(header((3,), "<f5"), bytes(12)), "descr is not a valid dtype"),
        (npy_with_header("{'shape': (3,", bytes(12)), "is damaged"),
        (npy_with_header("{1: 2, 'shape': (3,)}", bytes(12)), "is damaged"),
        (npy_with_header("open('x', 'w')", bytes(12)), "is damaged"),
        (npy_with_header("(" * 5000, bytes(12)), "is damaged"),
        (npy_with_header(header((3,)) + " " * 60_000, bytes(12)), "reading array header"),
        (npy(np.ones(3, "f4"))[:40], "is damaged"),
        (b"not an array", "magic string is not correct"),
        (b"", "is damaged"),
    ],
    ids=[
        "10 TB",
        "negative",
        "too large",
        "too small",
        "version",
        "float shape",
        "dtype",
        "unfinished",
        "mixed keys",
        "code",
        "nested",
        "long",
        "cut",
        "text",
        "empty",
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, data, words):
    message = refusal(archive(tmp_path / "x.npz", (f"{NAME}.npy", data)))
    assert f"array {NAME!r}, is damaged (" in message
    assert words in message


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [(8, 1, "encrypted"), (10, 99, "compression"), (10, 97, "compression")],
    ids=["encrypted", "compression 99", "compression 97"],
)
def test_members_that_cannot_be_unpacked_are_refused(small_bytes, tmp_path, offset, value, words):
    damaged = bytearray(small_bytes)
    damaged[damaged.index(b"PK\x01\x02") + offset] = value
    (tmp_path / "x.npz").write_bytes(damaged)
    message = refusal(tmp_path / "x.npz")
    assert "is damaged (" in message
    assert words in message


@pytest.mark.parametrize("bomb", ["data", "header"])
def test_a_zip_bomb_is_refused_without_unpacking_it(tmp_path, bomb):
    size = 64 << 20
    if bomb == "data":
        start = npy_with_header(header((3,)))
    else:
        start = b"\x93NUMPY\x02\x00" + struct.pack("<I", size)
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr(f"{NAME}.npy", start + bytes(size))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "is damaged (" in message
    assert peak < 2 << 20
