"""Checkpoints of every format, recognised by their content."""

import hashlib
import json
import logging

import keras
import numpy as np
import pytest

from bit_keras.checkpoints import open_checkpoint, published
from bit_keras.checkpoints.dialects import FLAX, TIMM, bit_tf2_order
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import PLAIN_STEM, STEM, official_names, official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.writing import ArraysInDialect, write_checkpoint
from bit_keras.errors import CheckpointError
from bit_keras.layers.std_conv2d import EPSILON
from bit_keras.registry import ARCHITECTURES
from tests.checkpoints.formats import write_h5_file

TINY = ARCHITECTURES["bit_tiny"]
GAMMA = "resnet/block2/unit01/a/group_norm/gamma"


@pytest.fixture(scope="module")
def arrays():
    return SeededArrays(official_shapes(TINY, classes=10))


@pytest.fixture
def timm_names(arrays):
    return contiguous(ArraysInDialect(arrays, TINY, TIMM))


def contiguous(arrays):
    """What the reference implementation of safetensors writes right: it takes no views."""
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def assert_same(path, expected):
    with open_checkpoint(path) as found:
        found.verify()
        assert sorted(found) == sorted(expected)
        for name in expected:
            assert found.shapes[name] == expected[name].shape
            assert found[name].tobytes() == expected[name].tobytes(), name


def refusal(path):
    with pytest.raises(CheckpointError) as raised, open_checkpoint(path) as arrays:
        arrays.verify()
    message = str(raised.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("npz", "npz, official"),
        ("flax", "npz, flax"),
        ("timm", "safetensors, timm"),
        ("transformers", "safetensors, transformers"),
    ],
)
def test_a_checkpoint_says_what_it_is(tmp_path, arrays, format, expected):
    write_checkpoint(tmp_path / "x", arrays, format)
    with open_checkpoint(tmp_path / "x") as found:
        assert found.format == expected
        assert found.left_out == ()
        assert set(found.dtypes.values()) == {"float32"}


@pytest.mark.parametrize("format", ["npz", "timm"])
def test_networks_with_batch_norm_come_back(tmp_path, format):
    siblings = SeededArrays(official_shapes(ARCHITECTURES["resnetv2_50"], classes=3))
    write_checkpoint(tmp_path / "x", siblings, format)
    assert_same(tmp_path / "x", siblings)


@pytest.mark.parametrize("format", ["flax", "transformers"])
def test_networks_with_batch_norm_are_not_written_where_they_have_no_place(tmp_path, format):
    siblings = SeededArrays(official_shapes(ARCHITECTURES["resnetv2_50"], classes=3))
    with pytest.raises(CheckpointError, match="resnetv2_50 has BatchNorm"):
        write_checkpoint(tmp_path / "x", siblings, format)
    assert list(tmp_path.iterdir()) == []


def test_numbers_after_standardized_conv2d_are_dropped(tmp_path, arrays):
    kernel = "resnet/block1/unit01/a/{}/kernel"
    numbered = dict(arrays)
    numbered[kernel.format("standardized_conv2d_42")] = numbered.pop(
        kernel.format("standardized_conv2d")
    )
    write_npz(tmp_path / "x.npz", numbered)
    assert_same(tmp_path / "x.npz", arrays)


def test_names_that_are_one_without_their_number_are_refused(tmp_path, arrays):
    kernel = "resnet/block1/unit01/a/{}/kernel"
    twice = dict(arrays) | {kernel.format("standardized_conv2d_3"): np.zeros(3, "f4")}
    write_npz(tmp_path / "x.npz", twice)
    assert f"contains the array {kernel.format('standardized_conv2d')!r} twice" in refusal(
        tmp_path / "x.npz"
    )


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "complex64"])
def test_weights_that_are_not_floats_are_refused(tmp_path, arrays, dtype):
    write_npz(tmp_path / "x.npz", dict(arrays) | {GAMMA: np.zeros(128, dtype)})
    message = refusal(tmp_path / "x.npz")
    assert f"contains {dtype} values in {GAMMA!r}" in message
    assert "Save the arrays as float32" in message


