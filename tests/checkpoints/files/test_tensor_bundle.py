"""Indices of TensorFlow's checkpoints that are made to mislead, with checksums that are right."""

import os
import random
import shutil
import struct

import pytest

from bit_keras.checkpoints.files import SavedModelFile
from bit_keras.checkpoints.files.tensor_bundle import _crc32c, _items, _masked, checked_index
from bit_keras.errors import CheckpointError
from tests.checkpoints.hostile import outcomes
from tests.checkpoints.reading import read_all

tf = pytest.importorskip("tensorflow", reason="reads and writes the format")

INDEX, VALUES = "variables/variables.index", "variables/variables.data-00000-of-00001"


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model"
    variables = [tf.Variable([[1.0, 2.0], [3.0, 4.0]], name="a"), tf.Variable([5.0], name="b")]
    tf.saved_model.save(tf.train.Checkpoint(variables=variables), os.fspath(path))
    return path


@pytest.fixture
def model(saved_model, tmp_path):
    return shutil.copytree(saved_model, tmp_path / "model")


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def table(items):
    """A table of LevelDB with one block of items, and right checksums."""
    entries = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value
        for key, value in items.items()
    )
    content, places = b"", []

    def add(block):
        nonlocal content
        places.append(varint(len(content)) + varint(len(block)))
        content += block + b"\0" + struct.pack("<L", _masked(_crc32c(block + b"\0")))

    restarts = struct.pack("<LL", 0, 1)
    add(entries + restarts)
    add(restarts)
    last = max(items) + b"\xff"
    add(varint(0) + varint(len(last)) + varint(len(places[0])) + last + places[0] + restarts)
    footer = (places[1] + places[2]).ljust(40, b"\0")
    return content + footer + struct.pack("<Q", 0xDB4775248B80FB57)


def items_of(model):
    return dict(_items((model / INDEX).read_bytes()))


def changed(model, change):
    """Writes the index again, with one entry changed; returns the error of the reader."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    items = items_of(model)
    key = b"variables/0/.ATTRIBUTES/VARIABLE_VALUE"
    entry = tensor_bundle_pb2.BundleEntryProto.FromString(items[key])
    change(entry)
    items[key] = entry.SerializeToString()
    (model / INDEX).write_bytes(table(items))
    with pytest.raises(CheckpointError) as info:
        read_all(SavedModelFile, model)
    return str(info.value)


def test_the_checksum_is_that_of_the_standard():
    # RFC 3720, B.4.
    assert _crc32c(bytes(32)) == 0x8A9136AA
    assert _crc32c(bytes(range(32))) == 0x46DD794E


def test_a_table_of_this_file_is_read_by_tensorflow(model):
    before = read_all(SavedModelFile, model)
    (model / INDEX).write_bytes(table(items_of(model)))
    assert read_all(SavedModelFile, model)["a"].tolist() == before["a"].tolist()
    shapes = tf.train.load_checkpoint(
        str(model / "variables/variables")
    ).get_variable_to_shape_map()
    index = checked_index(model / "variables" / "variables")
    assert {key: list(entry.shape) for key, entry in index.items()} == shapes


def with_dims(*sides):
    def change(entry):
        del entry.shape.dim[:]
        for side in sides:
            entry.shape.dim.add(size=side)

    return change


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (with_dims(1 << 40, 1 << 40), "another size"),
        (with_dims(-2, -2), "shape"),
        (with_dims(*[1] * 300), "shape"),
        (lambda entry: setattr(entry.shape, "unknown_rank", True), "shape"),
        (lambda entry: setattr(entry, "dtype", 999), "unknown"),
        (lambda entry: setattr(entry, "dtype", 20), "another size"),  # DT_RESOURCE
        (lambda entry: setattr(entry, "dtype", 7), "texts"),  # DT_STRING
        (lambda entry: setattr(entry, "offset", -8), "beyond the end"),
        (lambda entry: setattr(entry, "offset", 1 << 62), "beyond the end"),
        (lambda entry: setattr(entry, "size", 1 << 40), "beyond the end"),
        (lambda entry: setattr(entry, "shard_id", 3), "file 3 of 1"),
        (lambda entry: setattr(entry, "shard_id", -1), "file -1 of 1"),
        (lambda entry: entry.slices.add(), "slices"),
    ],
)
def test_entries_that_would_mislead_tensorflow_are_refused(model, change, fact):
    assert fact in changed(model, change)


def test_names_out_of_order_and_missing_headers_are_refused(model):
    items = items_of(model)
    for wrong in (dict(reversed(items.items())), {k: v for k, v in items.items() if k}):
        (model / INDEX).write_bytes(table(wrong))
        with pytest.raises(CheckpointError, match=r"order|header"):
            read_all(SavedModelFile, model)


@pytest.mark.parametrize("file", [INDEX, VALUES])
def test_a_pipe_is_not_waited_for(model, file):
    (model / file).unlink()
    os.mkfifo(model / file)
    with pytest.raises(CheckpointError, match=r"ordinary file|not a SavedModel"):
        read_all(SavedModelFile, model)


def test_entries_of_random_bytes_end_no_process(model):
    for seed in range(100):
        generator, items = random.Random(seed), items_of(model)
        key = generator.choice(list(items))
        value = bytearray(items[key] or b"\0")
        for _ in range(generator.choice((1, 2, 4))):
            value[generator.randrange(len(value))] = generator.randrange(256)
        items[key] = bytes(value)
        (model / INDEX).write_bytes(table(items))
        try:
            read_all(SavedModelFile, model)
        except CheckpointError:
            continue


@pytest.mark.long
def test_a_damaged_index_ends_no_process_that_loads_the_model(classifier_artifact):
    found = outcomes("load", classifier_artifact, 40, seed=0, damaged=INDEX)
    assert found["refused"] > 20
    assert found["other"] == 0
