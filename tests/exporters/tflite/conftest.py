"""The trained network in every form that is exported, made once for all tests of a process."""

import numpy as np
import pytest

from bit_keras import export
from bit_keras.models import create_classifier
from bit_keras.preprocessing import eval_transform
from tests.cifar10 import cifar10_images
from tests.exporters.tflite.models import FORMS, NAME, SIZE


@pytest.fixture(scope="session")
def trained():
    return create_classifier(NAME)


@pytest.fixture(scope="session")
def calibration():
    """Other images than those that are classified, where there are more than the samples."""
    transform = eval_transform(NAME)
    pixels, _ = cifar10_images(40)
    return np.stack([transform(np.rint((image + 1) * 127.5).astype("uint8")) for image in pixels])


@pytest.fixture(scope="session")
def file_of_form(trained, calibration, tmp_path_factory):
    """A function from a form, and maybe another size, to its file."""
    folder, known = tmp_path_factory.mktemp("forms"), {}

    def file(form, size=SIZE):
        if (form, size) not in known:
            path = folder / f"{len(known)}.tflite"
            every = SIZE // size
            options = {"size": size, **FORMS[form]}
            if "int8" in form:
                options["calibration"] = calibration[:, ::every, ::every]
            export(trained, path, "tflite", **options)
            known[form, size] = path
        return known[form, size]

    return file