@pytest.mark.parametrize("prefix", ["", "params/", "opt/target/"])
def test_big_vision_files_leave_the_optimizer_out_and_say_so(tmp_path, arrays, prefix, caplog):
    named = dict(ArraysInDialect(arrays, TINY, FLAX, prefix))
    optimizer = {"opt/state/step": np.int32(7), "opt/state/0/mu": np.zeros(3, "f4")}
    write_npz(tmp_path / "x.npz", named | (optimizer if prefix else {}))
    with caplog.at_level(logging.INFO, "bit_keras"):
        assert_same(tmp_path / "x.npz", arrays)
    assert ("2 arrays that are not weights are skipped" in caplog.text) == bool(prefix)
    with open_checkpoint(tmp_path / "x.npz") as found:
        assert sorted(found.left_out) == (sorted(optimizer) if prefix else [])


def test_bfloat16_in_an_npz_is_read_as_jax_wrote_it(tmp_path, arrays):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="NumPy has no bfloat16")
    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
    np.savez(tmp_path / "x.npz", **halves)
    assert_same(tmp_path / "x.npz", {name: half.astype("float32") for name, half in halves.items()})


def test_what_batch_norm_counts_in_pytorch_is_not_a_weight(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="it writes integers too")
    architecture = ARCHITECTURES["resnetv2_50"]
    siblings = SeededArrays(official_shapes(architecture, classes=3))
    named = contiguous(ArraysInDialect(siblings, architecture, TIMM))
    counts = {
        name.replace("running_mean", "num_batches_tracked"): np.array(9)
        for name in named
        if name.endswith("running_mean")
    }
    library.save_file(named | counts, tmp_path / "x.safetensors")
    assert_same(tmp_path / "x.safetensors", siblings)


def test_an_unknown_array_is_kept_under_its_name(tmp_path, arrays):
    write_npz(tmp_path / "x.npz", dict(arrays) | {"foreign": np.zeros(3, "f4")})
    with open_checkpoint(tmp_path / "x.npz") as found:
        assert found.shapes["foreign"] == (3,)


def test_a_misshapen_array_shows_its_shape_in_the_file(tmp_path, timm_names):
    library = pytest.importorskip("safetensors.numpy", reason="it writes a dictionary")
    library.save_file(timm_names | {"head.fc.weight": np.zeros((10, 1024), "f4")}, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as found:
        assert found.shapes["resnet/head/conv2d/kernel"] == (10, 1024)


def test_arrays_of_no_known_code_base_are_refused(tmp_path):
    write_npz(tmp_path / "x.npz", {"layer1/weight": np.zeros(3, "f4")})
    message = refusal(tmp_path / "x.npz")
    assert "of its 1 arrays (layer1/weight, ...) none has a name" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; a checkpoint was expected"),
        (b"# weights\n", "begins with b'# weight'"),
        (b"\x7fELF....", "is not a checkpoint of a known format"),
        (b"PK\x03\x04 and no more", "it is cut short"),
    ],
)
def test_what_is_not_a_checkpoint_is_refused(tmp_path, content, words):
    (tmp_path / "x").write_bytes(content)
    assert words in refusal(tmp_path / "x")


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path):
    assert refusal(tmp_path / "absent") == f"There is no file {tmp_path / 'absent'}."
    assert "is a folder without weights" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_type", "bottleneck"),
        ("hidden_act", "gelu"),
        ("global_padding", "SAME"),
        ("embedding_dynamic_padding", True),
        ("output_stride", 16),
        ("num_groups", 8),
    ],
)
def test_a_configuration_of_another_network_is_refused(tmp_path, arrays, key, value):
    folder = tmp_path / "model"
    write_checkpoint(folder, arrays, "transformers")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CheckpointError, match=f"says {key}={value!r}, and BiT has"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_damaged_configuration_is_refused(tmp_path, arrays, text):
    folder = tmp_path / "model"
    write_checkpoint(folder, arrays, "transformers")
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        open_checkpoint(folder)


def standardized(kernel):
    kernel = kernel.astype("float64")
    centred = kernel - kernel.mean((0, 1, 2))
    return centred / np.sqrt(kernel.var((0, 1, 2)) + EPSILON)


