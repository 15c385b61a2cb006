"""Networks of any architecture with every named feature as an output, and their comparison."""

import dataclasses

import keras
import numpy as np

from bit_keras.checkpoints.transfer import ModelArrays
from bit_keras.models.resnet_v2 import feature_maps

CLASSES = 5


def narrow(architecture):
    """An eighth of the channels (and for R*x1 of the groups), the full depth and width factor."""
    return dataclasses.replace(architecture, base_filters=8, groups=8)


def network(architecture, classes=CLASSES):
    """A network that returns its feature maps, its pooled features and its logits."""
    inputs = keras.Input((None, None, 3))
    maps = feature_maps(inputs, architecture)
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last")
    features = pooled(maps["pre_logits_map"])
    logits = keras.layers.Dense(classes, name="head")(features)
    return keras.Model(inputs, maps | {"features": features, "logits": logits})


def fill(model, arrays):
    """Gives every weight of `model` its array, by official name."""
    target = ModelArrays(model)
    assert set(target) == set(arrays)
    for name in target:
        target.assign(name, np.asarray(arrays[name]))


def random_images(height, width, batch=2, seed=1):
    images = np.random.default_rng(seed).uniform(-1, 1, (batch, height, width, 3))
    return images.astype("float32")


def run(model, images):
    """The outputs of a model at inference."""
    if keras.backend.backend() == "jax":
        # One program, where a call would compile hundreds of small ones and take four times longer.
        return model.predict(images, verbose=0)
    return model(images, training=False)


def to_numpy(tensor):
    """A tensor of any backend and dtype as float64."""
    if keras.backend.standardize_dtype(tensor.dtype) == "bfloat16":
        tensor = keras.ops.cast(tensor, "float32")  # NumPy has no bfloat16.
    return keras.ops.convert_to_numpy(tensor).astype("float64")


def relative_errors(actual, expected):
    """By feature, the largest difference in units of the largest expected value."""
    assert actual.keys() == expected.keys()
    errors = {}
    for name in expected:
        found = to_numpy(actual[name])
        assert found.shape == expected[name].shape, name
        errors[name] = np.abs(found - expected[name]).max() / np.abs(expected[name]).max()
    return errors
