"""The network against the float64 oracle and against transformers' BiT."""

import dataclasses

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.models.resnet_v2 import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
)
from bit_keras.registry import ARCHITECTURES
from tests.models.networks import (
    CLASSES,
    fill,
    narrow,
    network,
    random_images,
    relative_errors,
    run,
    to_numpy,
)
from tests.reference import oracle
from tests.reference.random_weights import random_weights
from tests.reference.transformers_bit import (
    import_torch,
    standardized_convolutions,
    transformers_features,
    transformers_model,
)

# What the design promises in float32. The deepest networks use half of it; the smallest mistake
# known, a standardisation epsilon of 1e-8, is of the same size and seen in float64, below.
FLOAT32 = 1e-5

# 155 convolutions in float64, each with a rounding of 1e-16, in networks that amplify it 200 times.
FLOAT64 = 1e-11

# Deeper and wider ones repeat the same blocks, and JAX compiles each block separately: one of each
# width factor but 4, and the greatest depth of both families, are in the long tests.
QUICK = ("bit_r50x1", "resnetv2_50", "bit_tiny")
LONG = ("bit_r50x3", "bit_r152x2", "resnetv2_101")
LARGE = sorted(set(ARCHITECTURES) - set(QUICK))


def tier(name):
    """The marks of a test of a network of full depth."""
    if name in QUICK:
        return ()
    return pytest.mark.long if name in LONG else pytest.mark.full


EVERY_ARCHITECTURE = [pytest.param(name, marks=tier(name)) for name in ARCHITECTURES]


def seeded(architecture, classes=CLASSES):
    return SeededArrays(official_shapes(architecture, classes))


def differences_from_the_oracle(architecture, arrays, *sizes):
    model = network(architecture)
    fill(model, arrays)
    for height, width in sizes:
        images = random_images(height, width)
        expected = oracle.features(images, arrays, groups=architecture.groups)
        yield relative_errors(run(model, images), expected)


# The oracle.


@pytest.mark.parametrize("name", EVERY_ARCHITECTURE)
def test_every_feature_equals_the_oracle_to_1e_5(name):
    architecture = narrow(ARCHITECTURES[name])
    for errors in differences_from_the_oracle(architecture, seeded(architecture), (45, 33)):
        assert max(errors.values()) < FLOAT32, errors


@pytest.mark.parametrize("name", ["bit_tiny", "resnetv2_50"])
def test_every_size_equals_the_oracle_to_1e_5(name):
    architecture = dataclasses.replace(narrow(ARCHITECTURES[name]), units=(1, 1, 1, 1))
    sizes = [(32, 32), (33, 48), (48, 47)]
    for errors in differences_from_the_oracle(architecture, seeded(architecture), *sizes):
        assert max(errors.values()) < FLOAT32, errors


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Keras takes means of float64 in float32 on JAX and PyTorch (keras issue 23704)",
)
@pytest.mark.parametrize("name", EVERY_ARCHITECTURE)
def test_in_float64_every_feature_equals_the_oracle_to_1e_11(name, dtype_policy):
    dtype_policy("float64")
    architecture = narrow(ARCHITECTURES[name])
    # Weights whose residual branches are not damped, unlike the seeded ones: in float64 the
    # rounding that they amplify stays out of sight, and every mistake shows.
    arrays = random_weights(
        architecture.units, 8, architecture.width, CLASSES, architecture.normalization
    )
    for errors in differences_from_the_oracle(architecture, arrays, (45, 33), (32, 32)):
        assert max(errors.values()) < FLOAT64, errors


@pytest.mark.full
def test_the_full_r152x2_equals_the_oracle_to_1e_5():
    architecture = ARCHITECTURES["bit_r152x2"]
    for errors in differences_from_the_oracle(architecture, seeded(architecture), (64, 64)):
        assert max(errors.values()) < FLOAT32, errors


def test_the_image_data_format_of_the_user_changes_nothing(channels_first):
    for name in ("bit_tiny", "resnetv2_50"):
        architecture = dataclasses.replace(narrow(ARCHITECTURES[name]), units=(1, 1, 1, 1))
        for errors in differences_from_the_oracle(architecture, seeded(architecture), (33, 48)):
            assert max(errors.values()) < FLOAT32, errors


