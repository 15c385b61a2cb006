"""Stem convolutions for other images than RGB and heads that keep some classes, as arrays."""

import re

import numpy as np
import pytest

from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import identify, official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.views import (
    ArraysWithChannels,
    ArraysWithClasses,
    spread_over_channels,
    standardized,
)
from bit_keras.errors import CheckpointError
from bit_keras.preprocessing import load_labels
from bit_keras.registry import ARCHITECTURES
from tests.reference import oracle

STEM = "resnet/root_block/standardized_conv2d/kernel"
PLAIN_STEM = "resnet/root_block/conv2d/kernel"
TINY = ARCHITECTURES["bit_tiny"]
KERNEL, BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"
LABELS = load_labels("cifar10")


@pytest.mark.parametrize(
    ("channels", "weights"),
    [
        (1, [111.0]),
        (2, [55.5, 55.5]),
        (3, [1.0, 10.0, 100.0]),
        (4, [0.5, 10.0, 100.0, 0.5]),
        (5, [0.5, 5.0, 100.0, 0.5, 5.0]),
        (7, [1 / 3, 5.0, 50.0, 1 / 3, 5.0, 50.0, 1 / 3]),
    ],
)
def test_channels_share_the_kernel_of_their_colour(channels, weights):
    colours = np.array([1.0, 10.0, 100.0]).reshape(1, 1, 3, 1)
    assert spread_over_channels(colours, channels).ravel().tolist() == weights


def test_the_kernel_is_the_one_that_the_layer_computes_with(tiny_arrays):
    kernel = tiny_arrays[STEM]
    expected = oracle.standardize(kernel.astype("float64"), 1e-10)
    assert standardized(kernel).dtype == np.float32
    np.testing.assert_array_equal(standardized(kernel), expected.astype("float32"))


def test_only_the_root_convolution_is_another(tiny_file, tiny_arrays):
    with open_checkpoint(tiny_file) as file, ArraysWithChannels(file, 1) as arrays:
        assert arrays.path == tiny_file
        assert arrays.shapes == official_shapes(TINY, 10, in_channels=1)
        assert list(arrays) == [name.replace(STEM, PLAIN_STEM) for name in file]
        assert identify(arrays.shapes) == TINY
        expected = oracle.standardize(tiny_arrays[STEM].astype("float64"), 1e-10)
        np.testing.assert_array_equal(
            arrays[PLAIN_STEM], expected.sum(2, keepdims=True).astype("float32")
        )
        for name in set(arrays) - {PLAIN_STEM}:
            assert arrays[name].tobytes() == tiny_arrays[name].tobytes(), name


def test_a_plain_root_convolution_is_spread_as_it_is(tmp_path):
    shapes = {PLAIN_STEM: (7, 7, 3, 8), "resnet/batch_norm/moving_mean": (8,)}
    write_npz(tmp_path / "x.npz", SeededArrays(shapes))
    with open_checkpoint(tmp_path / "x.npz") as file, ArraysWithChannels(file, 1) as arrays:
        wide = file[PLAIN_STEM].astype("float64")
        np.testing.assert_array_equal(
            arrays[PLAIN_STEM], wide.sum(2, keepdims=True).astype("float32")
        )


def test_half_precision_is_widened_before_anything_is_summed(tmp_path, tiny_arrays):
    path = tmp_path / "half.npz"
    write_npz(path, tiny_arrays, "float16")
    with open_checkpoint(path) as file, ArraysWithChannels(file, 1) as arrays:
        assert arrays.dtypes[PLAIN_STEM] == arrays[PLAIN_STEM].dtype == np.float32
        assert set(arrays.dtypes.values()) == {"float16", "float32"}
        wide = oracle.standardize(tiny_arrays[STEM].astype("f2").astype("f8"), 1e-10)
        np.testing.assert_array_equal(
            arrays[PLAIN_STEM], wide.sum(2, keepdims=True).astype("float32")
        )


def test_damage_is_found_through_the_view(tmp_path, tiny_file):
    damaged = bytearray(tiny_file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged)
    with (
        open_checkpoint(path) as file,
        ArraysWithChannels(file, 4) as arrays,
        pytest.raises(CheckpointError, match="is damaged"),
    ):
        arrays.verify()


def test_adapted_arrays_are_not_adapted_again(tiny_file):
    with (
        open_checkpoint(tiny_file) as file,
        pytest.raises(CheckpointError, match=r"made for in_channels=2 .* only files for 3"),
    ):
        ArraysWithChannels(ArraysWithChannels(file, 2), 4)


def test_rows_are_kept_in_the_requested_order(tiny_file, tiny_arrays):
    with open_checkpoint(tiny_file) as file, ArraysWithClasses(file, LABELS, [7, 0, 3]) as arrays:
        assert arrays.shapes == official_shapes(TINY, 3)
        assert list(arrays) == list(file)
        np.testing.assert_array_equal(arrays[KERNEL], tiny_arrays[KERNEL][..., [7, 0, 3]])
        np.testing.assert_array_equal(arrays[BIAS], tiny_arrays[BIAS][[7, 0, 3]])
        assert arrays[KERNEL].flags["C_CONTIGUOUS"]
        for name in set(arrays) - {KERNEL, BIAS}:
            assert arrays[name].tobytes() == tiny_arrays[name].tobytes(), name


@pytest.mark.parametrize(
    ("classes", "head"), [(5, "a head for 5 classes"), (None, "no head")], ids=str
)
def test_the_head_must_be_that_of_the_labels(tmp_path, classes, head):
    path = tmp_path / "x.npz"
    write_npz(path, SeededArrays(official_shapes(TINY, classes)))
    words = f"{path} has {head}, and classes can be selected from one for the 10 of cifar10 only"
    with (
        open_checkpoint(path) as file,
        pytest.raises(CheckpointError, match=re.escape(words)),
    ):
        ArraysWithClasses(file, LABELS, [0])
