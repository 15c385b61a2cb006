"""Networks for images of any number of channels."""

import dataclasses
import logging
import re

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import load_weights, open_checkpoint, save_weights
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.transfer import ModelArrays
from bit_keras.checkpoints.views import ArraysWithChannels
from bit_keras.errors import BitKerasError, CheckpointError
from bit_keras.layers import StdConv2D
from bit_keras.models.builders import network_of_file
from bit_keras.models.resnet_v2 import feature_maps
from bit_keras.registry import ARCHITECTURES
from tests.models.networks import CLASSES, fill, narrow, relative_errors, run, to_numpy
from tests.reference import oracle
from tests.tiers import LONG_ELSEWHERE

pytestmark = LONG_ELSEWHERE

NAME = "bit_tiny.cifar10"
STEM = "resnet/root_block/standardized_conv2d/kernel"
PLAIN_STEM = "resnet/root_block/conv2d/kernel"
CHANNELS = (1, 2, 3, 4, 6, 13)

# Several channels in a group of the first GroupNorm, as the published networks have: a group of one
# removes the gain of a filter, and bit_tiny has no others.
GROUP_NORM = dataclasses.replace(ARCHITECTURES["bit_tiny"], groups=8)
BATCH_NORM = dataclasses.replace(narrow(ARCHITECTURES["resnetv2_50"]), units=(1, 1, 1, 1))
ARCHITECTURES_BY_NORM = {"GroupNorm": GROUP_NORM, "BatchNorm": BATCH_NORM}


on_one_backend = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Which kernels are loaded does not depend on the backend.",
)


def photos(channels, seed=1):
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 45, 33, channels))
    return images.astype("float32")


GREY, COLOURED = photos(1), photos(3)


def network(architecture, channels):
    """A network that returns its feature maps, its pooled features and its logits."""
    inputs = keras.Input((None, None, channels))
    maps = feature_maps(inputs, architecture)
    pooled = keras.layers.GlobalAveragePooling2D(data_format="channels_last")
    features = pooled(maps["pre_logits_map"])
    logits = keras.layers.Dense(CLASSES, name="head")(features)
    return keras.Model(inputs, maps | {"features": features, "logits": logits})


def arrays_of(architecture):
    return SeededArrays(official_shapes(architecture, CLASSES))


@pytest.fixture(scope="module", params=ARCHITECTURES_BY_NORM)
def rgb(request, tmp_path_factory):
    """An architecture, its arrays for RGB images, and a file with these."""
    architecture = ARCHITECTURES_BY_NORM[request.param]
    path = tmp_path_factory.mktemp("rgb") / "rgb.npz"
    write_npz(path, arrays_of(architecture))
    return architecture, arrays_of(architecture), path


def adapted(rgb, channels):
    """The network of a file for RGB images, for images of this many channels."""
    architecture, arrays, path = rgb
    model = network(architecture, channels)
    with open_checkpoint(path) as file:
        fill(model, arrays if channels == 3 else ArraysWithChannels(file, channels))
    return model


def error(actual, expected):
    return relative_errors({"output": actual}, {"output": to_numpy(expected)})["output"]


def stem_of(model):
    return model.get_layer("stem_conv")


@pytest.fixture
def extractor(tiny_npz):
    """The features of RGB images."""
    return bit_keras.create_feature_extractor(NAME, weights=tiny_npz)


@pytest.fixture
def grey_classifier(tiny_npz):
    return bit_keras.create_classifier(NAME, weights=tiny_npz, in_channels=1)


# What they compute. The tolerance is what the design promises in float32.


@pytest.mark.slow
@pytest.mark.parametrize("channels", CHANNELS)
def test_equal_channels_give_what_the_grey_rgb_image_gives(rgb, channels):
    architecture, arrays, _ = rgb
    expected = oracle.features(np.repeat(GREY, 3, -1), arrays, groups=architecture.groups)
    found = run(adapted(rgb, channels), np.repeat(GREY, channels, -1))
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.slow
@pytest.mark.parametrize("channels", [4, 6, 13])
def test_repeated_colours_give_what_the_rgb_image_gives(rgb, channels):
    architecture, arrays, _ = rgb
    expected = oracle.features(COLOURED, arrays, groups=architecture.groups)
    found = run(adapted(rgb, channels), COLOURED[..., np.arange(channels) % 3])
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-5, errors


