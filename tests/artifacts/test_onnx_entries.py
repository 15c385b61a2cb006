"""Entries of ONNX files, read without the library of ONNX."""

import pytest

from bit_keras.artifacts.onnx_entries import entries_of, read_entry

FILES = {"a.json": b'{"name": "\xc3\xa9"}', "a.npz": bytes(range(256))}


@pytest.fixture
def path(tmp_path):
    """A file that the library of ONNX wrote, with fields before and after the entries."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "graph", [], [])
    graph.doc_string = "x" * 100_000
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"another": "x" * 5_000, **entries_of(FILES), "empty": ""})
    onnx.save(model, tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


@pytest.mark.parametrize("name", FILES)
def test_an_entry_is_the_file_that_was_written(path, name):
    assert read_entry(path, name, 1_000) == FILES[name]
    assert read_entry(path, name, len(FILES[name])) == FILES[name]


def test_an_entry_may_be_missing_or_empty(path):
    assert read_entry(path, "b.json", 1_000) is None
    assert read_entry(path, "empty", 1_000) == b""


def test_little_of_a_large_entry_is_read(path):
    assert len(read_entry(path, "another", 1_000)) == 2_000


@pytest.mark.parametrize(
    "content",
    [
        b"\x72\x7f\x0a",  # An entry that continues after the end of the file.
        b"\x72\x02\x0a\x7f",  # A key that continues after the end of its entry.
        b"\x72\x80",  # A length without its end.
        b"\xff" * 100,  # A number without end.
        b"\x73",  # A group, which no message of ONNX has.
        b"\x08\x00" * 20_000,  # More fields than any model.
    ],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ValueError):
        read_entry(tmp_path / "a.onnx", "a.json", 1_000)
