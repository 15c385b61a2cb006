"""The trained network in every form that is exported, made once for all tests of a process."""

import pytest

from tests.exporters.tflite.models import FORMS, SIZE


@pytest.fixture(scope="session")
def file_of_form(trained, calibration, exported):
    """A function from a form, and maybe another size, to its file."""

    def file(form, size=SIZE):
        options = dict(FORMS[form]) if size == SIZE else {"size": size, **FORMS[form]}
        every = SIZE // size
        images = calibration[:, ::every, ::every] if "int8" in form else None
        return exported(trained, "tflite", images, **options)[0]

    return file
