"""`.keras` files: names without a model, and everything that must be refused."""

import functools
import io
import json
import shutil
import struct
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest

from bit_keras.checkpoints.files import KerasFile
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.registry import ARCHITECTURES
from tests.checkpoints import reading
from tests.checkpoints.mutations import FEW, MANY, refused_of
from tests.models.networks import narrow, network

read_all = functools.partial(reading.read_all, KerasFile)
refusal = functools.partial(reading.refusal, KerasFile)

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def expected_arrays(model):
    """The weights by layer; Keras puts the name of a Sequential in front of its own ones."""
    return {
        "/".join(weight.path.split("/")[-2:]): keras.ops.convert_to_numpy(
            keras.ops.cast(weight, "float32")
        )
        for weight in model.weights
    }


def assert_contains(found, model):
    expected = expected_arrays(model)
    assert found.keys() >= expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == "float32"
        assert found[name].flags.writeable
        assert np.array_equal(found[name], array), name


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file of a few kilobytes with a model inside of a model, which no test may change."""
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            keras.layers.Conv2D(3, 1, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
        ],
        name="block1",
    )
    layers = [keras.Input((4, 4, 2)), inner, keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers, name="small")
    model.layers[-1].name = "head"
    path = tmp_path_factory.mktemp("small") / "small.keras"
    model.save(path)
    return path


def rewritten(path, target, changes, compression=zipfile.ZIP_STORED):
    """A copy of an archive with some members replaced, added, or omitted (None)."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        members = {name: old.read(name) for name in old.namelist()} | changes
        for name, data in members.items():
            if data is not None:
                new.writestr(name, data)
    return target


def weights_of(path):
    with zipfile.ZipFile(path) as archive:
        return io.BytesIO(archive.read(WEIGHTS))


def test_a_network_of_this_package_is_read_by_the_names_of_its_weights(classifier, tmp_path):
    export_keras(classifier, tmp_path / "a.keras")
    found = read_all(tmp_path / "a.keras")
    assert found.keys() == ARCHITECTURES["bit_tiny"].weight_shapes(10).keys()
    assert_contains(found, classifier)
    with KerasFile(tmp_path / "a.keras") as arrays:
        assert arrays.shapes == ARCHITECTURES["bit_tiny"].weight_shapes(10)
        assert set(arrays.dtypes.values()) == {"float32"}


@pytest.mark.slow
def test_moving_statistics_have_their_names(tmp_path):
    model = network(narrow(ARCHITECTURES["resnetv2_50"]))
    model.save(tmp_path / "a.keras")
    found = read_all(tmp_path / "a.keras")
    assert "block4_unit03_norm2/moving_variance" in found
    assert found.keys() == {weight.path for weight in model.weights}
    assert_contains(found, model)


def test_the_state_of_an_optimizer_keeps_its_place(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / "a.keras")
    found = read_all(tmp_path / "a.keras")
    assert_contains(found, model)
    others = found.keys() - {"head/kernel", "head/bias"}
    # The step, the learning rate, and two moments of each of the two weights.
    assert others == {f"optimizer/vars/{number}" for number in range(6)}


def test_a_network_inside_of_a_model_is_read_by_the_same_names(extractor, tmp_path):
    layers = [extractor, keras.layers.Dropout(0.5), keras.layers.Dense(3, name="head")]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers])
    model.save(tmp_path / "a.keras")
    found = read_all(tmp_path / "a.keras")
    assert_contains(found, extractor)
    assert found.keys() >= {"head/kernel", "head/bias"}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read(tmp_path, dtype):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype=dtype, name="head")])
    model.save(tmp_path / "a.keras")
    with KerasFile(tmp_path / "a.keras") as arrays:
        assert set(arrays.dtypes.values()) == {dtype}
        found = {name: array.astype("float32") for name, array in arrays.items()}
        # NumPy has no bfloat16.
        assert arrays["head/kernel"].dtype == ("float32" if dtype == "bfloat16" else dtype)
    assert_contains(found, model)


def test_what_a_class_does_not_tell_keeps_its_number(tmp_path):
    layers = [
        keras.Input((4, 3)),
        keras.layers.BatchNormalization(scale=False, name="norm"),
        keras.layers.Conv1D(2, 1, name="other"),
        keras.layers.LSTM(2, name="recurrent"),
        keras.layers.Dense(2, use_bias=False, name="head"),
    ]
    model = keras.Sequential(layers)
    model.save(tmp_path / "a.keras")
    assert read_all(tmp_path / "a.keras").keys() >= {
        "norm/beta",
        "norm/moving_mean",
        "norm/moving_variance",
        "other/0",
        "other/1",
        "recurrent/cell/vars/0",
        "head/kernel",
    }
    assert "norm/gamma" not in read_all(tmp_path / "a.keras")


def test_layers_are_counted_by_class_and_model(tmp_path):
    def model(name, names):
        layers = [keras.layers.Dense(3, name=each) for each in names]
        return keras.Sequential([keras.Input((3,)), *layers], name=name)

    outer = model("outer", "ab")
    outer.add(model("first", "cd"))
    outer.add(model("second", "ef"))
    outer.add(keras.layers.Dense(3, name="g"))
    outer.save(tmp_path / "a.keras")
    found = read_all(tmp_path / "a.keras")
    assert [name for name in found if name.endswith("kernel")] == [f"{e}/kernel" for e in "abcdefg"]
    assert_contains(found, outer)


