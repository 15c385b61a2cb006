"""The demo does what the README says of it."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="It exports a SavedModel.")
def test_demo_prints_a_table_and_writes_a_picture(tmp_path):
    process = subprocess.run(
        [sys.executable, ROOT / "demo" / "run.py", tmp_path / "output"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    rows = [line.split()[0] for line in process.stdout.splitlines() if ".jpg" in line]
    samples = sorted((ROOT / "demo" / "images").glob("*.jpg"))
    assert rows == [path.name for path in samples]
    # The network has learnt: of ten classes a guess would hit one.
    assert int(re.search(r"(\d+) of 10 are correct", process.stdout).group(1)) >= 7
    with Image.open(tmp_path / "output" / "predictions.png") as image:
        assert image.size == (1000, 1000)
    assert (tmp_path / "output" / "bit_tiny.cifar10" / "saved_model.pb").exists()
