"""The demo, from start to finish, with the package as users install it."""

import re
import shutil

import keras
import pytest
from PIL import Image

from tests.cifar10 import ROOT


@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="It exports a SavedModel.")
def test_demo_prints_a_table_and_writes_an_image(installed, tmp_path):
    shutil.copytree(ROOT / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("output"))
    printed = installed.run("demo/run.py", cwd=tmp_path)
    rows = [line.split()[0] for line in printed.splitlines() if ".jpg" in line]
    samples = sorted((ROOT / "demo" / "images").glob("*.jpg"))
    assert rows == [path.name for path in samples]
    # Of ten classes a guess would hit one.
    assert int(re.search(r"(\d+) of 10 are correct", printed).group(1)) >= 7
    with Image.open(tmp_path / "demo" / "output" / "predictions.png") as image:
        assert image.size == (1000, 1000)
    assert (tmp_path / "demo" / "output" / "bit_tiny.cifar10" / "saved_model.pb").exists()
