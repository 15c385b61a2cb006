"""The oracle against code this project did not write, and against numbers worked out by hand."""

import numpy as np
import pytest

from . import oracle
from .random_weights import random_weights
from .transformers_bit import (
    channels_first,
    channels_last,
    import_torch,
    standardized_convolutions,
    transformers_features,
    transformers_model,
)

FEATURES = (
    "stem",
    "block1",
    "block2",
    "block3",
    "block4",
    "pre_logits_map",
    "features",
    "logits",
)

# Both sides compute in float64 and differ only in the order of their sums. 16 units carry that
# rounding to about 1e-13, while the smallest mistake known, a standardisation epsilon of 1e-8,
# moves the logits of these networks by 5e-7.
FLOAT64_TOLERANCE = 1e-9

SIZES = ((32, 32), (45, 45), (48, 48), (45, 32))


def random_images(height, width, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (2, height, width, 3))


def relative_error(actual, expected):
    """The largest difference, in units of the largest expected value."""
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()


def assert_equal_features(actual, expected):
    assert actual.keys() == expected.keys() == set(FEATURES)
    errors = {name: relative_error(actual[name], expected[name]) for name in FEATURES}
    assert max(errors.values()) < FLOAT64_TOLERANCE, errors


# transformers' BiT: another implementation of the same network.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("units", "base_filters", "width", "groups"),
    [((3, 4, 6, 3), 8, 1, 4), ((3, 4, 6, 3), 8, 3, 8), ((1, 2, 11, 1), 16, 2, 32)],
    ids=["r50x1", "r50x3", "two_digit_units"],
)
def test_features_equal_transformers_to_1e_9(units, base_filters, width, groups):
    weights = random_weights(units, base_filters, width)
    model = transformers_model(weights, units, base_filters * width, groups)
    for convolution in standardized_convolutions(model):
        # The authors' value, where transformers has 1e-8 (bit_pytorch/models.py, StdConv2d).
        convolution.eps = 1e-10
    for size in SIZES:
        images = random_images(*size)
        expected = transformers_features(model, images)
        assert_equal_features(oracle.features(images, weights, groups=groups), expected)


def test_epsilons_reach_the_layers():
    # transformers as released, epsilon and all: the oracle meets it at that epsilon and only there.
    weights = random_weights()
    images = random_images(45, 45)
    model = transformers_model(weights, (1, 1, 1, 1), base_channels=8, groups=4)
    (released,) = {convolution.eps for convolution in standardized_convolutions(model)}
    expected = transformers_features(model, images)
    epsilons = oracle.EPSILONS | {"weight_standardization": released}
    assert_equal_features(oracle.features(images, weights, 4, epsilons), expected)
    logits = oracle.features(images, weights, groups=4)["logits"]
    assert relative_error(logits, expected["logits"]) > 10 * FLOAT64_TOLERANCE


# The BatchNorm sibling, restated with PyTorch's own layers.


class TorchSibling:
    """pytorch-image-models' `resnetv2_50` from the layers of torch.nn.functional."""

    def __init__(self, weights):
        torch = import_torch()
        self.layers = torch.nn.functional
        self.weights = {name: torch.from_numpy(array) for name, array in weights.items()}

    def convolve(self, maps, path, **options):
        kernel = self.weights[f"{path}/conv2d/kernel"].permute(3, 2, 0, 1)
        return self.layers.conv2d(maps, kernel, **options)

    def activate(self, maps, path):
        names = ("moving_mean", "moving_variance", "gamma", "beta")
        arrays = [self.weights[f"{path}/batch_norm/{name}"] for name in names]
        return self.layers.relu(self.layers.batch_norm(maps, *arrays, training=False, eps=1e-5))

    def unit(self, maps, path, first, stride):
        activated = self.activate(maps, f"{path}/a")
        shortcut = self.convolve(activated, f"{path}/a/proj", stride=stride) if first else maps
        residual = self.activate(self.convolve(activated, f"{path}/a"), f"{path}/b")
        residual = self.convolve(residual, f"{path}/b", stride=stride, padding=1)
        return self.convolve(self.activate(residual, f"{path}/c"), f"{path}/c") + shortcut

    def features(self, images, units):
        named = {}
        maps = self.convolve(channels_first(images), "resnet/root_block", stride=2, padding=3)
        named["stem"] = channels_last(maps)
        maps = self.layers.max_pool2d(maps, kernel_size=3, stride=2, padding=1)
        for block, depth in enumerate(units, start=1):
            for number in range(1, depth + 1):
                stride = 2 if number == 1 and block > 1 else 1
                path = f"resnet/block{block}/unit{number:02d}"
                maps = self.unit(maps, path, number == 1, stride)
            named[f"block{block}"] = channels_last(maps)
        maps = self.activate(maps, "resnet")
        pooled = maps.mean(dim=(2, 3))
        head = "resnet/head/conv2d"
        logits = pooled @ self.weights[f"{head}/kernel"][0, 0] + self.weights[f"{head}/bias"]
        named["pre_logits_map"] = channels_last(maps)
        return named | {"features": pooled.numpy(), "logits": logits.numpy()}


