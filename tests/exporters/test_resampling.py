"""Resizing in the graph is the evaluation transform, bit for bit."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from bit_keras.exporters.resampling import resize_and_crop
from bit_keras.preprocessing import EvalTransform, eval_transform, load_image
from bit_keras.registry import CHECKPOINTS, Resizing
from tests.photos import needs_photos, photo_files

TRANSFORMS = [
    EvalTransform(size, Resizing(mode, side, interpolation, "this test"))
    for (size, side), mode, interpolation in itertools.product(
        # An even and an odd difference, none, and a size that is not a multiple of the bands.
        ((64, 72), (64, 75), (45, 45), (224, 256)),
        ("short_side", "squash"),
        ("bilinear", "bicubic", "area"),
    )
]

#: (height, width): smaller and larger, one side equal, thin, and a single pixel.
SHAPES = [
    (100, 150),
    (151, 99),
    (72, 300),
    (300, 72),
    (40, 30),
    (500, 33),
    (33, 700),
    (1, 1),
    (1, 90),
]


def pixels_of(transform, image):
    """The 8-bit pixels of the transform's floats."""
    return np.rint((transform(image) + 1) * 127.5).astype(np.uint8)


def in_the_graph(transform):
    spec = tf.TensorSpec((None, None, 3), tf.uint8)
    return tf.function(
        lambda image: resize_and_crop(image, transform), input_signature=[spec], autograph=False
    )


@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(t, marks=pytest.mark.slow if t.size > 45 else (), id=repr(t))
        for t in TRANSFORMS
    ],
)
def test_every_pixel_is_pillows(transform):
    resize = in_the_graph(transform)
    generator = np.random.default_rng(0)
    for shape in SHAPES:
        image = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        assert np.array_equal(resize(image), pixels_of(transform, image)), shape


def test_hard_edges_that_overshoot_are_clipped_alike():
    # Bicubic weights are negative at the sides: black next to white leaves [0, 255].
    image = np.zeros((90, 131, 3), np.uint8)
    image[::3, ::2] = 255
    transform = EvalTransform(64, Resizing("short_side", 64, "bicubic", "this test"))
    assert np.array_equal(in_the_graph(transform)(image), pixels_of(transform, image))


def published_transforms():
    names = [name for name, checkpoint in CHECKPOINTS.items() if checkpoint.resizing]
    return {eval_transform(name): None for name in names}


@pytest.mark.long
@needs_photos
@pytest.mark.parametrize("transform", published_transforms(), ids=repr)
def test_every_published_transform_gives_pillows_pixels_of_photographs(transform):
    resize = in_the_graph(transform)
    # All 64 for one transform; the others differ only in numbers.
    files = photo_files() if transform.size == 224 else photo_files()[::8]
    for path in files:
        image = np.asarray(load_image(path))
        assert np.array_equal(resize(image), pixels_of(transform, image)), path.name
