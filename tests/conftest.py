"""Fixtures that several folders of tests share."""

import keras
import pytest

from bit_keras.checkpoints import SeededArrays, official_shapes, write_npz
from bit_keras.registry import ARCHITECTURES


@pytest.fixture
def dtype_policy():
    """A function that sets the global dtype policy, which the end of the test undoes."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def channels_first():
    """The other image data format, as some users set it for everything they do."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.fixture(scope="session")
def tiny_arrays():
    """The arrays in `tiny_npz`, by official name."""
    return SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], classes=10))


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory, tiny_arrays):
    """An official npz file for `bit_tiny.cifar10`, with a head that is not zero."""
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    write_npz(path, tiny_arrays)
    return path