# transformers.


def transformers_twin(arrays, architecture):
    """transformers' BiT in float32, with the released epsilon, with the values of `arrays`."""
    weights = {name: arrays[name].astype("float64") for name in arrays}
    channels = architecture.stem_filters
    twin = transformers_model(weights, architecture.units, channels, architecture.groups).float()
    for convolution in standardized_convolutions(twin):
        convolution.eps = 1e-10  # The authors' value, where transformers has 1e-8.
    return twin


@pytest.mark.slow
def test_every_feature_equals_transformers_to_1e_5(tmp_path):
    import_torch()
    architecture = narrow(ARCHITECTURES["bit_r50x1"])
    arrays, model = seeded(architecture), network(architecture)
    write_npz(tmp_path / "weights.npz", arrays)
    bit_keras.load_weights(model, tmp_path / "weights.npz")
    twin = transformers_twin(arrays, architecture)
    images = random_images(45, 33)
    errors = relative_errors(run(model, images), transformers_features(twin, images))
    # Two float32 implementations, each within 5e-6 of the truth.
    assert max(errors.values()) < FLOAT32, errors


@pytest.mark.long
def test_the_full_r50x1_equals_transformers_to_1e_5(tmp_path):
    import_torch()
    architecture = ARCHITECTURES["bit_r50x1"]
    arrays, path = seeded(architecture, classes=1000), tmp_path / "weights.npz"
    write_npz(path, arrays)
    model = bit_keras.create_classifier("bit_r50x1.in21k_ft_in1k", weights=path)
    images = random_images(224, 224)
    expected = transformers_features(transformers_twin(arrays, architecture), images)["logits"]
    errors = relative_errors({"logits": run(model, images)}, {"logits": expected})
    assert errors["logits"] < FLOAT32


# Names and shapes.


# The stem's pool, and BatchNorm.


@pytest.mark.parametrize(
    ("name", "border"), [("bit_r50x1", 0.0), ("resnetv2_50", -np.inf)], ids=["bit", "sibling"]
)
def test_the_max_pool_sees_zeros_in_bit_and_nothing_in_the_sibling(name, border):
    model = network(narrow(ARCHITECTURES[name]))
    fill(model, seeded(narrow(ARCHITECTURES[name])))
    taps = [model.get_layer(layer).output for layer in ("stem_conv", "stem_pool")]
    stem, pooled = map(to_numpy, keras.Model(model.input, taps)(random_images(32, 33)))
    # A maximum copies a value and rounds nothing.
    np.testing.assert_array_equal(pooled, oracle.max_pool(stem, border))
    other = -np.inf if border == 0.0 else 0.0
    assert not np.array_equal(pooled, oracle.max_pool(stem, other))


def test_constants_of_batch_norm_are_those_of_torch():
    assert (BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM) == (1e-5, 0.9)
    model = network(narrow(ARCHITECTURES["resnetv2_50"]))
    layer = model.get_layer("norm")
    assert (layer.epsilon, layer.momentum) == (1e-5, 0.9)


def test_training_moves_the_moving_statistics_and_inference_does_not():
    architecture = dataclasses.replace(narrow(ARCHITECTURES["resnetv2_50"]), units=(1, 1, 1, 1))
    model = network(architecture)
    fill(model, seeded(architecture))
    images, layer = (
        random_images(33, 48),
        model.get_layer("block1").get_layer("block1_unit01_norm1"),
    )
    statistics = [w for w in model.weights if "/moving_" in w.path]
    before = [to_numpy(weight) for weight in statistics]
    mean_before = to_numpy(layer.moving_mean)

    pool = keras.Model(model.input, model.get_layer("stem_pool").output)
    pooled = to_numpy(pool(images)).mean(axis=(0, 1, 2))
    model(images, training=False)
    for weight, array in zip(statistics, before, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), array, err_msg=weight.path)
    model(images, training=True)
    for weight, array in zip(statistics, before, strict=True):
        assert not np.array_equal(to_numpy(weight), array), weight.path
    # A mean over 216 float32 values and one weighted sum.
    np.testing.assert_allclose(
        to_numpy(layer.moving_mean), 0.9 * mean_before + 0.1 * pooled, rtol=1e-5, atol=1e-6
    )
