"""GroupNorm against float64 NumPy, under every dtype policy and far from zero."""

import keras
import numpy as np
import pytest

from bit_keras.layers import GroupNorm, group_norm
from bit_keras.layers.moments import mean_and_variance
from tests.layers.gradients import central_differences, gradients, relative_error

RANDOM = np.random.default_rng(0)  # For constants; tests have generators of their own.
IMAGES = RANDOM.normal(1, 2, (2, 5, 4, 12)).astype("float32")
GAMMA = RANDOM.normal(1, 0.1, 12).astype("float32")
BETA = RANDOM.normal(0, 0.1, 12).astype("float32")

# float32 has 24 bits, 6e-8, and the values are small multiples of one.
FLOAT32 = 1e-6

# The last rounding, to 11 or 8 bits; the inputs are rounded before the comparison.
HALF_A_LAST_BIT = {
    "float32": FLOAT32,
    "mixed_float16": 1e-3,
    "mixed_bfloat16": 8e-3,
    "float16": 1e-3,
    "bfloat16": 8e-3,
}


def normalize(images, gamma, beta, groups, epsilon=1e-5):
    images = images.astype("float64")
    grouped = images.reshape(images.shape[0], -1, groups, images.shape[-1] // groups)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    variance = grouped.var(axis=(1, 3), keepdims=True)
    return ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(images.shape) * gamma + beta


def layer_with(gamma, beta, **arguments):
    """A built layer that contains these parameters."""
    layer = GroupNorm(**arguments)
    layer.build((None, None, None, len(gamma)))
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    return layer


def rounded(array, dtype):
    """The values of `array` as `dtype` contains them."""
    return keras.ops.convert_to_numpy(
        keras.ops.cast(keras.ops.cast(array, dtype), "float32")
    ).astype("float64")


# Values.


def test_constants_are_those_of_the_released_weights():
    assert (group_norm.GROUPS, group_norm.EPSILON) == (32, 1e-5)
    assert (GroupNorm().groups, GroupNorm().epsilon) == (32, 1e-5)


@pytest.mark.parametrize("groups", [1, 3, 4, 12])
@pytest.mark.parametrize("epsilon", [1e-5, 1.0])
def test_output_equals_float64_numpy(groups, epsilon):
    layer = layer_with(GAMMA, BETA, groups=groups, epsilon=epsilon)
    expected = normalize(IMAGES, GAMMA, BETA, groups, epsilon)
    assert relative_error(layer(IMAGES), expected) < FLOAT32


@pytest.mark.parametrize("shape", [(3, 12), (3, 7, 12), (2, 3, 2, 4, 12)], ids=str)
def test_inputs_of_any_rank_are_normalized_over_all_positions(shape):
    inputs = np.random.default_rng(1).normal(1, 2, shape).astype("float32")
    expected = normalize(inputs, GAMMA, BETA, groups=3)
    assert relative_error(layer_with(GAMMA, BETA, groups=3)(inputs), expected) < FLOAT32


def test_images_do_not_influence_one_another():
    layer = layer_with(GAMMA, BETA, groups=3)
    together, single = layer(IMAGES), layer(IMAGES[:1])
    # The same sums in another order, at most.
    expected = keras.ops.convert_to_numpy(single).astype("float64")
    assert relative_error(together[:1], expected) < FLOAT32


def test_equal_values_give_beta():
    layer = layer_with(GAMMA, BETA, groups=3)
    output = layer(np.full((2, 4, 4, 12), 0.5, "float32"))
    expected = np.broadcast_to(BETA.astype("float64"), (2, 4, 4, 12))
    # gamma / sqrt(epsilon) is 316, and beta is added to a difference of two such numbers.
    assert relative_error(output, expected) < 1e-3


def test_the_output_depends_on_epsilon():
    layer, small = layer_with(GAMMA, BETA, groups=3), IMAGES * np.float32(1e-3)
    assert relative_error(layer(small), normalize(small, GAMMA, BETA, 3)) < 2 * FLOAT32
    assert relative_error(layer(small), normalize(small, GAMMA, BETA, 3, 1e-6)) > 0.1


@pytest.mark.parametrize("side", [8, 32])
def test_a_mean_of_100_deviations_costs_two_digits_and_no_more(side):
    images = np.random.default_rng(1).normal(100, 1, (2, side, side, 32)).astype("float32")
    ones, zeros = np.ones(32, "float32"), np.zeros(32, "float32")
    output = layer_with(ones, zeros, groups=8)(images)
    # 100 deviations in 24 bits leave 6e-6; E[x^2] - E[x]^2 would be off by 1e-2.
    assert relative_error(output, normalize(images, ones, zeros, 8)) < 1e-4


def test_the_variance_is_right_at_a_mean_of_100_deviations():
    images = np.random.default_rng(1).normal(100, 1, (2, 32, 32, 8)).astype("float32")
    mean, variance = mean_and_variance(keras.ops.convert_to_tensor(images), axes=(1, 2))
    images = images.astype("float64")
    # A sum of 1024 values of 100, in any order; and one of squares around that mean.
    assert relative_error(mean, images.mean(axis=(1, 2), keepdims=True)) < 1e-6
    assert relative_error(variance, images.var(axis=(1, 2), keepdims=True)) < 1e-5


def test_the_difference_between_channels_of_a_group_counts():
    # Two channels that are constant each: all of the variance is between them.
    images = np.zeros((1, 4, 4, 2), "float32")
    images[..., 1] = 2.0
    output = keras.ops.convert_to_numpy(layer_with([1, 1], [0, 0], groups=1)(images))
    # Mean 1 and variance 1; epsilon takes 5e-6.
    np.testing.assert_allclose(output[0, 0, 0], [-1, 1], rtol=1e-5)


# Dtype policies.


@pytest.mark.parametrize("policy", HALF_A_LAST_BIT)
def test_every_policy_normalizes_in_float32_and_returns_its_compute_dtype(policy):
    layer = layer_with(GAMMA, BETA, groups=3, dtype=policy)
    output = layer(IMAGES)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    gamma, beta = (rounded(x, layer.variable_dtype) for x in (GAMMA, BETA))
    expected = normalize(rounded(IMAGES, layer.compute_dtype), gamma, beta, groups=3)
    assert relative_error(keras.ops.cast(output, "float32"), expected) < HALF_A_LAST_BIT[policy]


def test_values_whose_squares_overflow_float16_are_normalized():
    images = (IMAGES * 1000).astype("float32")
    layer = layer_with(GAMMA, BETA, groups=3, dtype="mixed_float16")
    expected = normalize(rounded(images, "float16"), GAMMA, BETA, groups=3)
    output = keras.ops.cast(layer(images), "float32")
    assert relative_error(output, expected) < HALF_A_LAST_BIT["mixed_float16"]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_gamma_and_beta_keep_all_their_bits_under_mixed_policies(policy):
    images = np.array([-1.0, 1.0], "float32").repeat(2).reshape(1, 1, 2, 2)
    layer = layer_with([4097, 4097], [-4096, -4096], groups=1, dtype=policy)
    output = keras.ops.convert_to_numpy(keras.ops.cast(layer(images), "float32"))
    # 4097 would be 4096 in 8 or 11 bits, and the result 0; epsilon takes 0.02 of it.
    np.testing.assert_allclose(output[0, 0, 1], [1, 1], atol=0.03)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras takes means of float64 in float32 on JAX and PyTorch (keras issue 23704)",
)
def test_the_float64_policy_computes_in_float64_throughout():
    layer = layer_with(GAMMA, BETA, groups=3, dtype="float64")
    # float64 has 53 bits, 1e-16, and the sums are short.
    assert relative_error(layer(IMAGES), normalize(IMAGES, GAMMA, BETA, 3)) < 1e-13


