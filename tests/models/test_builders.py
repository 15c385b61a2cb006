"""The three builders, and that what they build is an ordinary Keras model."""

import logging
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.errors import (
    BitKerasError,
    CheckpointError,
    UnknownLabelsError,
    UnknownModelError,
)
from bit_keras.models.resnet_v2 import FEATURE_MAPS
from bit_keras.preprocessing import load_labels
from bit_keras.registry import ARCHITECTURES
from tests.models.networks import random_images, relative_errors, run, to_numpy
from tests.reference import oracle

NAME = "bit_tiny.cifar10"
IMAGES = random_images(45, 33)
CIFAR10 = load_labels("cifar10").ids


def error(actual, expected):
    return relative_errors({"output": actual}, {"output": expected})["output"]


@pytest.fixture(scope="module")
def expected(tiny_arrays):
    """Every feature of `tiny_npz`, by the oracle."""
    return oracle.features(IMAGES, tiny_arrays)


@pytest.fixture
def classifier(tiny_npz):
    return bit_keras.create_classifier(NAME, weights=tiny_npz)


def train_one_step(model, images=IMAGES, classes=10):
    """One step of plain gradient descent on arbitrary labels."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Compiling pays where the alternative is one small program per operation.
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=keras.backend.backend() == "jax")
    model.fit(images, np.arange(len(images)) % classes, verbose=0)


def values(model):
    return {weight.path: to_numpy(weight) for weight in model.weights}


def changed(model, before):
    """Paths of the weights that are no longer equal to the bit."""
    return {
        path for path, array in values(model).items() if not np.array_equal(array, before[path])
    }


# What they compute. The tolerance is what the design promises in float32.


def test_classifier_gives_the_logits_of_its_file(classifier, expected):
    assert classifier.name == NAME
    assert classifier.output_shape == (None, 10)
    assert error(run(classifier, IMAGES), expected["logits"]) < 1e-5


def test_feature_extractor_gives_pooled_features_and_needs_no_head(tiny_npz, expected):
    model = bit_keras.create_feature_extractor(NAME, weights=tiny_npz)
    assert model.name == NAME
    assert model.output_shape == (None, 1024)
    assert error(run(model, IMAGES), expected["features"]) < 1e-5


def test_feature_maps_come_by_name(tiny_npz, expected):
    model = bit_keras.create_feature_maps(NAME, weights=tiny_npz)
    maps = run(model, IMAGES)
    assert set(maps) == set(FEATURE_MAPS)
    errors = relative_errors(maps, {level: expected[level] for level in FEATURE_MAPS})
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("levels", [("block4", "stem"), ["block2"], "block2"], ids=str)
def test_levels_choose_the_feature_maps_and_their_order(levels):
    model = bit_keras.create_feature_maps(NAME, weights=None, levels=levels)
    assert list(model.output) == ([levels] if isinstance(levels, str) else list(levels))


@pytest.mark.parametrize("levels", [(), ("block5",), ("stem", "logits")], ids=str)
def test_the_error_for_unknown_levels_lists_the_levels(levels):
    with pytest.raises(
        BitKerasError, match=r"levels.* stem, block1, .*pre_logits_map.* Received: levels="
    ):
        bit_keras.create_feature_maps(NAME, weights=None, levels=levels)


@pytest.mark.parametrize(("activation", "reference"), [("softmax", "exp"), ("sigmoid", "logistic")])
def test_classifier_activation_converts_logits_to_scores(tiny_npz, expected, activation, reference):
    model = bit_keras.create_classifier(NAME, weights=tiny_npz, classifier_activation=activation)
    logits = expected["logits"]
    if reference == "exp":
        scores = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    else:
        scores = 1 / (1 + np.exp(-logits))
    # An exponential turns the relative error of a logit of 5 into five times as much.
    assert error(run(model, IMAGES), scores) < 5e-5
    assert model.get_layer("head").output.shape == (None, 10)


@pytest.mark.parametrize("activation", ["relu", "Softmax", ""])
def test_other_activations_are_an_error(activation):
    with pytest.raises(BitKerasError, match=f"'softmax' or 'sigmoid'.*='{activation}'"):
        bit_keras.create_classifier(NAME, weights=None, classifier_activation=activation)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_preprocessing_takes_pixels(classifier, tiny_npz, dtype):
    pixels = np.random.default_rng(3).integers(0, 256, (2, 40, 40, 3)).astype(dtype)
    expected = to_numpy(run(classifier, pixels.astype("float32") / 127.5 - 1))
    model = bit_keras.create_classifier(NAME, weights=tiny_npz, include_preprocessing=True)
    # A product and a sum round elsewhere than a quotient and a difference: 6e-8 in the input, and
    # damped branches amplify it little.
    assert error(run(model, pixels), expected) < 5e-6
    assert sum(isinstance(layer, keras.layers.Rescaling) for layer in model.layers) == 1


# The head.


def test_random_weights_come_with_a_zero_head():
    model = bit_keras.create_classifier(NAME, weights=None)
    head = model.get_layer("head")
    assert [float(np.abs(to_numpy(weight)).max()) for weight in head.weights] == [0, 0]
    np.testing.assert_array_equal(to_numpy(run(model, IMAGES)), np.zeros((2, 10)))


def test_another_number_of_classes_keeps_the_body_and_logs_the_zero_head(
    tiny_npz, tiny_arrays, expected, caplog
):
    with caplog.at_level(logging.INFO, "bit_keras"):
        model = bit_keras.create_classifier(NAME, weights=tiny_npz, num_classes=7)
    logged = [record.getMessage() for record in caplog.records]
    message = f"{NAME}: a new head for 7 classes, all zero, replaces the one for 10."
    assert logged.count(message) == 1
    assert model.output_shape == (None, 7)
    assert not np.any(to_numpy(model.get_layer("head").kernel))
    features = keras.Model(model.input, model.get_layer("features").output)
    assert error(run(features, IMAGES), expected["features"]) < 1e-5


def test_the_number_of_classes_of_the_file_keeps_its_head_in_silence(tiny_npz, expected, caplog):
    with caplog.at_level(logging.INFO, "bit_keras"):
        model = bit_keras.create_classifier(NAME, weights=tiny_npz, num_classes=10)
    assert not caplog.records
    assert error(run(model, IMAGES), expected["logits"]) < 1e-5


def test_a_file_with_another_head_is_refused_unless_the_head_is_replaced(tmp_path, tiny_arrays):
    path = tmp_path / "five.npz"
    kernel, bias = "resnet/head/conv2d/kernel", "resnet/head/conv2d/bias"
    narrow = {kernel: tiny_arrays[kernel][..., :5], bias: tiny_arrays[bias][:5]}
    write_npz(path, dict(tiny_arrays) | narrow)
    with pytest.raises(BitKerasError, match="num_classes="):
        bit_keras.create_classifier(NAME, weights=path)
    model = bit_keras.create_classifier(NAME, weights=path, num_classes=5)
    np.testing.assert_array_equal(to_numpy(model.get_layer("head").bias), narrow[bias])


def test_no_classes_leave_the_head_out(tiny_npz, expected):
    model = bit_keras.create_classifier(NAME, weights=tiny_npz, num_classes=0)
    extractor = bit_keras.create_feature_extractor(NAME, weights=tiny_npz)
    assert [layer.name for layer in model.layers] == [layer.name for layer in extractor.layers]
    assert (model.name, model.output_shape) == (NAME, (None, 1024))
    assert error(run(model, IMAGES), expected["features"]) < 1e-5


def test_an_activation_without_a_head_is_an_error():
    with pytest.raises(
        BitKerasError, match=r"classifier_activation.*None.*num_classes=0.*'softmax'"
    ):
        bit_keras.create_classifier(
            NAME, weights=None, num_classes=0, classifier_activation="softmax"
        )


def test_a_negative_number_of_classes_is_an_error():
    with pytest.raises(BitKerasError, match=r"at least 1, or 0 .*Received: num_classes="):
        bit_keras.create_classifier(NAME, weights=None, num_classes=-1)


# Some classes of the file's head.


@pytest.mark.parametrize(
    "classes", [("dog", "cat"), ["truck"], CIFAR10[::-1], CIFAR10[:7]], ids=len
)
def test_classes_select_logits_in_their_order(tiny_npz, tiny_arrays, expected, classes, caplog):
    with caplog.at_level(logging.INFO, "bit_keras"):
        model = bit_keras.create_classifier(NAME, weights=tiny_npz, classes=classes)
    assert caplog.messages == [f"{NAME}: {len(classes)} of the 10 classes are kept."]
    indices = [CIFAR10.index(class_id) for class_id in classes]
    kernel, bias = model.get_layer("head").weights
    np.testing.assert_array_equal(
        to_numpy(kernel), tiny_arrays["resnet/head/conv2d/kernel"][0, 0][:, indices]
    )
    np.testing.assert_array_equal(to_numpy(bias), tiny_arrays["resnet/head/conv2d/bias"][indices])
    assert error(run(model, IMAGES), expected["logits"][:, indices]) < 1e-5


def test_decoding_the_selected_classes_names_them(tiny_npz):
    classes = ("ship", "cat", "bird")
    model = bit_keras.create_classifier(NAME, weights=tiny_npz, classes=classes)
    logits = to_numpy(run(model, IMAGES))
    for image, ranked in zip(
        logits, bit_keras.decode_predictions(logits, NAME, classes=classes), strict=True
    ):
        assert [class_id for class_id, _, _ in ranked] == [classes[i] for i in np.argsort(-image)]


def test_the_imagenet_1k_classes_of_an_imagenet_21k_head_are_999():
    known = set(load_labels("imagenet_21k").ids)
    classes = [class_id for class_id in load_labels("imagenet_1k").ids if class_id in known]
    model = bit_keras.create_classifier("bit_r50x1.in21k", weights=None, classes=classes)
    assert model.output_shape == (None, 999)
    assert not np.any(to_numpy(model.get_layer("head").kernel))


def test_selection_and_channels_go_together(tiny_npz, expected):
    model = bit_keras.create_classifier(NAME, weights=tiny_npz, classes=["dog"], in_channels=6)
    assert error(run(model, np.tile(IMAGES, 2)), expected["logits"][:, [5]]) < 1e-5


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], r"by a list of ids of cifar10, at least one, such as \['airplane'\]"),
        ("cat", "by a list of ids of cifar10.*Received: 'cat'"),
        (3, "by a list of ids of cifar10.*Received: 3"),
        (["cat", "cow"], r"1 of the 2 classes .* among the 10 classes of cifar10 \(cow\); leave"),
        (list("abcde"), r"5 of the 5 .* \(a, b, c and 2 more\); leave them out"),
        (["cat", "dog", "cat"], r"1 of the classes requested come more than once \(cat\)"),
    ],
    ids=str,
)
def test_invalid_classes_are_an_error_before_a_file_is_opened(classes, message):
    with pytest.raises(BitKerasError, match=message):
        bit_keras.create_classifier(NAME, weights="absent.npz", classes=classes)


def test_the_teddy_bear_is_not_in_imagenet_21k():
    message = r"not among the 21843 classes of imagenet_21k \(n04399382\); leave them out"
    with pytest.raises(BitKerasError, match=message):
        bit_keras.create_classifier(
            "bit_r50x1.in21k", weights="absent.npz", classes=load_labels("imagenet_1k").ids
        )


def test_classes_and_num_classes_are_exclusive():
    for classes in (0, 2):
        with pytest.raises(BitKerasError, match=r"`classes`.*`num_classes`.*only one"):
            bit_keras.create_classifier(
                NAME, weights=None, classes=["cat", "dog"], num_classes=classes
            )


def test_selection_needs_a_class_list_and_its_head(tmp_path, tiny_arrays):
    name = bit_keras.list_models("*eurosat_run0")[0]
    with pytest.raises(UnknownLabelsError, match="eurosat_run0 was published without a class list"):
        bit_keras.create_classifier(name, weights="absent.npz", classes=["forest"])
    path = tmp_path / "five.npz"
    write_npz(path, SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], classes=5)))
    with pytest.raises(CheckpointError, match=r"head for 5 classes, and .* the 10 of cifar10"):
        bit_keras.create_classifier(NAME, weights=path, classes=["cat"])


# The input.


@pytest.mark.parametrize(
    "shape",
    [(31, 64, 3), (64, 31, 3), (64, 64, 0), (64, 64, None), (3, 64, 64), (64, 64), 64, None],
    ids=str,
)
def test_invalid_input_shapes_are_an_error(shape):
    with pytest.raises(BitKerasError, match=r"`input_shape`.* 32 pixels") as caught:
        bit_keras.create_classifier(NAME, weights=None, input_shape=shape)
    assert f"Received: input_shape={shape}" in str(caught.value)


def test_an_unknown_name_fails_before_anything_is_built():
    with pytest.raises(UnknownModelError, match=NAME):
        bit_keras.create_classifier("bit_tiny.cifar", weights=None)


# Training.


def test_a_step_of_fit_changes_every_trainable_weight(classifier):
    before = values(classifier)
    assert len(classifier.trainable_weights) == len(before) == 63
    train_one_step(classifier)
    assert changed(classifier, before) == set(before)


@pytest.mark.long
def test_a_frozen_block_stays_equal_to_the_bit_and_all_else_moves(classifier):
    classifier.get_layer("block1").trainable = False
    frozen = {path for path in values(classifier) if path.startswith("block1_")}
    assert len(frozen) == 10
    assert not frozen & {weight.path for weight in classifier.trainable_weights}
    before = values(classifier)
    train_one_step(classifier)
    assert changed(classifier, before) == set(before) - frozen


@pytest.mark.long
@pytest.mark.parametrize("container", ["Sequential", "Functional"])
def test_networks_nest_in_other_models_and_train_there(tiny_npz, container):
    body = bit_keras.create_feature_extractor(NAME, weights=tiny_npz)
    head = keras.layers.Dense(3)
    if container == "Sequential":
        model = keras.Sequential([keras.Input((45, 33, 3)), body, head])
    else:
        inputs = keras.Input((45, 33, 3))
        model = keras.Model(inputs, head(body(inputs)))
    before = values(model)
    train_one_step(model, classes=3)
    assert changed(model, before) == set(before)


# Dtype policies.


@pytest.mark.parametrize(
    ("policy", "drift"),
    # A relative 2^-9 and 2^-12 in each of the 17 convolutions, half of it cancelling.
    [("mixed_bfloat16", 3e-2), ("mixed_float16", 4e-3)],
)
def test_mixed_policies_return_float32_near_the_truth(
    policy, drift, dtype_policy, tiny_npz, expected
):
    dtype_policy(policy)
    classifier = bit_keras.create_classifier(NAME, weights=tiny_npz)
    features = keras.Model(classifier.input, classifier.get_layer("features").output)
    assert classifier.output.dtype == features.output.dtype == "float32"
    assert {weight.dtype for weight in classifier.weights} == {"float32"}
    assert classifier.get_layer("block4").output.dtype == policy.removeprefix("mixed_")
    assert error(run(features, IMAGES), expected["features"]) < drift
    assert error(run(classifier, IMAGES), expected["logits"]) < drift


# Saving.

RELOAD = """
import {first}
import {second}
import numpy as np
model = keras.saving.load_model("model.keras")
np.save("{first}_first.npy", model.predict(np.load("images.npy"), verbose=0))
"""


@pytest.mark.long
def test_a_keras_file_reloads_in_fresh_processes_equal_to_the_bit(classifier, tmp_path):
    classifier.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", IMAGES)
    processes = {
        first: subprocess.Popen(
            [sys.executable, "-c", RELOAD.format(first=first, second=second)],
            cwd=tmp_path,
            env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
            stderr=subprocess.PIPE,
            text=True,
        )
        for first, second in (("bit_keras", "keras"), ("keras", "bit_keras"))
    }
    expected = classifier.predict(IMAGES, verbose=0)
    for first, process in processes.items():
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        np.testing.assert_array_equal(np.load(tmp_path / f"{first}_first.npy"), expected)
