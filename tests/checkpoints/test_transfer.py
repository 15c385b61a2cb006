"""Weights into networks and back: everything fits, or nothing changes."""

import logging
import zipfile

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import (
    fill_with_seeded_values,
    load_weights,
    open_checkpoint,
    save_weights,
)
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.transfer import ModelArrays, require_known
from bit_keras.errors import BitKerasError, CheckpointError
from bit_keras.models.builders import network_of_file
from bit_keras.registry import ARCHITECTURES

TINY = "bit_tiny.cifar10"
BETA = "resnet/block2/unit01/c/group_norm/beta"
STEM = "resnet/root_block/standardized_conv2d/kernel"
HEAD = ("resnet/head/conv2d/kernel", "resnet/head/conv2d/bias")


@pytest.fixture(scope="module")
def network():
    return bit_keras.create_classifier(TINY, weights=None)


@pytest.fixture
def classifier(network):
    """A network with values that are not those of `tiny_arrays`."""
    fill_with_seeded_values(network, seed=1)
    return network


@pytest.fixture(scope="module")
def extractor():
    return bit_keras.create_feature_extractor(TINY, weights=None)


def values_of(model):
    return {name: np.array(array) for name, array in ModelArrays(model).items()}


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, array in found.items():
        assert array.shape == expected[name].shape, name
        assert array.dtype == np.float32, name
        assert array.tobytes() == expected[name].tobytes(), name


def without_head(arrays):
    return {name: array for name, array in arrays.items() if name not in HEAD}


def refusal(model, path):
    """The message with which a file is refused; the model must keep its weights."""
    before = values_of(model)
    with pytest.raises(CheckpointError) as raised:
        load_weights(model, path)
    assert_equal(values_of(model), before)
    return str(raised.value)


@pytest.fixture
def write(tmp_path):
    def writer(arrays, name="x.npz"):
        write_npz(tmp_path / name, arrays)
        return tmp_path / name

    return writer


def test_saving_writes_the_file_that_was_loaded(classifier, tiny_file, tmp_path):
    load_weights(classifier, str(tiny_file))
    save_weights(classifier, str(tmp_path / "saved.npz"))
    assert (tmp_path / "saved.npz").read_bytes() == tiny_file.read_bytes()


@pytest.mark.slow
def test_loaded_values_reach_the_output(tiny_file):
    model = bit_keras.create_classifier(TINY, weights=tiny_file)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    logits = model.predict(images, verbose=0)
    fill_with_seeded_values(model, seed=1)
    others = model.predict(images, verbose=0)
    load_weights(model, tiny_file)
    again = model.predict(images, verbose=0)
    assert np.array_equal(logits, again)
    assert np.abs(logits - others).max() > 0.1


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_floats_of_any_width_and_byte_order_are_loaded(classifier, tiny_arrays, write, dtype):
    stored = {name: array.astype(dtype) for name, array in tiny_arrays.items()}
    load_weights(classifier, write(stored))
    assert_equal(values_of(classifier), {n: a.astype("float32") for n, a in stored.items()})


def test_all_three_differences_are_listed_in_one_message(classifier, tiny_arrays, write):
    changed = tiny_arrays | {STEM: np.zeros((7, 7, 3, 64), "f4"), "resnet/x": np.zeros(1, "f4")}
    del changed[BETA]
    path = write(changed)
    assert refusal(classifier, path) == (
        f"{path} does not fit bit_tiny.cifar10: 1 arrays are missing, 1 unexpected, 1 misshapen. "
        "The file is not a network of the registry.\n"
        "  - missing     resnet/block2/unit01/c/group_norm/beta (64,)\n"
        "  + unexpected  resnet/x (1,)\n"
        "  ~ misshapen   resnet/root_block/standardized_conv2d/kernel (7, 7, 3, 64) in the file, "
        "(7, 7, 3, 32) in the network"
    )


@pytest.mark.parametrize("name", ["bit_r50x1", "resnetv2_50"])
def test_another_architecture_is_named(classifier, tmp_path, name):
    shapes = official_shapes(ARCHITECTURES[name], 10)
    path = tmp_path / "other.npz"
    np.savez_compressed(path, **{key: np.zeros(shape, "f2") for key, shape in shapes.items()})
    message = refusal(classifier, path)
    assert f"The file is a {name} with 10 classes." in message
    lines = message.splitlines()
    assert len(lines) == 1 + 12 + 1
    assert lines[-1].startswith("  and ")
    assert lines[-1].endswith(" more")