# Gradients.


def test_gradients_equal_differences_in_float64():
    images = IMAGES[:, :2, :3, :6]
    arguments = {"inputs": images, "gamma": GAMMA[:6], "beta": BETA[:6]}
    cotangent = np.random.default_rng(1).normal(size=images.shape).astype("float32")
    layer = layer_with(GAMMA[:6], BETA[:6], groups=3)
    found = gradients(layer, images, cotangent)
    assert set(found) == set(arguments)
    arguments = {name: array.astype("float64") for name, array in arguments.items()}

    def loss(inputs, gamma, beta):
        return np.sum(normalize(inputs, gamma, beta, groups=3) * cotangent)

    for name, array in arguments.items():
        expected = central_differences(lambda x, name=name: loss(**arguments | {name: x}), array)
        # float32, through two sums that nearly cancel.
        assert relative_error(found[name], expected) < 1e-5, name


# Mistakes.


def test_the_error_for_channels_that_groups_do_not_divide_names_an_example():
    with pytest.raises(ValueError) as caught:
        GroupNorm().build((None, 8, 8, 48))
    message = str(caught.value)
    assert "divisor" in message
    assert "48, for example 16" in message
    assert "Received: groups=32, input_shape=(None, 8, 8, 48)" in message


def test_unknown_channels_are_an_error():
    with pytest.raises(ValueError, match=r"channels.*input_shape="):
        GroupNorm()(keras.Input((8, 8, None)))


@pytest.mark.parametrize("groups", [0, -1, 2.0, "32", None])
def test_groups_must_be_a_positive_integer(groups):
    with pytest.raises(ValueError, match=f"`groups` must be a positive integer.*={groups}"):
        GroupNorm(groups=groups)
