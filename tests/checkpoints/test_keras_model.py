"""Models from `.keras` files: what Keras wrote is loaded, everything else is refused."""

import io
import json
import random
import resource
import time
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from bit_keras.checkpoints import load_keras_model
from bit_keras.errors import CheckpointError
from tests.checkpoints.mutations import MANY, mutated
from tests.checkpoints.reading import bits

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of a few kilobytes, which no test may change."""
    inner = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()]
    )
    dense = keras.layers.Dense(2, name="head", kernel_initializer="ones")
    model = keras.Sequential([keras.Input((4, 4, 2)), inner, keras.layers.Flatten(), dense])
    path = tmp_path_factory.mktemp("small") / "small.keras"
    model.save(path)
    return path


def weights_of(model):
    return bits({str(i): array for i, array in enumerate(model.get_weights())})


def rewritten(path, target, changes, compression=zipfile.ZIP_STORED):
    """A copy of an archive with some members replaced or added, those compressed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        members = {name: old.read(name) for name in old.namelist()}
        for name, data in (members | changes).items():
            new.writestr(name, data, compression if name in changes else zipfile.ZIP_STORED)
    return target


def with_layer(path, target, change):
    """A copy of a file whose description has another last layer."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read(CONFIG))
    change(config["config"]["layers"][-1])
    return rewritten(path, target, {CONFIG: json.dumps(config)})


def refusal(path):
    with pytest.raises(CheckpointError) as raised:
        load_keras_model(path)
    message = str(raised.value)
    assert str(path) in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("name", ["a.keras", "weights"])
def test_the_model_is_that_of_keras(small, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(small.read_bytes())
    model, expected = load_keras_model(path), keras.models.load_model(small)
    assert weights_of(model) == weights_of(expected)
    assert model.to_json() == expected.to_json()


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16", "float64"])
def test_every_precision_is_loaded_to_the_bit(tmp_path, policy):
    dense = keras.layers.Dense(2, dtype=policy)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Normalization(), dense])
    model.layers[0].adapt(np.random.default_rng(0).normal(3.0, 2.0, (16, 3)))
    model.save(tmp_path / "a.keras")
    loaded, inputs = load_keras_model(tmp_path / "a.keras"), np.ones((1, 3), "float32")
    for theirs, ours in zip(loaded.weights, model.weights, strict=True):
        assert theirs.dtype == ours.dtype
    assert np.array_equal(
        *(
            keras.ops.convert_to_numpy(keras.ops.cast(each(inputs), "float32"))
            for each in (loaded, model)
        )
    )


def test_quantised_and_optimised_models_are_loaded(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 4)), verbose=0)
    model.layers[0].quantize("int8")
    model.save(tmp_path / "a.keras")
    assert weights_of(load_keras_model(tmp_path / "a.keras")) == weights_of(model)


def test_damaged_weights_are_refused(small, tmp_path):
    # Keras 3.15 loads this file on Python 3.12 and 3.13, with another kernel.
    data, path = bytearray(small.read_bytes()), tmp_path / "a.keras"
    kernel = keras.models.load_model(small).get_weights()[-2].tobytes()
    data[data.index(kernel) + 3] ^= 1
    path.write_bytes(data)
    assert "is damaged" in refusal(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_unpack_without_bounds_are_refused(small, tmp_path, compression):
    path = rewritten(small, tmp_path / "a.keras", {CONFIG: bytes(1 << 20)}, compression)
    assert "in compression" in refusal(path)


@pytest.mark.parametrize(
    ("name", "size"),
    [(CONFIG, 200_000_000), ("metadata.json", 5_000_000), ("assets.extra/a.json", 5_000_000)],
)
def test_descriptions_that_unpack_to_megabytes_are_refused(small, tmp_path, name, size):
    path = rewritten(small, tmp_path / "a.keras", {name: b" " * size}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    assert f"{size:,} bytes" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_files_next_to_the_weights_are_refused(small, tmp_path):
    path = rewritten(small, tmp_path / "a.keras", {"assets/vocabulary.txt": b"cat\ndog\n"})
    assert "assets/vocabulary.txt" in refusal(path)
    assert "trust=True" in refusal(path)


def test_files_next_to_the_weights_are_loaded_where_they_are_trusted(tmp_path):
    lookup = keras.layers.StringLookup()
    lookup.adapt([["cat"], ["dog"]])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    model.save(tmp_path / "a.keras")
    (name,) = [n for n in zipfile.ZipFile(tmp_path / "a.keras").namelist() if "assets/" in n]
    path = rewritten(tmp_path / "a.keras", tmp_path / "b.keras", {name: b"cow\nsow\n"})
    loaded = load_keras_model(path, trust=True)
    assert loaded.layers[-1].get_vocabulary() == ["[UNK]", "cow", "sow"]


def test_code_in_a_file_runs_only_where_it_is_trusted(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1, name="own")])
    model.save(tmp_path / "a.keras")
    message = refusal(tmp_path / "a.keras")
    assert "Lambda in the layer 'own'" in message
    assert "--trust" in message
    model = load_keras_model(tmp_path / "a.keras", trust=True)
    assert keras.ops.convert_to_numpy(model(np.ones((1, 3)))).tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"module": "os", "class_name": "system", "registered_name": None}, "os.system"),
        ({"module": "builtins", "class_name": "eval", "registered_name": None}, "builtins.eval"),
        (
            {"module": "keras.utils", "class_name": "get_file", "registered_name": None},
            "keras.utils.get_file",
        ),
        (
            {"module": "keras.utils", "class_name": "function", "registered_name": "function"},
            "keras.utils.function",
        ),
        (
            {"module": "own.layers", "class_name": "Own", "registered_name": "own>Own"},
            "own.layers.Own",
        ),
        ({"module": "keras.layers", "class_name": "TFSMLayer"}, "TFSMLayer"),
        ({"module": "keras.layers", "class_name": ["Dense"]}, "['Dense']"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_not_of_keras_or_bit_keras_is_named(small, tmp_path, entry, named, inside):
    def change(layer):
        if inside:
            layer["config"]["kernel_initializer"] = {"config": {}, **entry}
        else:
            layer.update(entry)

    message = refusal(with_layer(small, tmp_path / "a.keras", change))
    assert named in message
    assert "'head'" in message


def test_weights_that_are_not_in_the_file_are_not_created(small, tmp_path):
    path = with_layer(
        small, tmp_path / "a.keras", lambda layer: layer["config"].update(units=10**10)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "describes a model of 490,000,000,0" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def changed_weights(small, tmp_path, change):
    with zipfile.ZipFile(small) as archive:
        file = io.BytesIO(archive.read(WEIGHTS))
    with h5py.File(file, "a") as root:
        change(root)
    return rewritten(small, tmp_path / "a.keras", {WEIGHTS: file.getvalue()})


def test_missing_and_unknown_arrays_are_refused(small, tmp_path):
    path = changed_weights(small, tmp_path, lambda root: root.pop("layers/dense/vars/1"))
    assert "cannot be loaded by Keras" in refusal(path)
    path = changed_weights(
        small, tmp_path, lambda root: root.update({"layers/dense_7/vars/0": np.float32(1.0)})
    )
    assert "contains 9 arrays and its model takes 8" in refusal(path)


def require_refused_or_equal(path, contents, expected):
    """Loads damaged versions of a file; returns how many were refused."""
    refused = 0
    for what, content in contents:
        path.write_bytes(content)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            model = load_keras_model(path)
        except CheckpointError:
            refused += 1
        else:
            assert expected is None or weights_of(model) == expected, what
        assert time.perf_counter() - start < 10, what
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < (4 * len(content) + 200_000_000) / 1024, what
    return refused


def with_damaged_member(path, name, count, seed):
    """Versions of a file with a damaged member whose checksum is right."""
    with zipfile.ZipFile(path) as archive:
        member = archive.read(name)
    for what, content in mutated(member, count, seed):
        target = io.BytesIO()
        rewritten(path, target, {name: content})
        yield f"{name}: {what}", target.getvalue()


@pytest.mark.parametrize(
    ("count", "seed"),
    [(60, 0), pytest.param(MANY, random.randrange(10**6), marks=pytest.mark.full, id="many")],
)
def test_a_damaged_file_is_refused_or_loaded_as_it_was(small, tmp_path, count, seed):
    expected = weights_of(keras.models.load_model(small))
    contents = mutated(small.read_bytes(), count, seed)
    assert require_refused_or_equal(tmp_path / "a.keras", contents, expected) > count // 2


@pytest.mark.parametrize(
    ("count", "seed"),
    [(15, 0), pytest.param(MANY, random.randrange(10**6), marks=pytest.mark.full, id="many")],
)
@pytest.mark.parametrize("member", [CONFIG, WEIGHTS])
def test_a_forged_member_ends_nothing(small, tmp_path, member, count, seed):
    # Its checksum is right, so other values are what the file says.
    contents = with_damaged_member(small, member, count, seed)
    require_refused_or_equal(tmp_path / "a.keras", contents, None)
