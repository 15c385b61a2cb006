"""Where pages and examples are followed."""

import contextlib

import pytest

from tests.documentation.stage import Stage
from tests.documentation.standing import Pantry


@pytest.fixture(scope="session")
def pantry(tmp_path_factory):
    return Pantry(tmp_path_factory.mktemp("pantry"))


@pytest.fixture
def stage(pantry, tmp_path, monkeypatch):
    """An empty folder, as a reader has it who made a checkout and installed the package."""
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(pantry.weights))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # As that of a program that is there.
    with contextlib.ExitStack() as closing:
        yield Stage(tmp_path, pantry, closing)
