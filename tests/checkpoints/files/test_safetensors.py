"""safetensors files, next to the reference implementation, and everything that must be refused."""

import functools
import json

import numpy as np
import pytest

from bit_keras.checkpoints.files import Arrays, SafetensorsFile, write_safetensors
from bit_keras.errors import BitKerasError
from tests.checkpoints import reading
from tests.checkpoints.mutations import FEW, MANY, mutated, refused_or_equal

refusal = functools.partial(reading.refusal, SafetensorsFile)

NAMES = ("head.fc.weight", "norm.bias", "stem.conv.weight")


class Made(Arrays):
    """Arrays of a dictionary."""

    def __init__(self, arrays):
        self._arrays = arrays
        self.shapes = {name: array.shape for name, array in arrays.items()}

    def __getitem__(self, name):
        return self._arrays[name]


@pytest.fixture
def arrays():
    generator = np.random.default_rng(0)
    shapes = [(2, 3, 1, 1), (5,), (4, 3, 7, 7)]
    return {
        name: generator.standard_normal(shape).astype("float32")
        for name, shape in zip(NAMES, shapes, strict=True)
    }


@pytest.fixture
def path(tmp_path, arrays):
    write_safetensors(tmp_path / "x.safetensors", Made(arrays))
    return tmp_path / "x.safetensors"


@pytest.fixture
def reference():
    return pytest.importorskip("safetensors.numpy", reason="the reference implementation")


def file_of(path, header, values=b"", padding=0):
    """Writes a file with a header of one's own, a dict or text."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes((len(text) + padding).to_bytes(8, "little") + text + values)
    return path


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert array.tobytes() == expected[name].tobytes()


def test_the_reference_implementation_reads_what_is_written(path, arrays, reference):
    assert_equal(reference.load_file(path), arrays)


def test_what_the_reference_implementation_writes_is_read(tmp_path, arrays, reference):
    arrays |= {"half": np.arange(7, dtype="float16"), "count": np.int64([3])}
    reference.save_file(arrays, tmp_path / "x", metadata={"format": "pt"})
    with SafetensorsFile(tmp_path / "x") as found:
        assert found.dtypes["half"] == "float16"
        assert_equal({name: found[name] for name in found}, arrays)


def test_bfloat16_is_read_as_the_float32_of_the_same_value(tmp_path):
    torch = pytest.importorskip("torch", reason="NumPy has no bfloat16 to write")
    library = pytest.importorskip("safetensors.torch", reason="the reference implementation")
    values = torch.randn(300).to(torch.bfloat16)
    library.save_file({"x": values}, tmp_path / "x")
    with SafetensorsFile(tmp_path / "x") as found:
        assert found.dtypes["x"] == "bfloat16"
        np.testing.assert_array_equal(found["x"], values.float().numpy())
        assert found["x"].dtype == np.float32


def test_half_precision_halves_the_values(tmp_path, arrays):
    write_safetensors(tmp_path / "half", Made(arrays), dtype="float16")
    with SafetensorsFile(tmp_path / "half") as found:
        for name in arrays:
            np.testing.assert_array_equal(found[name], arrays[name].astype("float16"))


def test_equal_arrays_give_equal_bytes(tmp_path, path, arrays):
    again = dict(reversed(arrays.items()))
    write_safetensors(tmp_path / "again", Made(again))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_a_write_that_fails_keeps_the_old_file(path, arrays):
    before = path.read_bytes()

    class Failing(Made):
        def __getitem__(self, name):
            raise BitKerasError("no such array")

    with pytest.raises(BitKerasError, match="no such array"):
        write_safetensors(path, Failing(arrays))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_scalars_and_empty_arrays_are_read(tmp_path):
    header = {"one": entry((), (0, 4)), "none": entry((0, 3), (4, 4))}
    file_of(tmp_path / "x", header, np.float32(7.5).tobytes())
    with SafetensorsFile(tmp_path / "x") as found:
        assert found["one"] == 7.5 and found["one"].shape == ()
        assert found["none"].shape == (0, 3)


@pytest.mark.parametrize(
    ("header", "values", "words"),
    [
        ({"x": entry((3,))}, b"12345678", "another size than"),
        ({"x": entry((-1, -2))}, b"12345678", "has the shape"),
        ({"x": entry((True, 2))}, b"12345678", "has the shape"),
        ({"x": entry((2.0,))}, b"12345678", "has the shape"),
        ({"x": entry((2**40, 2**40))}, b"12345678", "another size than"),
        ({"x": entry(dtype="F8_E4M3")}, b"12345678", "'F8_E4M3', which is unknown"),
        ({"x": entry(), "y": entry()}, b"12345678", "do not begin where others end"),
        ({"x": entry(offsets=(4, 12))}, b"1234" * 3, "do not begin where others end"),
        ({"x": entry()}, b"1234", "promises"),
        ({"x": entry()}, b"1234" * 3, "promises"),
        ({"x": {"dtype": "F32"}}, b"", "data_offsets"),
        ('{"x": 1, "x": 1}', b"", "twice"),
        ("[1]", b"", "must be an object"),
        ('{"x": ' + "[" * 100_000, b"", "damaged"),
        ("{", b"", "damaged"),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, header, values, words):
    assert words in refusal(file_of(tmp_path / "x", header, values))


@pytest.mark.parametrize("length", [10**6, 2**63, 2**64 - 1])
def test_a_header_that_promises_more_than_the_file_is_refused(tmp_path, length):
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + b'{"x":1}')
    assert "its header should have" in refusal(tmp_path / "x")


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_a_file_that_was_tampered_with_gives_what_the_reference_gives(
    tmp_path, path, reference, count
):
    # There are no checksums: a changed value is a value.
    safetensors = pytest.importorskip("safetensors", reason="the reference implementation")
    original, damaged = path.read_bytes(), tmp_path / "damaged"
    refused = 0
    for what, content in mutated(original, count):
        damaged.write_bytes(content)
        try:
            expected = reference.load_file(damaged)
        except (safetensors.SafetensorError, KeyError, ValueError):
            expected = {}
        try:
            refused += refused_or_equal(SafetensorsFile, damaged, expected)
        except AssertionError as error:
            raise AssertionError(what) from error
    assert refused > count // 4


def test_a_single_byte_is_refused_as_damaged(tmp_path):
    (tmp_path / "x").write_bytes(b"\x01")
    assert "damaged" in refusal(tmp_path / "x")
