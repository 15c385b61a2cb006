"""What every public layer has to do, whatever it computes."""

import inspect

import keras
import numpy as np
import pytest

from bit_keras import layers
from tests.layers.gradients import gradients

LAYERS = {
    name: each
    for name, each in vars(layers).items()
    if isinstance(each, type) and issubclass(each, keras.layers.Layer)
}

#: Values for the arguments of the layers, by name; none is a default.
ARGUMENTS = {"filters": 6, "kernel_size": (3, 2), "groups": 3, "epsilon": 1e-3}

#: Arguments that a layer passes on to Keras.
FORMS = {
    "StdConv2D": [
        {"use_bias": False},
        {"strides": 2},
        {"padding": "same", "strides": 2},
        {"dilation_rate": 2, "groups": 2},
    ]
}

CASES = [(name, form) for name in LAYERS for form in ({}, *FORMS.get(name, ()))]

every_layer = pytest.mark.parametrize("name", LAYERS)
every_form = pytest.mark.parametrize(("name", "form"), CASES, ids=str)

IMAGES = np.random.default_rng(0).normal(1, 2, (2, 9, 8, 12)).astype("float32")


def own_arguments(name):
    """Values for the arguments that the layer's class names; an unknown one is a KeyError."""
    parameters = inspect.signature(LAYERS[name]).parameters.values()
    return {each.name: ARGUMENTS[each.name] for each in parameters if each.kind != each.VAR_KEYWORD}


def layer_of(name, form=None, **arguments):
    return LAYERS[name](**own_arguments(name), **form or {}, **arguments)


def randomize(layer):
    generator = np.random.default_rng(2)
    layer.set_weights([generator.normal(size=weight.shape) for weight in layer.weights])


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32"))


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


@every_form
def test_its_config_makes_it_again_and_building_does_not_change_the_config(name, form):
    layer = layer_of(name, form, dtype="mixed_bfloat16")
    config = layer.get_config()
    arguments = own_arguments(name) | form
    assert arguments.keys() <= config.keys()
    assert all(config[key] in (value, (value, value)) for key, value in arguments.items())
    assert LAYERS[name].from_config(config).get_config() == config
    layer(IMAGES)
    assert layer.get_config() == config


@every_layer
@pytest.mark.parametrize(
    "policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]
)
def test_policies_decide_its_dtypes_and_a_keras_file_keeps_its_outputs(name, policy, tmp_path):
    layer = layer_of(name, dtype=policy)
    inputs = keras.Input((None, None, IMAGES.shape[-1]))
    model = keras.Model(inputs, layer(inputs))
    randomize(layer)
    assert model.output.dtype == dtype_of(layer(IMAGES)) == layer.compute_dtype
    assert {weight.dtype for weight in layer.weights} == {layer.variable_dtype}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[-1].get_config() == layer.get_config()
    np.testing.assert_array_equal(to_numpy(again(IMAGES)), to_numpy(model(IMAGES)))


@every_form
def test_its_shape_is_the_same_computed_symbolic_eager_and_compiled(name, form):
    layer = layer_of(name, form)
    inputs = keras.Input(batch_shape=IMAGES.shape)
    symbolic, eager = layer(inputs), layer(IMAGES)
    assert layer.compute_output_shape(IMAGES.shape) == symbolic.shape == tuple(eager.shape)
    compiled = keras.Model(inputs, symbolic).predict(IMAGES, verbose=0)
    # The same float32 sums, perhaps in another order.
    np.testing.assert_allclose(compiled, to_numpy(eager), rtol=1e-5, atol=1e-5)
    assert layer(keras.Input((None, None, 12))).shape == (None, None, None, eager.shape[-1])


@every_form
def test_gradients_of_its_weights_and_inputs_are_finite(name, form):
    layer = layer_of(name, form)
    shape = layer.compute_output_shape(IMAGES.shape)
    cotangent = np.random.default_rng(1).normal(size=shape).astype("float32")
    found = gradients(layer, IMAGES, cotangent)
    assert set(found) == {weight.name for weight in layer.trainable_weights} | {"inputs"}
    for gradient in found.values():
        assert np.isfinite(gradient).all() and gradient.any()


@every_layer
def test_a_seed_decides_its_weights_and_training_does_not_change_its_outputs(name):
    built = []
    for _ in range(2):
        keras.utils.set_random_seed(7)
        built.append(layer_of(name))
        built[-1].build(IMAGES.shape)
    for first, second in zip(*(layer.weights for layer in built), strict=True):
        np.testing.assert_array_equal(to_numpy(first), to_numpy(second))
    outputs = [to_numpy(layer(IMAGES)) for layer in built]
    np.testing.assert_array_equal(*outputs)
    model = keras.Sequential([keras.Input(IMAGES.shape[1:]), built[0]])
    np.testing.assert_array_equal(to_numpy(model(IMAGES, training=True)), outputs[0])


@every_layer
def test_the_image_data_format_is_an_argument_or_changes_nothing(name, channels_first):
    layer = layer_of(name, {"data_format": "channels_last"} if takes_data_format(name) else {})
    layer.build(IMAGES.shape)
    randomize(layer)
    expected = to_numpy(layer(IMAGES))
    assert expected.shape == layer.compute_output_shape(IMAGES.shape)
    if takes_data_format(name):
        turned = layer_of(name)
        turned.build((2, 12, 9, 8))
        turned.set_weights(layer.get_weights())
        assert turned.compute_output_shape((2, 12, 9, 8)) == expected.transpose(0, 3, 1, 2).shape
        np.testing.assert_allclose(
            to_numpy(turned(IMAGES.transpose(0, 3, 1, 2))).transpose(0, 2, 3, 1),
            expected,
            rtol=1e-5,
            atol=1e-5,
        )


def takes_data_format(name):
    return "data_format" in layer_of(name).get_config()


@every_layer
def test_an_unknown_argument_is_an_error(name):
    with pytest.raises((TypeError, ValueError), match="gain"):
        layer_of(name, gain=True)


@every_layer
@pytest.mark.parametrize("epsilon", [0, -1e-5, float("nan")])
def test_epsilon_must_be_positive(name, epsilon):
    with pytest.raises(ValueError, match=f"`epsilon` must be positive.*epsilon={epsilon}"):
        LAYERS[name](**own_arguments(name) | {"epsilon": epsilon})
