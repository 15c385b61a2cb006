"""Checkpoints whose arrays were tampered with: each is refused, or read exactly right.

What is done to the bytes of files is in `test_every_reader.py` and `files/`.
"""

import random

import numpy as np
import pytest

from bit_keras.checkpoints import names, open_checkpoint
from bit_keras.checkpoints.dialects import BIT_PYTORCH, FLAX, OFFICIAL, TIMM, TRANSFORMERS
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.transfer import require_known
from bit_keras.checkpoints.writing import ArraysInDialect
from bit_keras.errors import CheckpointError
from bit_keras.registry import ARCHITECTURES
from tests.checkpoints.formats import (
    THIN,
    write_npz_file,
    write_safetensors_file,
    write_torch_file,
)
from tests.checkpoints.mutations import FEW, MANY

CASES = {
    "official": (OFFICIAL, "", write_npz_file),
    "flax": (FLAX, "params/", write_npz_file),
    "timm": (TIMM, "", write_safetensors_file),
    "transformers": (TRANSFORMERS, "", write_safetensors_file),
    "bit_pytorch": (BIT_PYTORCH, "module.", write_torch_file),
}


def without_one(arrays, generator):
    del arrays[generator.choice(list(arrays))]


def with_a_foreign_one(arrays, generator):
    arrays[generator.choice(["extra", "head.weight", "resnet/x", "../../x"])] = np.zeros(
        3, "float32"
    )


def with_a_copy_under_a_similar_name(arrays, generator):
    name = generator.choice(list(arrays))
    place = generator.randrange(len(name))
    copy = name[:place] + generator.choice("012_./ x") + name[place:]
    assert copy not in arrays
    arrays[copy] = arrays[name]


def with_one_renamed(arrays, generator):
    name = generator.choice(list(arrays))
    place = generator.randrange(len(name))
    renamed = name[:place] + generator.choice("abc019_") + name[place + 1 :]
    # Under the name of another it is that one, whose values nothing tells apart.
    arrays[renamed if renamed not in arrays else f"{name}_"] = arrays.pop(name)


def with_two_of_other_shapes_swapped(arrays, generator):
    first = generator.choice(list(arrays))
    others = [name for name in arrays if arrays[name].shape != arrays[first].shape]
    second = generator.choice(others)
    arrays[first], arrays[second] = arrays[second], arrays[first]


def with_one_transposed(arrays, generator):
    candidates = [name for name in arrays if arrays[name].T.shape != arrays[name].shape]
    name = generator.choice(candidates)
    arrays[name] = np.ascontiguousarray(arrays[name].T)


def with_one_of_another_rank(arrays, generator):
    name = generator.choice(list(arrays))
    arrays[name] = arrays[name][None] if generator.random() < 0.5 else arrays[name].reshape(-1)


def with_one_cut(arrays, generator):
    name = generator.choice(list(arrays))
    arrays[name] = arrays[name][: generator.randrange(len(arrays[name]))]


def with_other_values(arrays, generator):
    name = generator.choice(list(arrays))
    arrays[name] = arrays[name].astype(generator.choice(["int32", "uint8", "bool", "complex64"]))


MUTATIONS = (
    without_one,
    with_a_foreign_one,
    with_a_copy_under_a_similar_name,
    with_one_renamed,
    with_two_of_other_shapes_swapped,
    with_one_transposed,
    with_one_of_another_rank,
    with_one_cut,
    with_other_values,
)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(names, "ARCHITECTURES", {**ARCHITECTURES, THIN.name: THIN})


@pytest.fixture(scope="module")
def expected():
    return dict(SeededArrays(official_shapes(THIN, classes=10)))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("count", [FEW // 5, pytest.param(MANY, marks=pytest.mark.full)])
def test_tampered_arrays_are_refused_or_read_exactly_right(tmp_path, expected, case, count):
    dialect, prefix, write = CASES[case]
    original = SeededArrays(official_shapes(THIN, classes=10))
    named = ArraysInDialect(original, THIN, dialect, prefix)
    named = {name: np.ascontiguousarray(array) for name, array in named.items()}
    refused = 0
    for number in range(count):
        generator = random.Random(f"{case} {number}")
        mutation, arrays = generator.choice(MUTATIONS), dict(named)
        mutation(arrays, generator)
        write(tmp_path / "x", arrays)
        try:
            with open_checkpoint(tmp_path / "x") as found:
                assert require_known(found) == THIN
                found.verify()
                read = dict(found)
        except CheckpointError as error:
            assert str(tmp_path / "x") in str(error)
            refused += 1
            continue
        what = f"{mutation.__name__} {number}"
        assert read.keys() == expected.keys(), what
        for name, array in read.items():
            assert array.tobytes() == expected[name].tobytes(), f"{what}: {name}"
    assert refused > count * 0.8