@pytest.mark.parametrize("width", [1, 3])
def test_batch_norm_features_equal_torch_to_1e_9(width):
    units = (3, 4, 6, 3)
    weights = random_weights(units, width=width, normalization="batch")
    sibling = TorchSibling(weights)
    for size in SIZES:
        images = random_images(*size)
        assert_equal_features(oracle.features(images, weights), sibling.features(images, units))


# What needs no second implementation.


def test_weight_standardization_by_hand():
    # Channel 0 is 1, 3: mean 2, variance 1 (the biased one; the unbiased one is 2). Channel 1 is
    # constant, which must give 0 and not a division by zero.
    kernel = np.array([[1.0, 5.0], [3.0, 5.0]]).reshape(1, 1, 2, 2)
    standardized = oracle.standardize(kernel, epsilon=1e-10)[0, 0]
    # The epsilon itself moves the result by 5e-11.
    np.testing.assert_allclose(standardized, [[-1.0, 0.0], [1.0, 0.0]], rtol=1e-10)


def test_group_norm_by_hand():
    # Two pixels and two groups. Group 0 contains 1, 3, 1, 3: mean 2, variance 1. Group 1 contains
    # 0, 0, 0, 8: mean 2, variance 12. Epsilons of 3 and 4 make the roots 2 and 4.
    image = np.array([[1.0, 3.0, 0.0, 0.0], [1.0, 3.0, 0.0, 8.0]]).reshape(1, 1, 2, 4)
    gamma, beta = np.array([2.0, 2.0, 4.0, 8.0]), np.array([0.0, 10.0, 0.0, 1.0])
    first = oracle.group_normalize(image, gamma, beta, groups=2, epsilon=3.0)[0, 0, :, :2]
    second = oracle.group_normalize(image, gamma, beta, groups=2, epsilon=4.0)[0, 0, :, 2:]
    # Every number above is a small binary fraction, so float64 contains it exactly.
    np.testing.assert_array_equal(first, [[-1.0, 11.0], [-1.0, 11.0]])
    np.testing.assert_array_equal(second, [[-2.0, -3.0], [-2.0, 13.0]])


@pytest.mark.parametrize(
    ("border", "expected"),
    [
        # An even map never reads its bottom and right border: only row 0 and column 0 become zero.
        (oracle.POOL_BORDER, [[0.0, 0.0], [0.0, -6.0]]),
        (oracle.BATCH_NORM_POOL_BORDER, [[-1.0, -2.0], [-5.0, -6.0]]),
    ],
)
def test_max_pool_border_by_hand(border, expected):
    image = -np.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    # A maximum copies a value and rounds nothing.
    np.testing.assert_array_equal(oracle.max_pool(image, border)[0, :, :, 0], expected)


@pytest.mark.parametrize("normalization", ["group", "batch"])
def test_every_array_reaches_the_logits(normalization):
    weights = random_weights((1, 2, 1, 1), normalization=normalization)
    images = random_images(32, 32)
    logits = oracle.features(images, weights, groups=4)["logits"]
    generator = np.random.default_rng(2)
    for name, array in weights.items():
        changed = weights | {name: array + generator.uniform(0.1, 0.2, array.shape)}
        moved = oracle.features(images, changed, groups=4)["logits"]
        # A tenth of a weight's scale is far above rounding, wherever in the network it sits.
        assert relative_error(moved, logits) > 1e-6, name


def test_a_network_without_a_head_has_the_same_features():
    weights = random_weights(classes=5)
    headless = random_weights(classes=None)
    images = random_images(32, 32)
    complete = oracle.features(images, weights, groups=4)
    without = oracle.features(images, headless, groups=4)
    assert set(complete) - set(without) == {"logits"}
    # The head is initialised last, so the same arithmetic runs on the same numbers.
    np.testing.assert_array_equal(without["features"], complete["features"])
