"""Class activation maps: the head at every position, whose mean is the logits."""

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.errors import BitKerasError
from tests.models import networks
from tests.models.networks import random_images, to_numpy
from tests.reference import oracle
from tests.tiers import LONG_ELSEWHERE

pytestmark = LONG_ELSEWHERE

NAME = "bit_tiny.cifar10"
# Sides that stride 32 does not divide: the last positions see more of the border.
IMAGES = random_images(97, 64)

# What the design promises in float32.
FLOAT32 = 1e-5


def run(model, images):
    return to_numpy(networks.run(model, images))


def error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.fixture
def classifier(tiny_npz):
    return bit_keras.create_classifier(NAME, weights=tiny_npz)


def test_maps_equal_the_oracle_and_their_mean_is_its_logits(classifier, tiny_arrays):
    maps = run(bit_keras.create_class_maps(classifier), IMAGES)
    expected = oracle.features(IMAGES, tiny_arrays)
    kernel = np.float64(tiny_arrays["resnet/head/conv2d/kernel"])[0, 0]
    bias = np.float64(tiny_arrays["resnet/head/conv2d/bias"])
    assert maps.shape == (2, 4, 2, 10)
    assert error(maps, expected["pre_logits_map"] @ kernel + bias) < FLOAT32
    assert error(maps.mean((1, 2)), expected["logits"]) < FLOAT32


def test_an_activation_is_not_part_of_the_maps(classifier, tiny_npz):
    softmax = bit_keras.create_classifier(NAME, tiny_npz, classifier_activation="softmax")
    maps = [run(bit_keras.create_class_maps(model), IMAGES) for model in (classifier, softmax)]
    assert np.array_equal(*maps)


def test_the_classifier_stays_what_it_was(classifier):
    before, output = run(classifier, IMAGES), classifier.output
    bit_keras.create_class_maps(classifier)
    assert classifier.output is output
    assert np.array_equal(run(classifier, IMAGES), before)


def test_weights_are_shared(classifier):
    maps = bit_keras.create_class_maps(classifier)
    classifier.get_layer("head").bias.assign(np.arange(10.0))
    before = run(maps, IMAGES)
    classifier.get_layer("head").bias.assign(np.arange(10.0) + 1)
    assert error(run(maps, IMAGES), before + 1) < FLOAT32


def test_a_model_without_a_head_is_an_error():
    extractor = bit_keras.create_feature_extractor(NAME, weights=None)
    other = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)], name="other")
    for model in (extractor, other):
        with pytest.raises(BitKerasError, match=f"head.*create_classifier.*{model.name}"):
            bit_keras.create_class_maps(model)