@pytest.fixture
def five_classes(write):
    return write(SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], 5)), "five.npz")


def test_another_number_of_classes_gets_advice(classifier, five_classes):
    assert refusal(classifier, five_classes) == (
        f"{five_classes} does not fit bit_tiny.cifar10: 0 arrays are missing, 0 unexpected, 2 "
        "misshapen. Its head has 5 classes and the network's 10: take the model name that the "
        "file belongs to, or replace the head with `num_classes=`.\n"
        "  ~ misshapen   resnet/head/conv2d/kernel (1, 1, 1024, 5) in the file, (1, 1, 1024, 10) "
        "in the network\n"
        "  ~ misshapen   resnet/head/conv2d/bias (5,) in the file, (10,) in the network"
    )


def test_the_advice_helps(five_classes, caplog):
    with caplog.at_level(logging.INFO, logger="bit_keras"):
        model = bit_keras.create_classifier(TINY, weights=five_classes, num_classes=10)
    with open_checkpoint(five_classes) as arrays:
        assert_equal(without_head(values_of(model)), without_head(arrays))
    assert not any(values_of(model)[name].any() for name in HEAD)
    assert caplog.messages == [
        f"{TINY}: a new head for 10 classes, all zero, replaces the one for 5."
    ]


def test_a_file_without_a_head_gets_advice(classifier, tiny_arrays, write):
    path = write(without_head(tiny_arrays))
    first, *lines = refusal(classifier, path).splitlines()
    assert first.endswith(
        "It has no head: build a feature extractor, or give the network a new head with "
        "`num_classes=`."
    )
    assert lines == [
        "  - missing     resnet/head/conv2d/kernel (1, 1, 1024, 10)",
        "  - missing     resnet/head/conv2d/bias (10,)",
    ]


@pytest.mark.parametrize(
    "build", [bit_keras.create_feature_extractor, bit_keras.create_feature_maps]
)
def test_networks_without_a_head_leave_it_out_and_log_it(build, tiny_file, tiny_arrays, caplog):
    with caplog.at_level(logging.INFO, logger="bit_keras"):
        model = build(TINY, weights=tiny_file)
    assert_equal(values_of(model), without_head(tiny_arrays))
    assert caplog.messages == ["tiny.npz: its head for 10 classes is skipped."]


def test_a_classifier_logs_nothing(classifier, tiny_file, caplog):
    with caplog.at_level(logging.INFO, logger="bit_keras"):
        load_weights(classifier, tiny_file)
    assert caplog.messages == []


def test_nothing_but_the_head_is_skipped(extractor, tiny_arrays, write):
    path = write(tiny_arrays | {"resnet/headless/bias": np.zeros(1, "f4")})
    assert "+ unexpected  resnet/headless/bias (1,)" in refusal(extractor, path)


# The last large array that is assigned, and the last one in the file; opening reads their
# first 10,000 bytes, so that the damage shows later.
@pytest.mark.parametrize("name", [HEAD[0], STEM])
def test_a_damaged_last_array_changes_no_weight(classifier, tiny_file, tmp_path, name):
    damaged = bytearray(tiny_file.read_bytes())
    with zipfile.ZipFile(tiny_file) as archive:
        member = archive.getinfo(f"{name}.npy")
    end = member.header_offset + 30 + len(member.filename) + member.file_size
    damaged[end - 1] ^= 1
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    assert refusal(classifier, path) == (
        f"{path}, array {name!r}, is damaged (Bad CRC-32 for file {name + '.npy'!r}). "
        "Download it again."
    )


def test_a_network_inside_another_model_is_loaded_and_saved(
    extractor, tiny_file, tiny_arrays, tmp_path
):
    fill_with_seeded_values(extractor, seed=1)
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.RandomFlip(), extractor])
    load_weights(model, tiny_file)
    assert_equal(values_of(extractor), without_head(tiny_arrays))
    save_weights(model, tmp_path / "saved.npz")
    with open_checkpoint(tmp_path / "saved.npz") as arrays:
        assert_equal(arrays, without_head(tiny_arrays))


def test_layers_of_others_are_refused_and_write_nothing(extractor, tmp_path):
    model = keras.Sequential(
        [keras.Input((64, 64, 3)), extractor, keras.layers.Dense(3, name="classes")], name="mine"
    )
    with pytest.raises(CheckpointError) as raised:
        save_weights(model, tmp_path / "x.npz")
    assert str(raised.value) == (
        "The model 'mine' has weights that no official name exists for: mine/classes/kernel, "
        "mine/classes/bias. Save it as .keras, or save the BiT network inside it."
    )
    assert list(tmp_path.iterdir()) == []


