"""The trained network, and images to calibrate it with, made once for all tests of a process."""

import numpy as np
import pytest

from bit_keras.models import create_classifier
from bit_keras.preprocessing import eval_transform
from tests.cifar10 import cifar10_images

NAME = "bit_tiny.cifar10"


@pytest.fixture(scope="session")
def trained():
    return create_classifier(NAME)


@pytest.fixture(scope="session")
def calibration():
    """Other images than those that are classified, where there are more than the samples."""
    transform = eval_transform(NAME)
    pixels, _ = cifar10_images(40)
    return np.stack([transform(np.rint((image + 1) * 127.5).astype("uint8")) for image in pixels])
