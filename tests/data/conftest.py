"""Images that a test can recognise after any crop: each of one grey value."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image


def jpeg(value, size=(40, 36)):
    """A grey image as an encoded file; JPEG keeps a constant exactly."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def encoded():
    """A function from a grey value to a JPEG file's bytes."""
    return jpeg


@pytest.fixture
def make_folder(tmp_path):
    """A function that writes files, by relative path, and returns their folder."""

    def make(files, name="images"):
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        return tmp_path / name

    return make


@pytest.fixture
def make_tar(tmp_path):
    """A function that packs files, by name, and returns the archive."""

    def make(files, name="images.tar", mode="w"):
        with tarfile.open(tmp_path / name, mode) as archive:
            for path, content in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return tmp_path / name

    return make


@pytest.fixture
def greys():
    """A function that gives `count` grey images in memory, the value being the index."""

    def make(count, classes=2):
        pixels = np.arange(count, dtype=np.uint8)[:, None, None, None]
        return np.tile(pixels, (1, 40, 36, 3)), np.arange(count) % classes

    return make
