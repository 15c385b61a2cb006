"""What every reader does with the files of its format."""

import logging
import math
import re
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bit_keras.checkpoints import checkpoint_file, files, load_weights, names, open_checkpoint
from bit_keras.checkpoints.dialects import BIT_TF2, DIALECTS, OFFICIAL_PLAIN_STEM
from bit_keras.checkpoints.files.array_file import BinaryFile
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.transfer import ModelArrays, require_known
from bit_keras.checkpoints.writing import FORMATS, ArraysInDialect, write_checkpoint
from bit_keras.errors import CheckpointError
from bit_keras.models.builders import network_of_file
from bit_keras.registry import ARCHITECTURES
from tests.checkpoints.formats import FORMS, READERS, THIN, write_npz_file
from tests.checkpoints.mutations import FEW, MANY, refused_of
from tests.checkpoints.reading import bits, refusal

#: So many that npz files do not read all of the head on opening.
CLASSES = 100

#: A weight by its path and its official name.
PATH, NAME = "block2_unit01_conv2/kernel", "resnet/block2/unit01/b/standardized_conv2d/kernel"

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
every_form_with_checksums = pytest.mark.parametrize(
    "form",
    [pytest.param(form, id=name) for name, form in FORMS.items() if form.checksums],
)
every_reader = pytest.mark.parametrize("reader", READERS.values(), ids=READERS)


@pytest.fixture(autouse=True, scope="module")
def registry():
    """The registry with the thin network."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (names, checkpoint_file):
            patch.setattr(module, "ARCHITECTURES", {**ARCHITECTURES, THIN.name: THIN})
        yield


@pytest.fixture(scope="module")
def expected():
    return SeededArrays(official_shapes(THIN, CLASSES))


@pytest.fixture(scope="module")
def original(expected, tmp_path_factory):
    """A function that writes a form once, for tests that do not change it."""
    written = {}

    def write(form):
        if form not in written:
            written[form] = tmp_path_factory.mktemp("original") / "original"
            form.write(written[form], form.named(expected))
        return written[form]

    return write


@pytest.fixture
def path(form, original, tmp_path):
    """A copy of the form's file or folder."""
    source, target = original(form), tmp_path / "x"
    return shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "thin.npz"
    write_npz_file(path, dict(SeededArrays(official_shapes(THIN, CLASSES), seed=1)))
    return network_of_file(path)


def message_of(path, network=None):
    """The message with which a checkpoint is refused; a network keeps its weights."""
    before = bits(ModelArrays(network)) if network else None
    with pytest.raises(CheckpointError) as raised:
        if network:
            load_weights(network, path)
        else:
            with open_checkpoint(path) as arrays:
                arrays.verify()
    assert not network or bits(ModelArrays(network)) == before
    assert str(path) in str(raised.value)
    return str(raised.value)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_every_reader_has_a_form():
    assert {form.file_format for form in FORMS.values()} == READERS.keys()


# What is read.


@every_form
@pytest.mark.parametrize("name", ["weights", "x.npz", "x.pth", "x.h5", "x.keras"])
def test_a_format_is_recognised_by_its_content(form, path, expected, name, monkeypatch):
    renamed = path.rename(path.with_name(name))

    def no_value(self, name):
        raise AssertionError(f"{name} is read before it is requested")

    with monkeypatch.context() as patch:
        patch.setattr(READERS[form.file_format], "__getitem__", no_value)
        found = open_checkpoint(renamed)
    with found:
        assert found.format == f"{form.file_format}, {form.dialect.name}"
        assert found.left_out == ()
        assert found.shapes == {name: expected[name].shape for name in found}
        assert set(found.dtypes.values()) == {"float32"}
        assert require_known(found) == THIN
        found.verify()
        assert bits(found) == bits(expected)


@every_form
def test_a_network_is_filled_to_the_bit(form, path, network, expected, caplog):
    with caplog.at_level(logging.INFO, "bit_keras"):
        load_weights(network, path)
    assert not caplog.records
    assert bits(ModelArrays(network)) == bits(expected)


@every_form
def test_opening_reads_no_values_and_an_array_is_read_once(form, tmp_path):
    architecture = ARCHITECTURES["bit_tiny"]
    arrays = SeededArrays(official_shapes(architecture, CLASSES))
    form.write(tmp_path / "x", form.named(arrays, architecture))
    path = form.opened_by_reader(tmp_path / "x")
    READERS[form.file_format](path).close()  # Imports what it needs.
    tracemalloc.start()
    with READERS[form.file_format](path) as found:
        name = max(found, key=lambda name: math.prod(found.shapes[name]))
        before, most = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        size = found[name].nbytes
        read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Some readers have a buffer of 4 MB for what is not values, for a moment.
    assert most < 4.2e6 < form.file(tmp_path / "x").stat().st_size
    assert before < 1e6
    assert read < before + size + 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="It counts the files in /proc.")
@every_form
def test_files_are_closed(form, path):
    before = open_files()
    with open_checkpoint(path) as found:
        dict(found)
    assert open_files() == before
    file = form.file(path)
    file.write_bytes(file.read_bytes()[:-9])
    # The exception keeps everything that is not closed.
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(path)
    assert open_files() == before, raised


