"""Folding: the same function, without weight standardisation at run time."""

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.layers import StdConv2D
from bit_keras.models import (
    create_classifier,
    create_feature_extractor,
    create_feature_maps,
    fold_weight_standardization,
)
from bit_keras.models.folding import leaf_layers

#: What standardising in one graph and in another may differ by in float32.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 64, 48, 3)).astype("float32")


def answers(model, images):
    return [
        keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(model.predict_on_batch(images))
    ]


def assert_same_function(model, folded, images):
    for want, got in zip(answers(model, images), answers(folded, images), strict=True):
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.mark.parametrize(
    "build", [create_classifier, create_feature_extractor, create_feature_maps]
)
def test_every_builder_gives_what_folds(build, images):
    model = build("bit_tiny.cifar10")
    folded = fold_weight_standardization(model)
    assert not any(isinstance(layer, StdConv2D) for layer in leaf_layers(folded))
    assert_same_function(model, folded, images)


def test_names_and_weights_stay(images):
    model = create_classifier("bit_tiny.cifar10")
    before = [weight.copy() for weight in model.get_weights()]
    folded = bit_keras.fold_weight_standardization(model)
    assert folded.name == model.name
    assert [w.path for w in folded.weights] == [w.path for w in model.weights]
    assert folded.get_layer("block2").get_layer("block2_unit01_conv2").use_bias is False
    # The folded network has weights of its own.
    folded.set_weights([0 * weight for weight in folded.get_weights()])
    for weight, old in zip(model.get_weights(), before, strict=True):
        assert np.array_equal(weight, old)


def test_a_network_inside_a_model_of_ones_own_folds(images):
    body = create_feature_extractor("bit_tiny.cifar10")
    own = keras.layers.Dense(3, name="own")
    model = keras.Sequential([keras.Input((64, 48, 3)), body, own])
    folded = fold_weight_standardization(model)
    assert_same_function(model, folded, images)
    assert type(folded.layers[0].get_layer("stem_conv")) is keras.layers.Conv2D


def test_a_bias_stays():
    inputs = keras.Input((8, 8, 3))
    layer = StdConv2D(4, 3, use_bias=True, bias_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    folded = fold_weight_standardization(model)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    assert_same_function(model, folded, images)


def test_a_folded_network_comes_back_from_a_file(images, tmp_path):
    folded = fold_weight_standardization(create_classifier("bit_tiny.cifar10"))
    folded.save(tmp_path / "folded.keras")
    reloaded = keras.models.load_model(tmp_path / "folded.keras")
    assert_same_function(folded, reloaded, images)


def test_standardising_a_folded_kernel_again_changes_nothing(images, tmp_path):
    # So a folded network may be saved as an official file and read back.
    folded = fold_weight_standardization(create_classifier("bit_tiny.cifar10"))
    bit_keras.save_weights(folded, tmp_path / "folded.npz")
    model = create_classifier("bit_tiny.cifar10", weights=tmp_path / "folded.npz")
    assert_same_function(folded, model, images)
