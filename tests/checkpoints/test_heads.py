"""Heads that keep some of their classes, as arrays."""

import re

import numpy as np
import pytest

from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.heads import ArraysWithClasses
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.errors import CheckpointError
from bit_keras.preprocessing import load_labels
from bit_keras.registry import ARCHITECTURES

KERNEL, BIAS = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"
TINY = ARCHITECTURES["bit_tiny"]
LABELS = load_labels("cifar10")


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
