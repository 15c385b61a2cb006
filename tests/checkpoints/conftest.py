"""One small network's arrays, for all tests of the checkpoints."""

import pytest

from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.registry import ARCHITECTURES


@pytest.fixture(scope="session")
def tiny_arrays():
    """All arrays of a bit_tiny with 10 classes, by official name."""
    return dict(SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], classes=10)))


@pytest.fixture(scope="session")
def tiny_file(tiny_arrays, tmp_path_factory):
    """The same in a file, which no test may change."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.npz"
    write_npz(path, tiny_arrays)
    return path
