"""Folding: the same function, without weight standardisation at run time."""

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.errors import BitKerasError
from bit_keras.layers import StdConv2D
from bit_keras.models import (
    create_classifier,
    create_feature_extractor,
    create_feature_maps,
    fold_weight_standardization,
)
from bit_keras.models.folding import leaf_layers
from tests.tiers import LONG_ELSEWHERE

pytestmark = LONG_ELSEWHERE

#: What standardising in one graph and in another may differ by in float32.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 64, 48, 3)).astype("float32")


def outputs(model, images):
    return [
        keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(model.predict_on_batch(images))
    ]


def assert_same_function(model, folded, images):
    for want, got in zip(outputs(model, images), outputs(folded, images), strict=True):
        assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_network_inside_another_model_folds(images):
    body = create_feature_extractor("bit_tiny.cifar10")
    own = keras.layers.Dense(3, name="own")
    model = keras.Sequential([keras.Input((64, 48, 3)), body, own])
    folded = fold_weight_standardization(model)
    assert_same_function(model, folded, images)
    assert type(folded.layers[0].get_layer("stem_conv")) is keras.layers.Conv2D


def around(*layers, shape=(16, 16, 3)):
    """A small model with a standardised convolution between other layers."""
    first, *others = layers
    convolution = StdConv2D(4, 3, name="conv", kernel_initializer="random_normal")
    # Not the mean, in which the outputs nearly cancel.
    pool = keras.layers.GlobalMaxPooling2D()
    return keras.Sequential([keras.Input(shape), first, convolution, *others, pool])


def small_images(*shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype("float32")


def standardised(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, StdConv2D)]


def randomize(layer, *names):
    generator = np.random.default_rng(2)
    for name in names:
        weight = getattr(layer, name)
        weight.assign(generator.normal(size=weight.shape))


def test_state_that_is_not_a_weight_is_copied():
    normalization = keras.layers.Normalization()
    model = around(normalization)
    normalization.adapt(3 + 2 * small_images(8, 16, 16, 3))
    images = small_images(2, 16, 16, 3)
    assert_same_function(model, fold_weight_standardization(model), images)


def test_lora_counts_once():
    head, images = keras.layers.Dense(5, name="own"), small_images(2, 16, 16, 3)
    model = around(keras.layers.Identity(), head)
    model.get_layer("conv").enable_lora(2)
    head.enable_lora(2)
    for layer in (model.get_layer("conv"), head):
        randomize(layer, "lora_kernel_a", "lora_kernel_b")
    folded = fold_weight_standardization(model)
    assert type(folded.get_layer("conv")) is keras.layers.Conv2D
    assert_same_function(model, folded, images)


