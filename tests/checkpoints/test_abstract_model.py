"""Models without weights, and what they leave in Keras."""

import keras
import pytest

from bit_keras import create_classifier
from bit_keras.checkpoints import load_keras_model, open_checkpoint
from bit_keras.checkpoints.abstract_model import abstract_model
from bit_keras.checkpoints.download import pretrained_path
from bit_keras.models.builders import network_without_weights
from bit_keras.registry import model_info

NAME = "bit_tiny.cifar10"


class Doubled(keras.layers.Layer):
    """A layer whose output shape Keras infers, in a scope that initialises variables."""

    def __init__(self, **options):
        super().__init__(**options)
        self.convolution = keras.layers.Conv2D(2, 1)

    def call(self, images):
        return 2 * self.convolution(images)


def infer_a_shape():
    assert Doubled()(keras.Input((8, 8, 3))).shape == (None, 8, 8, 2)


def test_variables_of_an_abstract_model_never_get_values():
    values = []

    def counted(shape, dtype=None):
        values.append(shape)
        return keras.ops.zeros(shape, dtype)

    def build():
        return keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=counted)]
        )

    assert abstract_model(build).count_params() == 15
    infer_a_shape()
    assert not values


def test_an_abstract_network_has_the_shapes_of_its_file():
    path = pretrained_path(model_info(NAME))
    with open_checkpoint(path) as arrays:
        model = network_without_weights(path, arrays)
    infer_a_shape()
    assert model.count_params() == create_classifier(NAME, weights=None).count_params()


def test_models_are_built_after_a_file_is_loaded(tmp_path):
    create_classifier(NAME, weights=None).save(tmp_path / "a.keras")
    for _ in range(2):
        load_keras_model(tmp_path / "a.keras")
        infer_a_shape()


class Halved(keras.layers.Layer):
    def call(self, images):
        return images / 2


def test_custom_objects_are_known():
    config = keras.Sequential([keras.Input((8, 8, 3)), Halved()]).get_config()
    built = abstract_model(lambda: keras.Sequential.from_config(config), {"Halved": Halved})
    assert isinstance(built.layers[0], Halved)


def test_the_dtype_policy_is_that_of_the_caller():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = abstract_model(lambda: keras.layers.Dense(3))
    finally:
        keras.config.set_dtype_policy(before)
    assert layer.compute_dtype == "bfloat16"


def test_errors_reach_the_caller():
    with pytest.raises(ValueError, match="units"):
        abstract_model(lambda: keras.layers.Dense(-1))