def test_kernels_summed_or_repeated_as_they_are_stored_are_far_off():
    arrays = dict(arrays_of(GROUP_NORM))
    kernel = arrays[STEM]
    expected = oracle.features(np.repeat(GREY, 3, -1), arrays, groups=GROUP_NORM.groups)
    for naive in (kernel.sum(2, keepdims=True), kernel[:, :, np.arange(4) % 3] * 0.75):
        images = np.repeat(GREY, naive.shape[2], -1)
        found = oracle.features(images, arrays | {STEM: naive}, groups=GROUP_NORM.groups)
        errors = relative_errors(found, expected)
        assert min(errors[name] for name in ("stem", "block1", "features")) > 0.1, errors


@on_one_backend
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_builders_adapt_the_file_and_log_it(extractor, tiny_npz, channels, caplog):
    expected = run(extractor, np.repeat(GREY, 3, -1))
    with caplog.at_level(logging.INFO, "bit_keras"):
        model = bit_keras.create_feature_extractor(NAME, weights=tiny_npz, in_channels=channels)
    message = f"{NAME}: the stem convolution is adapted from 3 to {channels} channels."
    assert caplog.messages.count(message) == (channels != 3)
    assert model.input_shape == (None, None, None, channels)
    assert isinstance(stem_of(model), StdConv2D) == (channels == 3)
    assert error(run(model, np.repeat(GREY, channels, -1)), expected) < 1e-5


@on_one_backend
def test_every_builder_takes_in_channels(tiny_npz, tiny_arrays):
    expected = oracle.features(np.repeat(GREY, 3, -1), tiny_arrays)
    classifier = bit_keras.create_classifier(NAME, weights=tiny_npz, in_channels=2)
    maps = bit_keras.create_feature_maps(NAME, weights=tiny_npz, levels="stem", in_channels=2)
    images = np.repeat(GREY, 2, -1)
    assert error(run(classifier, images), expected["logits"]) < 1e-5
    assert error(run(maps, images)["stem"], expected["stem"]) < 1e-5


@on_one_backend
def test_the_input_shape_says_it_as_well(grey_classifier, tiny_npz):
    model = bit_keras.create_classifier(NAME, weights=tiny_npz, input_shape=(45, 33, 1))
    assert model.input_shape == (None, 45, 33, 1)
    assert error(run(model, GREY), run(grey_classifier, GREY)) < 1e-6
    both = bit_keras.create_classifier(
        NAME, weights=None, input_shape=(45, None, 3), in_channels=4, num_classes=0
    )
    assert both.input_shape == (None, 45, None, 4)


def test_pixels_of_any_channels_are_rescaled(grey_classifier, tiny_npz):
    pixels = np.random.default_rng(3).integers(0, 256, (2, 40, 40, 1)).astype("float32")
    model = bit_keras.create_classifier(
        NAME, weights=tiny_npz, in_channels=1, include_preprocessing=True
    )
    assert error(run(model, pixels), run(grey_classifier, pixels / 127.5 - 1)) < 5e-6


@on_one_backend
def test_random_weights_come_for_any_channels():
    for channels in (1, 5):
        model = bit_keras.create_feature_extractor(NAME, weights=None, in_channels=channels)
        assert tuple(stem_of(model).kernel.shape) == (7, 7, channels, 32)
        assert np.isfinite(to_numpy(run(model, photos(channels)))).all()


# Files of their own.


@on_one_backend
def test_a_saved_network_comes_back_from_npz(grey_classifier, tmp_path, caplog):
    expected = run(grey_classifier, GREY)
    path = tmp_path / "grey.npz"
    save_weights(grey_classifier, path)
    with caplog.at_level(logging.INFO, "bit_keras"):
        built = bit_keras.create_classifier(NAME, weights=path, in_channels=1)
    assert not caplog.records
    loaded = bit_keras.create_classifier(NAME, weights=None, in_channels=1)
    load_weights(loaded, path)
    recognised = network_of_file(path)
    assert recognised.input_shape == (None, None, None, 1)
    arrays = dict(ModelArrays(grey_classifier))
    for model in (built, loaded, recognised):
        found = dict(ModelArrays(model))
        assert found.keys() == arrays.keys()
        assert all(found[name].tobytes() == arrays[name].tobytes() for name in arrays)
        assert error(run(model, GREY), expected) < 1e-6