def test_a_standardised_root_for_one_channel_is_read_as_the_kernel_it_amounts_to(
    tmp_path, timm_names
):
    library = pytest.importorskip("safetensors.numpy", reason="it writes a dictionary")
    kernel = np.random.default_rng(1).standard_normal((32, 1, 7, 7), dtype="float32")
    library.save_file(timm_names | {"stem.conv.weight": kernel}, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as found:
        assert STEM not in found
        expected = standardized(kernel.transpose(2, 3, 1, 0))
        np.testing.assert_allclose(found[PLAIN_STEM], expected, rtol=1e-6)


def test_a_plain_root_for_one_channel_is_written_only_as_npz_and_not_standardised(tmp_path):
    grey = SeededArrays(official_shapes(TINY, classes=10, in_channels=1))
    write_checkpoint(tmp_path / "x.npz", grey, "npz")
    assert_same(tmp_path / "x.npz", grey)
    for format in ("flax", "timm", "transformers"):
        with pytest.raises(CheckpointError, match="The network takes 1 channels"):
            write_checkpoint(tmp_path / format, grey, format)


def test_a_plain_root_for_three_channels_is_not_a_bit(tmp_path, arrays):
    plain = dict(arrays)
    plain[PLAIN_STEM] = plain.pop(STEM)
    write_npz(tmp_path / "x.npz", plain)
    assert "is not standardised" in refusal(tmp_path / "x.npz")


def in_order_of_bit_tf2(arrays):
    """Arrays as `bit_tf2` has them, without names."""
    shapes = TINY.weight_shapes(10)
    official = official_names(shapes)
    return [arrays[official[path]].reshape(shape) for path, shape in bit_tf2_order(shapes).items()]


def test_an_h5_file_in_another_order_is_refused(tmp_path, arrays):
    ordered = in_order_of_bit_tf2(arrays)
    ordered[3], ordered[6] = ordered[6], ordered[3]
    write_h5_file(tmp_path / "x.h5", dict(enumerate(ordered)))
    assert "their shapes in order are not those of `bit_tf2`" in refusal(tmp_path / "x.h5")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="It writes a SavedModel.")
def test_a_saved_model_whose_names_repeat_is_read_by_the_order_of_its_variables(tmp_path, arrays):
    import tensorflow as tf

    root = tf.train.Checkpoint()
    root.variables = [tf.Variable(array, name="weight") for array in in_order_of_bit_tf2(arrays)]
    tf.saved_model.save(root, tmp_path / "model")
    assert_same(tmp_path / "model", arrays)


def test_a_published_h5_under_the_name_of_another_network_is_refused(tmp_path, monkeypatch):
    content = b"\x89HDF\r\n\x1a\n" + bytes(100)
    digest = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(published.NETWORKS, digest, "BiT-S-R50x1")
    (tmp_path / "BiT-S-R50x3.h5").write_bytes(content)
    message = refusal(tmp_path / "BiT-S-R50x3.h5")
    assert "it contains the weights of BiT-S-R50x1" in message
    assert "issue 47" in message and "Take BiT-S-R50x3.npz" in message
    # Under its own name it is read, and here refused for what it is: nothing.
    (tmp_path / "BiT-S-R50x1.h5").write_bytes(content)
    assert "not what its name says" not in refusal(tmp_path / "BiT-S-R50x1.h5")


def test_the_two_mislabelled_files_are_known():
    assert published.NETWORKS["6cf1d1e2713303309e519bcaeff83ff9"] == "BiT-S-R50x1"
    assert published.NETWORKS["e997faeec447e05d5e398303c233e4d3"] == "BiT-S-R152x4"


@pytest.mark.parametrize("format", ["hdf5", "pickle", ""])
def test_an_unknown_format_is_not_written(tmp_path, arrays, format):
    with pytest.raises(CheckpointError, match="npz, flax, timm, transformers can be written"):
        write_checkpoint(tmp_path / "x", arrays, format)
    assert list(tmp_path.iterdir()) == []


def test_arrays_of_no_network_are_written_for_nobody_else(tmp_path, arrays):
    del arrays  # The headless half of a network is none.
    half = SeededArrays({GAMMA: (128,)})
    for format in ("flax", "timm", "transformers"):
        with pytest.raises(CheckpointError, match="are not a network of the registry"):
            write_checkpoint(tmp_path / "x", half, format)
    assert list(tmp_path.iterdir()) == []
