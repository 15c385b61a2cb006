"""Networks inside user models: names, blocks, heads."""

import h5py
import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.errors import BitKerasError
from bit_keras.models import (
    create_class_maps,
    create_classifier,
    create_feature_extractor,
    create_feature_maps,
    fold_weight_standardization,
    with_own_head,
)
from bit_keras.registry import checkpoint_of
from tests.tiers import LONG_ELSEWHERE

pytestmark = LONG_ELSEWHERE

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")


def outputs(model):
    return [
        keras.ops.convert_to_numpy(each)
        for each in keras.tree.flatten(model(IMAGES, training=False))
    ]


def assert_same(model, other, tolerance=0.0):
    for ours, theirs in zip(outputs(model), outputs(other), strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.fixture(scope="module")
def classifier():
    return create_classifier("bit_tiny.cifar10", name="mine")


@pytest.mark.slow
def test_two_networks_are_in_one_model_under_their_names(tmp_path):
    left, right = (
        create_feature_extractor("bit_tiny.cifar10", weights=None, name=name)
        for name in ("left", "right")
    )
    inputs = [keras.Input((32, 32, 3), name=name) for name in "ab"]
    joined = keras.layers.Concatenate()([left(inputs[0]), right(inputs[1])])
    model = keras.Model(inputs, keras.layers.Dense(2)(joined))
    model.save(tmp_path / "two.keras")
    loaded = keras.models.load_model(tmp_path / "two.keras")
    assert [checkpoint_of(loaded.get_layer(each)) for each in ("left", "right")] == (
        2 * ["bit_tiny.cifar10"]
    )
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        assert np.array_equal(*(keras.ops.convert_to_numpy(each) for each in (ours, theirs)))
    with pytest.raises(BitKerasError, match="of the same name"):
        bit_keras.save_weights(model, tmp_path / "two.npz")


@pytest.mark.slow
def test_the_checkpoint_is_known_under_any_model_name(classifier, tmp_path):
    classifier.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    copies = (
        loaded,
        fold_weight_standardization(classifier),
        create_class_maps(classifier),
    )
    for copy in copies:
        assert (copy.name, checkpoint_of(copy)) == ("mine", "bit_tiny.cifar10")
    assert create_class_maps(classifier, name="maps").name == "maps"
    assert create_feature_maps("bit_tiny.cifar10", weights=None, name="maps").name == "maps"
    assert create_classifier("bit_tiny.cifar10", weights=None, num_classes=0, name="a").name == "a"


def test_name_can_be_the_checkpoint():
    model = create_feature_extractor(name="bit_tiny.cifar10", weights=None)
    assert (model.name, checkpoint_of(model)) == ("bit_tiny.cifar10", "bit_tiny.cifar10")
    with pytest.raises(BitKerasError, match=r"`checkpoint`.*bit-keras list"):
        create_classifier()


@pytest.mark.slow
@pytest.mark.parametrize("saved", [False, True])
def test_blocks_are_connected_with_the_network(classifier, tmp_path, saved):
    model = classifier
    if saved:
        classifier.save(tmp_path / "a.keras")
        model = keras.models.load_model(tmp_path / "a.keras")
    levels = ("block1", "block4")
    parts = keras.Model(model.input, {level: model.get_layer(level).output for level in levels})
    assert_same(parts, create_feature_maps("bit_tiny.cifar10", levels=levels), 1e-5)
    rest = keras.Model(model.get_layer("block4").input, model.output)
    before = keras.Model(model.input, model.get_layer("block3").output)
    assert_same(lambda images, training: rest(before(images)), model, 1e-5)


def test_a_network_in_a_model_is_still_connected_with_its_own_blocks(classifier):
    inputs = keras.Input((32, 32, 3))
    keras.Model(inputs, classifier(2 * inputs))
    part = keras.Model(classifier.input, classifier.get_layer("block4").output)
    assert_same(part, create_feature_maps("bit_tiny.cifar10", levels=["block4"]), 1e-5)


def test_groups_in_files_are_called_as_before(classifier, tmp_path):
    # Weights saved before blocks had a class of their own load, and the other way round.
    classifier.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5") as file:
        blocks = [name for name in file["layers"] if name.startswith("functional")]
    assert blocks == ["functional", "functional_1", "functional_2", "functional_3"]


def test_the_network_is_thirteen_lines_long(classifier):
    lines: list[str] = []
    classifier.summary(print_fn=lines.append)
    assert "block4 (Functional)" in "".join(lines)
    assert len(classifier.layers) <= 13


@pytest.fixture(scope="module")
def extractor():
    return create_feature_extractor("bit_tiny.cifar10", name="body")


def dense(**options):
    return keras.layers.Dense(3, kernel_initializer="random_normal", **options)


HEADS = {
    "logits": (lambda: [dense()], "softmax"),
    "softmax": (lambda: [keras.layers.Dropout(0.5), dense(activation="softmax")], "softmax"),
    "sigmoid": (
        lambda: [dense(bias_initializer="ones"), keras.layers.Activation("sigmoid")],
        "sigmoid",
    ),
    "softmax layer": (lambda: [dense(use_bias=False), keras.layers.Softmax()], "softmax"),
}


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("functional", [False, True])
def test_a_model_with_its_own_head_becomes_a_classifier(extractor, head, functional):
    make, expected = HEADS[head]
    layers = [keras.layers.RandomFlip(), extractor, *make()]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers], name="flowers")
    if functional:
        x = inputs = keras.Input((32, 32, 3))
        for layer in layers:
            x = layer(x)
        model = keras.Model(inputs, x, name="flowers")
    classifier, activation = with_own_head(model)
    assert (classifier.name, checkpoint_of(classifier)) == ("flowers", "bit_tiny.cifar10")
    assert activation == expected
    assert [layer.name for layer in classifier.layers[-2:]] == ["features", "head"]
    if head == "logits":
        assert_same(model, classifier, 1e-5)
    else:
        score = getattr(keras.ops, expected)
        assert_same(lambda images, training: score(classifier(images)), model, 1e-5)


def test_a_lora_update_of_the_head_counts_once(extractor):
    head = dense()
    model = keras.Sequential([keras.Input((32, 32, 3)), extractor, head])
    head.enable_lora(1)
    head.lora_kernel_b.assign(np.ones(head.lora_kernel_b.shape))
    assert_same(model, with_own_head(model)[0], 1e-5)


@pytest.mark.parametrize(
    ("layers", "named"),
    [
        (lambda body: [keras.layers.Rescaling(2.0, name="odd"), body, dense()], "odd"),
        (lambda body: [body, keras.layers.Dense(9, name="hidden", activation="relu")], "hidden"),
        (lambda body: [body, dense(), keras.layers.Dense(2, name="second")], "second"),
        (lambda body: [body, keras.layers.BatchNormalization(name="norm"), dense()], "norm"),
        (lambda body: [body], "body"),
        (lambda body: [keras.layers.Flatten(name="flat"), dense()], "flat"),
    ],
)
def test_the_error_names_the_layer_that_does_not_fit(extractor, layers, named):
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers(extractor)])
    with pytest.raises(BitKerasError, match=f"at {named!r}"):
        with_own_head(model)


def test_a_model_that_branches_is_refused(extractor):
    inputs = keras.Input((32, 32, 3))
    features = extractor(inputs)
    both = keras.layers.Add(name="both")([dense()(features), dense()(features)])
    with pytest.raises(BitKerasError, match="at 'both'"):
        with_own_head(keras.Model(inputs, both))