@pytest.mark.slow
@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_is_read(dialect, classes, tmp_path):
    architecture = ARCHITECTURES["resnetv2_50"] if dialect.batch_norm else THIN
    # For three channels, a stem convolution that is not standardised is not that of a BiT.
    channels = 1 if dialect is OFFICIAL_PLAIN_STEM else 3
    arrays = SeededArrays(official_shapes(architecture, classes, channels))
    write_npz_file(tmp_path / "x", dict(ArraysInDialect(arrays, architecture, dialect)))
    with open_checkpoint(tmp_path / "x") as found:
        # Without a head, bit_jax is what flax is.
        assert found.format == f"npz, {dialect.name}" or not classes
        assert bits(found) == bits(arrays)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("classes", [None, CLASSES])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_in_a_format_is_read(format, classes, dtype, tmp_path):
    arrays = SeededArrays(official_shapes(THIN, classes))
    write_checkpoint(tmp_path / "x", arrays, format, dtype)
    with open_checkpoint(tmp_path / "x") as found:
        found.verify()
        assert set(found.dtypes.values()) == {dtype}
        assert bits(found) == bits({name: arrays[name].astype(dtype) for name in arrays})


def test_a_format_is_recognised_by_one_function(original, tmp_path):
    predicates = {name: each for name, each in vars(files).items() if name.startswith("is_")}

    def recognising(path):
        # These two are called for files only.
        skipped = () if path.is_file() else ("is_safetensors", "is_torch_file")
        return [name for name, each in predicates.items() if name not in skipped and each(path)]

    found = {}
    for form in FORMS.values():
        by_form = recognising(form.opened_by_reader(original(form)))
        assert found.setdefault(form.file_format, by_form) == by_form
    assert recognising(original(FORMS["SavedModel"]) / "saved_model.pb") == []
    assert found.pop("npz") == []  # What else an archive may be.
    assert sorted(name for (name,) in found.values()) == sorted(predicates)
    (tmp_path / "text").write_text("epoch loss\n")
    (tmp_path / "empty").touch()
    for other in ("text", "empty", "absent", ""):
        assert recognising(tmp_path / other) == []
    assert recognising(FORMS["SavedModel"].file(original(FORMS["SavedModel"]))) == []


# What is refused.


@every_form
def test_a_file_cut_short_anywhere_is_refused(form, path):
    file = form.file(path)
    whole = file.read_bytes()
    end = len(whole)
    for length in (*range(0, 60, 7), *range(60, end, end // 20), *range(end - 60, end, 7)):
        file.write_bytes(whole[:length])
        message_of(path)


@every_form_with_checksums
def test_a_changed_value_is_refused_and_other_arrays_are_read(form, path, network, expected):
    file = form.file(path)
    data = bytearray(file.read_bytes())
    stored = form.named(expected)[form.name("head/kernel")].tobytes()
    assert data.count(stored) == 1
    data[data.index(stored) + len(stored) - 1] ^= 1
    file.write_bytes(data)
    words = f"{re.escape(str(path))}.* is damaged"
    with (
        READERS[form.file_format](form.opened_by_reader(path)) as arrays,
        pytest.raises(CheckpointError, match=words),
    ):
        arrays.verify()
    assert "is damaged" in message_of(path)
    assert "is damaged" in message_of(path, network)
    with open_checkpoint(path) as found:
        other = "resnet/head/conv2d/bias"
        assert found[other].tobytes() == expected[other].tobytes()


@every_form
@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen"])
def test_arrays_that_do_not_fit_are_refused_by_name(form, tmp_path, network, expected, change):
    arrays, name = form.named(expected), form.name(PATH)
    if change == "missing":
        del arrays[name]
    elif change == "unexpected":
        arrays[f"{form.prefix}extra/kernel"] = np.zeros(3, "float32")
    else:
        arrays[name] = np.zeros((1, 1, *arrays[name].shape[2:], 1), "float32")
    form.write(tmp_path / "x", arrays)
    message = message_of(tmp_path / "x", network)
    if form.dialect is not BIT_TF2:  # Whose names say nothing.
        assert change in message
        assert ("extra/kernel" if change == "unexpected" else NAME) in message


@every_form
def test_values_that_are_not_finite_are_refused_by_name_and_taken_on_request(
    form, tmp_path, network, expected
):
    arrays, name = form.named(expected), form.name(PATH)
    values = arrays[name].copy()
    values.flat[:3] = np.nan, np.inf, -np.inf
    form.write(tmp_path / "x", arrays | {name: values})
    message = message_of(tmp_path / "x", network)
    for fact in (" 3 values", f"{values.size:,} of", "--allow-nonfinite", "allow_nonfinite=True"):
        assert fact in message
    assert form.dialect is BIT_TF2 or name in message
    load_weights(network, tmp_path / "x", allow_nonfinite=True)
    assert np.isnan(ModelArrays(network)[NAME]).sum() == 1


@pytest.mark.parametrize(
    ("form", "file"),
    [
        pytest.param(form, file, id=f"{name} {file}".strip())
        for name, form in FORMS.items()
        if form.checksums  # Other formats are compared with their libraries.
        for file in form.files
    ],
)
@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_a_damaged_file_is_refused_or_read_as_it_was(form, file, path, count):
    reader, opened = READERS[form.file_format], form.opened_by_reader(path)
    assert refused_of(reader, opened, count, path / file) > count // 2


@every_reader
def test_what_is_not_of_its_format_is_refused(reader, original, tmp_path):
    contents = {"empty": b"", "byte": b"P", "text": b"epoch loss\n", "zip": b"PK\3\4" + bytes(100)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found = {name: refusal(reader, tmp_path / name) for name in (*contents, "", "absent")}
    if issubclass(reader, BinaryFile):
        assert found["absent"] == f"There is no file {tmp_path / 'absent'}."
        assert found["empty"] == f"{tmp_path / 'empty'} is empty; {reader.expected} was expected."
        assert found[""] == f"{tmp_path} is a folder; {reader.expected} was expected."
    for form in FORMS.values():
        if form.file_format != reader.file_format:
            refusal(reader, original(form))
