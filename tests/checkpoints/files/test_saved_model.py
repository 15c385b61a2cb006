"""SavedModels: which variables, under which names, and everything that must be refused."""

import functools
import os
import shutil
import struct

import keras
import numpy as np
import pytest

from bit_keras.checkpoints.files import SavedModelFile
from bit_keras.errors import CheckpointError
from bit_keras.registry import ARCHITECTURES
from tests.checkpoints import reading

read_all = functools.partial(reading.read_all, SavedModelFile)
refusal = functools.partial(reading.refusal, SavedModelFile)

tf = pytest.importorskip("tensorflow", reason="reads and writes the format")

needs_backend = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="A network is exported as a SavedModel only with the TensorFlow backend.",
)


def variable(value, name, dtype="float32"):
    return tf.Variable(tf.cast(value, dtype), name=name)


def saved(path, **children):
    """A SavedModel of an object with some children."""
    tf.saved_model.save(tf.train.Checkpoint(**children), os.fspath(path))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small SavedModel, which no test may change."""
    path = tmp_path_factory.mktemp("small") / "small"
    variables = [
        variable([[1, 2], [3, 4]], "conv/kernel"),
        variable([5], "norm/gamma"),
        variable([6], "norm/beta"),
    ]
    return saved(path, variables=variables, other=variable([7], "other"))


@needs_backend
def test_a_network_of_this_package_is_read_by_the_names_of_its_weights(
    classifier, classifier_artifact
):
    found = read_all(classifier_artifact)
    assert list(found) == [weight.path for weight in classifier.weights]
    for weight in classifier.weights:
        assert np.array_equal(found[weight.path], weight.numpy()), weight.path
    with SavedModelFile(classifier_artifact) as arrays:
        assert arrays.shapes == ARCHITECTURES["bit_tiny"].weight_shapes(10)
        assert set(arrays.dtypes.values()) == {"float32"}


@needs_backend
def test_what_keras_exports_is_read(extractor, tmp_path):
    extractor.export(tmp_path / "a", verbose=False)
    assert read_all(tmp_path / "a").keys() == {weight.path for weight in extractor.weights}


def test_names_that_repeat_are_replaced_by_the_order(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="what writes such models")

    def block(name):
        layers = [tf_keras.layers.BatchNormalization(name="norm"), tf_keras.layers.ReLU()]
        return tf_keras.Sequential(layers, name=name)

    class Network(tf_keras.Model):
        def __init__(self):
            super().__init__(name="resnet")
            self.blocks = [block("block1"), block("block2")]
            self.head = tf_keras.layers.Dense(3, name="head/dense")

        def call(self, inputs):
            for layer in self.blocks:
                inputs = layer(inputs)
            return self.head(inputs)

    model = Network()
    model(np.zeros((1, 4), "float32"))
    for number, weight in enumerate(model.variables):
        weight.assign(np.full(weight.shape, number))
    assert len({weight.name for weight in model.variables}) < len(model.variables) == 10
    tf.saved_model.save(model, os.fspath(tmp_path / "a"))
    found = read_all(tmp_path / "a")
    assert list(found) == [f"variables/{number}" for number in range(10)]
    assert [array.flat[0] for array in found.values()] == list(range(10))
    assert [array.shape for array in found.values()] == [tuple(w.shape) for w in model.variables]


def test_the_list_of_variables_is_read_in_its_order(small, tmp_path):
    found = read_all(small)
    assert list(found) == ["conv/kernel", "norm/gamma", "norm/beta"]
    assert found["conv/kernel"].tolist() == [[1, 2], [3, 4]]
    assert all(array.flags.writeable and array.flags.c_contiguous for array in found.values())
    many = [variable([number], f"v{number}") for number in range(12)]
    assert list(read_all(saved(tmp_path / "a", variables=many))) == [v.name[:-2] for v in many]


def test_without_a_list_all_variables_are_read_but_no_state_of_optimizers(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="has optimizers with slots")
    weight, bias = variable([[1.0]], "kernel"), variable([2.0], "bias")
    optimizer = tf_keras.optimizers.legacy.SGD(momentum=0.5)
    optimizer.apply_gradients([(tf.ones((1, 1)), weight)])
    path = saved(tmp_path / "a", layer=tf.train.Checkpoint(w=weight, b=bias), momentum=optimizer)
    found = read_all(path)
    assert {"kernel", "bias"} <= found.keys()
    assert not any("momentum" in name and "kernel" in name for name in found)
    assert "save_counter" not in found
    same = tf.train.Checkpoint(w=variable([1], "x"), b=variable([2], "x"))
    assert read_all(saved(tmp_path / "b", layer=same)).keys() == {"layer/w", "layer/b"}


@pytest.fixture
def of_tensorflow_1(small, tmp_path):
    """A SavedModel whose variables TensorFlow 1 saved, without a graph of objects."""
    path = tmp_path / "tensorflow_1"
    shutil.copytree(small, path)
    shutil.rmtree(path / "variables")
    (path / "variables").mkdir()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in {"resnet/b": [1.0] * 1000, "resnet/a": [[3.0]]}.items():
            tf.compat.v1.get_variable(name, initializer=value, use_resource=True)
        session.run(tf.compat.v1.global_variables_initializer())
        saver = tf.compat.v1.train.Saver()
        saver.save(session, os.fspath(path / "variables/variables"), write_meta_graph=False)
    return path


def test_a_checkpoint_of_tensorflow_1_is_read_by_its_keys(of_tensorflow_1):
    found = read_all(of_tensorflow_1)
    assert {name: array.tolist() for name, array in found.items()} == {
        "resnet/a": [[3.0]],
        "resnet/b": [1.0] * 1000,
    }


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int32", "bool"])
def test_every_number_is_read(tmp_path, dtype):
    path = saved(tmp_path / "a", variables=[variable([0, 1], "x", dtype), variable(1, "y", dtype)])
    with SavedModelFile(path) as arrays:
        assert arrays.dtypes == {"x": dtype, "y": dtype}
        assert arrays.shapes == {"x": (2,), "y": ()}
        for name, value in (("x", [0, 1]), ("y", 1)):
            # NumPy has no bfloat16.
            assert arrays[name].dtype == ("float32" if dtype == "bfloat16" else dtype)
            assert arrays[name].tolist() == value


def test_texts_are_refused(tmp_path):
    path = saved(tmp_path / "a", variables=[tf.Variable("a", name="x")])
    assert "stores 'x' as string; save the weights as float32" in refusal(path)


def test_a_list_with_something_else_in_it_is_refused(tmp_path):
    path = saved(tmp_path / "a", variables=[variable([1], "x"), tf.train.Checkpoint()])
    assert "its list of variables contains something else" in refusal(path)


def test_missing_values_are_refused_on_opening(small, of_tensorflow_1, tmp_path):
    values = of_tensorflow_1 / "variables/variables.data-00000-of-00001"
    values.write_bytes(values.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="beyond the end of their file"):
        SavedModelFile(of_tensorflow_1)
    shutil.copytree(small, tmp_path / "a")
    (tmp_path / "a/variables/variables.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match="is damaged"):
        SavedModelFile(tmp_path / "a")


def test_a_changed_value_is_refused_when_it_is_read(small, tmp_path):
    shutil.copytree(small, tmp_path / "a")
    values = tmp_path / "a/variables/variables.data-00000-of-00001"
    data = bytearray(values.read_bytes())
    data[data.index(np.float32([1, 2, 3, 4]).tobytes())] ^= 1
    values.write_bytes(data)
    with SavedModelFile(tmp_path / "a") as arrays:
        with pytest.raises(CheckpointError, match=r"'conv/kernel', is damaged \(.*[Cc]hecksum"):
            arrays["conv/kernel"]
        with pytest.raises(CheckpointError, match="'conv/kernel', is damaged"):
            arrays.verify()
        assert arrays["norm/gamma"].tolist() == [5]


def test_a_footer_that_promises_gigabytes_is_refused(small, tmp_path):
    shutil.copytree(small, tmp_path / "a")
    index = tmp_path / "a/variables/variables.index"
    data = index.read_bytes()
    for size in (1 << 40, 1 << 62, (1 << 64) - 1):
        numbers = b"".join(map(_varint, (0, 8, 0, size))).ljust(40, b"\0")
        index.write_bytes(data[:-48] + numbers + data[-8:])
        assert "is damaged" in refusal(tmp_path / "a")


def _varint(number):
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, number)


def test_what_is_not_a_saved_model_is_named(small, tmp_path):
    assert "is not a SavedModel with variables" in refusal(tmp_path)
    assert "is not a SavedModel with variables" in refusal(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"nothing")
    assert "is not a SavedModel with variables" in refusal(tmp_path / "file")
    shutil.copytree(small, tmp_path / "a")
    (tmp_path / "a/variables/variables.index").write_bytes(b"")
    assert "is damaged" in refusal(tmp_path / "a")
    # A folder of checkpoints of this name would be looked through for the latest one.
    (tmp_path / "a/variables/variables").mkdir()
    assert "is damaged" in refusal(tmp_path / "a")