def test_a_saved_network_comes_back_from_keras(grey_classifier, tmp_path):
    grey_classifier.save(tmp_path / "grey.keras")
    loaded = keras.saving.load_model(tmp_path / "grey.keras")
    built = bit_keras.create_classifier(NAME, weights=tmp_path / "grey.keras", in_channels=1)
    for model in (loaded, built):
        for found, expected in zip(model.weights, grey_classifier.weights, strict=True):
            np.testing.assert_array_equal(to_numpy(found), to_numpy(expected))


@pytest.mark.long
def test_folding_keeps_the_function(grey_classifier, tmp_path):
    folded = bit_keras.fold_weight_standardization(grey_classifier)
    assert error(run(folded, GREY), run(grey_classifier, GREY)) < 1e-6
    # Its plain kernel is not standardised again by a network that reads it.
    save_weights(folded, tmp_path / "folded.npz")
    assert error(run(network_of_file(tmp_path / "folded.npz"), GREY), run(folded, GREY)) < 1e-5


@pytest.mark.long
def test_a_step_of_fit_changes_every_weight(grey_classifier):
    before = {weight.path: to_numpy(weight) for weight in grey_classifier.weights}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit = keras.backend.backend() == "jax"
    grey_classifier.compile(keras.optimizers.SGD(0.1), loss, jit_compile=jit)
    grey_classifier.fit(GREY, np.arange(2), verbose=0)
    assert len(before) == 63
    for weight in grey_classifier.weights:
        assert not np.array_equal(to_numpy(weight), before[weight.path]), weight.path


# Mistakes.


@pytest.fixture
def grey_file(grey_classifier, tmp_path):
    save_weights(grey_classifier, tmp_path / "grey.npz")
    return tmp_path / "grey.npz"


@pytest.mark.parametrize("channels", [3, 4])
def test_only_files_for_rgb_are_adapted(grey_file, channels):
    words = re.escape(
        f"{grey_file} was made for in_channels=1 and the network for in_channels={channels}; only "
        "files for 3 can be adapted: pass in_channels=1, or take another file."
    )
    with pytest.raises(CheckpointError, match=words):
        bit_keras.create_classifier(NAME, weights=grey_file, in_channels=channels)


@on_one_backend
def test_loading_stays_strict_and_gives_advice(extractor, grey_classifier, tiny_npz, grey_file):
    with pytest.raises(CheckpointError) as raised:
        load_weights(grey_classifier, tiny_npz)
    assert str(raised.value) == (
        f"{tiny_npz} does not fit {NAME}: 1 arrays are missing, 1 unexpected, 0 misshapen. It was "
        "made for in_channels=3 and the network for in_channels=1: build the network with "
        "`weights=` and `in_channels=1`.\n"
        f"  - missing     {PLAIN_STEM} (7, 7, 1, 32)\n"
        f"  + unexpected  {STEM} (7, 7, 3, 32)"
    )
    with pytest.raises(CheckpointError, match=r"made for in_channels=1 .* and `in_channels=1`"):
        load_weights(extractor, grey_file)


@on_one_backend
def test_files_of_other_networks_are_described_as_they_are(tmp_path, caplog):
    shapes = official_shapes(ARCHITECTURES["bit_r50x1"], 10)
    path = tmp_path / "other.npz"
    np.savez_compressed(path, **{name: np.zeros(shape, "f2") for name, shape in shapes.items()})
    with (
        caplog.at_level(logging.INFO, "bit_keras"),
        pytest.raises(CheckpointError, match="The file is a bit_r50x1 with 10 classes"),
    ):
        bit_keras.create_classifier(NAME, weights=path, in_channels=1)
    assert not caplog.records


@pytest.mark.parametrize("channels", [0, -1])
def test_fewer_channels_than_one_are_an_error(channels):
    with pytest.raises(BitKerasError, match=f"`in_channels`.* at least 1.*in_channels={channels}"):
        bit_keras.create_feature_maps(NAME, weights=None, in_channels=channels)


def test_different_numbers_of_channels_are_an_error():
    words = re.escape("input_shape=(64, 64, 1), in_channels=4")
    with pytest.raises(BitKerasError, match=words):
        bit_keras.create_classifier(NAME, weights=None, input_shape=(64, 64, 1), in_channels=4)
