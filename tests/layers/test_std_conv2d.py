"""StdConv2D against float64 NumPy, under every dtype policy."""

import keras
import numpy as np
import pytest

from bit_keras.layers import StdConv2D, std_conv2d
from tests.layers.gradients import central_differences, gradients, relative_error

RANDOM = np.random.default_rng(0)  # For constants; tests have generators of their own.
IMAGES = RANDOM.uniform(-1, 1, (2, 9, 8, 4)).astype("float32")
KERNEL = RANDOM.normal(0.1, 0.05, (3, 3, 4, 6)).astype("float32")

# float32 has 24 bits, 6e-8; sums of 36 products and the square root add a few more of them.
FLOAT32 = 1e-6

# A dtype of ours, by the policy that computes in it: one rounding to 11, 8 or 53 bits at the end.
HALF_A_LAST_BIT = {
    "float32": FLOAT32,
    "mixed_float16": 2e-3,
    "mixed_bfloat16": 2e-2,
    "float16": 2e-3,
    "bfloat16": 2e-2,
}


def standardize(kernel, epsilon=1e-10):
    kernel = kernel.astype("float64")
    mean, variance = kernel.mean(axis=(0, 1, 2)), kernel.var(axis=(0, 1, 2))
    return (kernel - mean) / np.sqrt(variance + epsilon)