def test_two_layers_of_one_name_are_refused(tmp_path):
    def model(name):
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="a")], name=name)

    keras.Sequential([model("first"), model("second")]).save(tmp_path / "a.keras")
    assert "contains the array 'a/kernel' twice" in refusal(tmp_path / "a.keras")


def test_compressed_weights_are_refused(small, tmp_path):
    path = rewritten(small, tmp_path / "a.keras", {}, zipfile.ZIP_DEFLATED)
    assert "stores its weights compressed, which Keras does not do" in refusal(path)


def test_a_configuration_that_unpacks_to_gigabytes_is_refused(small, tmp_path):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONFIG, bytes(64 << 20))
        archive.writestr(WEIGHTS, weights_of(small).getvalue())
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "config.json has 67,108,864 bytes" in message
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (b"", "is damaged"),
        (b"\xff", "is damaged"),
        (b"[" * 1_000_000, "is damaged"),
        (b"null", "must be an object"),
        (b"{}", "describes no model"),
        (b'{"config": {"layers": 3}}', "describes no model"),
        (b'{"config": {"layers": [3]}}', "describes no model"),
        (b'{"config": {"layers": [{"config": {"name": "a"}}]}}', "is damaged"),
        (b'{"config": {"layers": [{"class_name": [], "config": {"name": "a"}}]}}', "is damaged"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(small, tmp_path, config, words):
    path = rewritten(small, tmp_path / "a.keras", {CONFIG: config})
    assert words in refusal(path)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "a\nb", "\ud800", 3, None])
def test_names_that_are_none_are_refused(small, tmp_path, name):
    with zipfile.ZipFile(small) as archive:
        config = json.loads(archive.read(CONFIG))
    config["config"]["layers"][-1]["config"]["name"] = name
    path = rewritten(small, tmp_path / "a.keras", {CONFIG: json.dumps(config)})
    assert f"{name!r} is the name of a layer" in refusal(path)


def test_models_nested_without_end_are_refused(small, tmp_path):
    model = '{"class_name": "Sequential", "config": {"name": "a", "layers": ['
    config = model * 5000 + "]}}" * 5000
    path = rewritten(small, tmp_path / "a.keras", {CONFIG: config})
    assert "is damaged" in refusal(path)


def changed_weights(small, change):
    file = weights_of(small)
    with h5py.File(file, "a") as root:
        change(root)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda at: at.create_dataset("1", (3,), "f4", chunks=(1,)), "compressed, in chunks"),
        (lambda at: at.update({"1": h5py.SoftLink("/layers")}), "a link to somewhere else"),
        (lambda at: at.update({"1": h5py.ExternalLink("x", "/")}), "HDF5's newer layout"),
        (lambda at: at.update({"1": at["0"]}), "is there under another name as well"),
        (lambda at: at.create_dataset("1", (1 << 40,), "f4"), "the end"),
        (lambda at: at.create_dataset("1", (3,), "S4"), "not numbers of a common type"),
        (lambda at: at.create_dataset("1", (3,), h5py.string_dtype()), "not numbers of a common"),
    ],
)
def test_weights_that_keras_would_not_write_are_refused(small, tmp_path, change, words):
    def change_head(root):
        del root["layers/dense/vars/1"]
        change(root["layers/dense/vars"])

    weights = changed_weights(small, change_head)
    assert words in refusal(rewritten(small, tmp_path / "a.keras", {WEIGHTS: weights}))


def test_variables_of_no_layer_keep_their_place(small, tmp_path):
    weights = changed_weights(small, lambda root: root.update({"layers/dense_7/vars/0": 1.0}))
    path = rewritten(small, tmp_path / "a.keras", {WEIGHTS: weights})
    assert read_all(path).keys() - read_all(small).keys() == {"layers/dense_7/vars/0"}


def test_a_member_that_is_there_twice_is_refused(small, tmp_path):
    path = shutil.copy(small, tmp_path / "a.keras")
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(WEIGHTS, weights_of(small).getvalue())
    assert "contains 'model.weights.h5' twice" in refusal(path)


def test_an_index_that_points_elsewhere_is_refused(small, tmp_path):
    data = small.read_bytes()
    entry = data.rindex(WEIGHTS.encode()) - 46
    (at,) = struct.unpack_from("<I", data, entry + 42)
    for wrong in (0, at + 1, len(data), 0xFFFFFFFE):
        changed = data[: entry + 42] + struct.pack("<I", wrong) + data[entry + 46 :]
        (tmp_path / "a.keras").write_bytes(changed)
        assert "is damaged" in refusal(tmp_path / "a.keras")


def test_what_is_not_a_keras_file_is_named(small, tiny_npz, tmp_path):
    path = tmp_path / "a.keras"
    path.write_bytes(b"nothing")
    assert "is not a Keras file" in refusal(path)
    assert "is not a Keras file" in refusal(tiny_npz)
    assert "is not a Keras file" in refusal(rewritten(small, path, {WEIGHTS: None}))


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_a_damaged_file_of_keras_is_refused_or_read_as_it_was(small, tmp_path, count):
    path = tmp_path / "a.keras"
    path.write_bytes(small.read_bytes())
    assert refused_of(KerasFile, path, count) > count // 2