def test_two_networks_in_one_model_are_refused(network, extractor, tiny_file, tmp_path):
    inputs = keras.Input((64, 64, 3))
    inner = keras.Sequential([extractor], name="inner")
    model = keras.Model(inputs, [network(inputs), inner(inputs)], name="pair")
    words = "The model 'pair' contains two layers of the same name"
    with pytest.raises(CheckpointError, match=words):
        save_weights(model, tmp_path / "x.npz")
    with pytest.raises(CheckpointError, match=words):
        load_weights(model, tiny_file)


def test_an_unknown_format_is_refused(classifier, tmp_path):
    with pytest.raises(CheckpointError, match="The format 'hdf5' is unknown; npz, flax, timm, "):
        save_weights(classifier, tmp_path / "x.npz", format="hdf5")
    assert list(tmp_path.iterdir()) == []


def test_saving_into_a_missing_folder_is_refused(classifier, tmp_path):
    with pytest.raises(BitKerasError, match="absent does not exist; create it first"):
        save_weights(classifier, tmp_path / "absent" / "x.npz")


@pytest.mark.parametrize(
    ("stem", "classes", "name"),
    [
        ("bit_tiny.cifar10", 10, "bit_tiny.cifar10"),
        ("bit_tiny.cifar10", 5, "bit_tiny"),
        ("bit_tiny.cifar10", None, "bit_tiny.cifar10"),
        ("BiT-M-R50x1-ILSVRC2012", 10, "bit_tiny"),
        ("my weights", 10, "bit_tiny"),
    ],
)
def test_a_file_becomes_the_network_in_it(write, stem, classes, name):
    arrays = SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], classes))
    model = network_of_file(write(arrays, f"{stem}.npz"))
    assert model.name == name
    assert model.output_shape == (None, classes or 1024)
    assert_equal(values_of(model), dict(arrays))


def test_a_file_of_no_network_is_refused(write):
    path = write({"resnet/group_norm/beta": np.zeros(3, "f4")})
    message = "is not a network of the registry, by the names and shapes of its 1 arrays"
    with pytest.raises(CheckpointError, match=message):
        network_of_file(path)
    with open_checkpoint(path) as arrays, pytest.raises(CheckpointError, match=message):
        require_known(arrays)


@pytest.mark.parametrize(
    ("architecture", "name", "first", "total", "squares"),
    [
        ("bit_tiny", STEM, -0.10493604, -7.9117877, 62.345026),
        ("bit_tiny", "resnet/block1/unit01/c/group_norm/gamma", 0.23784849, 7.8743995, 1.9534518),
        ("bit_tiny", "resnet/group_norm/gamma", 1.0114288, 1022.7259776, 1032.5196514),
        ("bit_tiny", "resnet/group_norm/beta", 0.092969097, -1.2594126, 10.939717),
        ("bit_tiny", "resnet/head/conv2d/kernel", -0.034550339, -6.7481426, 20.300959),
        ("resnetv2_50", "resnet/batch_norm/moving_variance", 1.1009569, 2062.6196, None),
    ],
)
def test_seeded_values_are_the_same_everywhere(architecture, name, first, total, squares):
    array = SeededArrays(official_shapes(ARCHITECTURES[architecture], 10))[name]
    assert array.dtype == np.float32
    wide = array.astype("float64")
    assert wide.ravel()[0] == pytest.approx(first, rel=1e-6)
    assert wide.sum() == pytest.approx(total, rel=1e-5)
    if squares is not None:
        assert (wide**2).sum() == pytest.approx(squares, rel=1e-6)


def test_seeded_values_depend_on_name_and_seed_only():
    shapes = official_shapes(ARCHITECTURES["bit_tiny"], 10)
    single = SeededArrays({BETA: shapes[BETA]})[BETA]
    backwards = {name: SeededArrays(shapes)[name] for name in reversed(shapes)}
    assert np.array_equal(backwards[BETA], single)
    assert not np.array_equal(SeededArrays(shapes, seed=1)[BETA], single)
    assert not np.array_equal(backwards[BETA.replace("block2", "block1")][:32], single[:32])


def test_filling_a_network_equals_loading_the_same_values(classifier, tiny_arrays):
    fill_with_seeded_values(classifier)
    assert_equal(values_of(classifier), tiny_arrays)