def convolve(images, kernel, stride=1, dilation=1, groups=1):
    """A convolution without padding, one position of the kernel after the other."""
    height, width, channels, filters = kernel.shape
    rows = (images.shape[1] - (height - 1) * dilation - 1) // stride + 1
    columns = (images.shape[2] - (width - 1) * dilation - 1) // stride + 1
    total = np.zeros((images.shape[0], rows, columns, filters))
    for group in range(groups):
        inputs = images[..., group * channels : (group + 1) * channels].astype("float64")
        outputs = slice(group * filters // groups, (group + 1) * filters // groups)
        for row, column in np.ndindex(height, width):
            top, left = row * dilation, column * dilation
            bottom, right = top + stride * (rows - 1) + 1, left + stride * (columns - 1) + 1
            pixels = inputs[:, top:bottom:stride, left:right:stride]
            total[..., outputs] += pixels @ kernel[row, column, :, outputs]
    return total


def layer_with(kernel, **arguments):
    """A built layer that contains `kernel`."""
    height, width, channels, filters = kernel.shape
    layer = StdConv2D(filters, (height, width), use_bias=False, **arguments)
    layer.build((None, None, None, channels * arguments.get("groups", 1)))
    layer.kernel.assign(kernel)
    return layer


def stored_kernel(layer):
    """The kernel's values as the layer contains them: half precision has rounded them."""
    return keras.ops.convert_to_numpy(keras.ops.cast(layer.kernel, "float32")).astype("float64")


# Values.


def test_epsilon_is_that_of_the_released_weights():
    assert std_conv2d.EPSILON == 1e-10
    assert StdConv2D(1, 1).epsilon == 1e-10


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"groups": 2, "strides": 2},
        {"epsilon": 1e-2},
    ],
    ids=str,
)
def test_output_equals_float64_numpy(arguments):
    kernel = KERNEL[:, :, : 4 // arguments.get("groups", 1)]
    expected = convolve(
        IMAGES,
        standardize(kernel, arguments.get("epsilon", 1e-10)),
        arguments.get("strides", 1),
        arguments.get("dilation_rate", 1),
        arguments.get("groups", 1),
    )
    assert relative_error(layer_with(kernel, **arguments)(IMAGES), expected) < FLOAT32


def test_a_bias_is_added_as_it_is():
    layer = StdConv2D(6, 3)
    layer.build(IMAGES.shape)
    bias = np.arange(6.0)
    layer.kernel.assign(KERNEL)
    layer.bias.assign(bias)
    expected = convolve(IMAGES, standardize(KERNEL)) + bias
    assert relative_error(layer(IMAGES), expected) < FLOAT32


def test_the_standardized_kernel_equals_float64_numpy():
    layer = layer_with(KERNEL)
    assert relative_error(layer.standardized_kernel(), standardize(KERNEL)) < FLOAT32


def test_a_constant_filter_gives_zeros():
    kernel = KERNEL.copy()
    kernel[..., 2] = 0.25
    output = keras.ops.convert_to_numpy(layer_with(kernel)(IMAGES))
    # The mean of equal powers of two is exact, and so is the difference from it.
    np.testing.assert_array_equal(output[..., 2], 0.0)
    assert np.isfinite(output).all()


def test_output_does_not_depend_on_scale_and_offset_of_the_kernel():
    expected = keras.ops.convert_to_numpy(layer_with(KERNEL)(IMAGES)).astype("float64")
    moved = layer_with(10 * KERNEL + 1)(IMAGES)
    # The moved kernel is rounded at 4.0 with a deviation of 0.5, and epsilon is 4e-8 of the
    # variance that it is added to.
    assert relative_error(moved, expected) < 3e-6


def test_the_output_depends_on_epsilon():
    small = KERNEL * np.float32(1e-3)
    output = layer_with(small)(IMAGES)
    assert relative_error(output, convolve(IMAGES, standardize(small))) < FLOAT32
    # timm's value moves the result by four times the tolerance of the whole network, and more.
    assert relative_error(output, convolve(IMAGES, standardize(small, 1e-8))) > 4e-5


# Dtype policies.


@pytest.mark.parametrize("policy", HALF_A_LAST_BIT)
def test_every_policy_gives_the_standardized_result_in_its_compute_dtype(policy):
    layer = layer_with(KERNEL, dtype=policy)
    output = layer(IMAGES)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    expected = convolve(IMAGES, standardize(stored_kernel(layer)))
    assert relative_error(keras.ops.cast(output, "float32"), expected) < HALF_A_LAST_BIT[policy]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_tiny_kernel_is_standardized_in_full_under_mixed_policies(policy):
    # Its variance of 1e-12 and the epsilon of 1e-10 are both 0.0 in float16, whose steps of 6e-8
    # would round the kernel itself by 6 %.
    kernel = np.random.default_rng(1).normal(0, 1e-6, KERNEL.shape).astype("float32")
    layer = layer_with(kernel, dtype=policy)
    assert relative_error(layer.standardized_kernel(), standardize(kernel)) < FLOAT32
    output = keras.ops.cast(layer(IMAGES), "float32")
    expected = convolve(IMAGES, standardize(kernel))
    assert relative_error(output, expected) < HALF_A_LAST_BIT[policy]


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_statistics_are_in_float32_where_the_kernel_is_in_half_precision(policy):
    layer = layer_with(KERNEL, dtype=policy)
    assert layer.kernel.dtype == policy
    expected = standardize(stored_kernel(layer))
    assert relative_error(layer.standardized_kernel(), expected) < FLOAT32


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras takes means of float64 in float32 on JAX and PyTorch (keras issue 23704)",
)
def test_the_float64_policy_computes_in_float64_throughout():
    layer = layer_with(KERNEL, dtype="float64")
    expected = convolve(IMAGES, standardize(KERNEL))
    # float64 has 53 bits, 1e-16, and the sums are short.
    assert relative_error(layer(IMAGES), expected) < 1e-13


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_the_kernel_is_not_cast_before_it_is_standardized(policy):
    seen = []

    class Watched(StdConv2D):
        def convolution_op(self, inputs, kernel):
            seen.append(tuple(keras.backend.standardize_dtype(x.dtype) for x in (inputs, kernel)))
            return super().convolution_op(inputs, kernel)

    layer = Watched(6, 3, dtype=policy)
    layer(IMAGES)
    assert set(seen) == {(policy.removeprefix("mixed_"), "float32")}


# Gradients.


@pytest.mark.parametrize("arguments", [{}, {"strides": 2}], ids=str)
def test_gradients_equal_differences_in_float64(arguments):
    images, kernel = IMAGES[:, :5, :5, :2], KERNEL[:, :, :2, :3]
    stride = arguments.get("strides", 1)
    cotangent = (
        np.random.default_rng(1)
        .normal(size=convolve(images, kernel, stride).shape)
        .astype("float32")
    )

    def loss(images, kernel):
        return np.sum(convolve(images, standardize(kernel), stride) * cotangent)

    found = gradients(layer_with(kernel, **arguments), images, cotangent)
    assert set(found) == {"inputs", "kernel"}
    images, kernel = images.astype("float64"), kernel.astype("float64")
    by_inputs = central_differences(lambda x: loss(x, kernel), images)
    by_kernel = central_differences(lambda k: loss(images, k), kernel)
    # The kernel's gradient is what is left of two sums that nearly cancel.
    assert relative_error(found["inputs"], by_inputs) < 1e-5
    assert relative_error(found["kernel"], by_kernel) < 1e-5
