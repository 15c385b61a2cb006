"""Small data that a network can learn, and the options of a training of seconds."""

import contextlib
import logging

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (30, 40, 200), "green": (40, 180, 60), "red": (210, 50, 40)}


def _coloured(count, seed=0):
    """`count` noisy images of 32 pixels, in turn blue, green and red, and their labels."""
    generator = np.random.default_rng(seed)
    labels = [list(COLOURS)[index % 3] for index in range(count)]
    noise = generator.normal(0, 60, (count, 32, 32, 3))
    pixels = np.stack([COLOURS[label] for label in labels])[:, None, None] + noise
    return np.clip(pixels, 0, 255).astype("uint8"), labels


@pytest.fixture(scope="session")
def coloured():
    """A function that generates a number of images with labels."""
    return _coloured


@pytest.fixture(scope="session")
def colours():
    """60 images and their labels, as data for `finetune`."""
    return _coloured(60)


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory):
    """The same images as PNG files in class folders."""
    root = tmp_path_factory.mktemp("data") / "colours"
    for index, (image, label) in enumerate(zip(*_coloured(60), strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / label / f"{index:03d}.png")
    return root


@contextlib.contextmanager
def kept_log():
    """The lines of the package's log, while the context lasts."""
    lines = []

    class Keeping(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("bit_keras"), Keeping()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def log_lines():
    """The lines of the package's log while a test runs."""
    with kept_log() as lines:
        yield lines