@keras.saving.register_keras_serializable("test_folding")
class Around(keras.layers.Layer):
    """A custom layer that wraps another one."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)

    def compute_output_shape(self, input_shape):
        return self.inner.compute_output_shape(input_shape)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, **config)


def random_convolution():
    return StdConv2D(3, 3, padding="same", name="inner", kernel_initializer="random_normal")


@pytest.mark.parametrize(
    ("wrapped", "shape"),
    [
        (lambda: keras.layers.TimeDistributed(random_convolution()), (2, 16, 16, 3)),
        (lambda: Around(random_convolution()), (16, 16, 3)),
        (lambda: keras.layers.TimeDistributed(Around(random_convolution())), (2, 16, 16, 3)),
        (
            lambda: Around(keras.Sequential([keras.Input((16, 16, 3)), random_convolution()])),
            (16, 16, 3),
        ),
    ],
    ids=["wrapper", "own layer", "both", "model in own layer"],
)
def test_convolutions_inside_of_other_layers_fold(wrapped, shape):
    model = keras.Sequential([keras.Input(shape), wrapped(), keras.layers.Flatten()])
    assert len(standardised(model)) == 1
    folded = fold_weight_standardization(model)
    assert standardised(folded) == []
    assert_same_function(model, folded, small_images(2, *shape))


@pytest.mark.slow
def test_a_network_in_a_wrapper_folds():
    body = create_feature_extractor("bit_tiny.cifar10")
    model = keras.Sequential([keras.Input((2, 32, 32, 3)), keras.layers.TimeDistributed(body)])
    folded = fold_weight_standardization(model)
    assert standardised(folded) == []
    assert_same_function(model, folded, small_images(2, 2, 32, 32, 3))


@pytest.mark.slow
def test_other_layers_stay_what_they_are():
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((16, 16, 3))
    x = StdConv2D(4, 3, name="conv", kernel_initializer="random_normal")(inputs)
    x = keras.layers.Lambda(lambda x: 2 * x, name="doubled")(x)
    x = shared(shared(x))
    x = keras.layers.BatchNormalization(name="norm", trainable=False)(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    quantized = keras.layers.Dense(4, name="quantized")
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(quantized(x)))
    quantized.quantize("int8")
    randomize(model.get_layer("norm"), "moving_mean", "gamma")
    folded = fold_weight_standardization(model)
    assert_same_function(model, folded, small_images(2, 16, 16, 3))
    assert [layer.trainable for layer in folded.layers] == [x.trainable for x in model.layers]
    assert [weight.dtype for weight in folded.weights] == [w.dtype for w in model.weights]
    dropout = [each.get_layer("dropout").variables[0] for each in (model, folded)]
    assert len({keras.ops.convert_to_numpy(state).tobytes() for state in dropout}) == 1


@keras.saving.register_keras_serializable("test_folding")
class Making(keras.layers.Layer):
    """A layer that creates a standardised convolution that is not in its configuration."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = StdConv2D(3, 3, name="hidden")

    def build(self, input_shape):
        self.hidden.build(input_shape)

    def call(self, inputs):
        return self.hidden(inputs)

    def compute_output_shape(self, input_shape):
        return self.hidden.compute_output_shape(input_shape)


@keras.saving.register_keras_serializable("test_folding")
class Shifting(keras.layers.Layer):
    """A layer with a state that nothing saves."""

    shift = 0.0

    def call(self, inputs):
        return inputs + self.shift


class Unnamed(keras.layers.Layer):
    """A layer that its configuration does not describe."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = lambda x: factor * x

    def call(self, inputs):
        return self.factor(inputs)

    def get_config(self):
        return {"name": self.name}


class Other(StdConv2D):
    """A convolution that may do anything to its kernel."""


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: Making(name="making"), "making"),
        (lambda: Shifting(name="shifting"), "shifting"),
        (lambda: Unnamed(2.0, name="unnamed"), "unnamed"),
        (lambda: Other(3, 3, name="other"), "other"),
        (lambda: keras.layers.TimeDistributed(Making(), name="outer"), "outer"),
    ],
)
def test_what_cannot_be_folded_is_named(layer, name):
    shape = (2, 16, 16, 3) if name == "outer" else (16, 16, 3)
    layer = layer()
    model = keras.Sequential([keras.Input(shape), layer, keras.layers.Flatten()])
    if isinstance(layer, Shifting):
        layer.shift = 1.0
    with pytest.raises(BitKerasError, match=f"{name!r}"):
        fold_weight_standardization(model)


def test_models_without_a_graph_are_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(BitKerasError, match="not a Functional or Sequential model"):
        fold_weight_standardization(Own(name="own"))


def test_a_bias_stays():
    inputs = keras.Input((8, 8, 3))
    layer = StdConv2D(4, 3, use_bias=True, bias_initializer="ones")
    model = keras.Model(inputs, layer(inputs))
    folded = fold_weight_standardization(model)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    assert_same_function(model, folded, images)


@pytest.mark.slow
def test_a_folded_network_comes_back_from_a_file(images, tmp_path):
    folded = fold_weight_standardization(create_classifier("bit_tiny.cifar10"))
    folded.save(tmp_path / "folded.keras")
    reloaded = keras.models.load_model(tmp_path / "folded.keras")
    assert_same_function(folded, reloaded, images)


@pytest.mark.slow
def test_standardising_a_folded_kernel_again_changes_nothing(images, tmp_path):
    # So a folded network may be saved as an official file and read back.
    folded = fold_weight_standardization(create_classifier("bit_tiny.cifar10"))
    bit_keras.save_weights(folded, tmp_path / "folded.npz")
    model = create_classifier("bit_tiny.cifar10", weights=tmp_path / "folded.npz")
    assert_same_function(folded, model, images)
