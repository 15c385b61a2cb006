"""What every builder does with every architecture of the registry.

Networks of full width have no weights here; those of `bit_tiny` do.
"""

import functools
import inspect
import json
import math

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras import models
from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.checkpoints.abstract_model import abstract_model
from bit_keras.models.resnet_v2 import FEATURE_MAPS
from bit_keras.registry import ARCHITECTURES, checkpoint_of
from tests.models.networks import random_images, to_numpy
from tests.tiers import LONG_ELSEWHERE

BUILDERS = {name: each for name, each in vars(models).items() if name.startswith("create_")}

#: From the pixels of the image to a position of the map.
STRIDES = {
    "stem": 2,
    "block1": 4,
    "block2": 8,
    "block3": 16,
    "block4": 32,
    "pre_logits_map": 32,
}

#: Sides that 32 divides or not, of one pixel more than it does, and as people take them.
SIZES = [(32, 33), (45, 64), (160, 97), (224, 384), (None, None)]


def tier(architecture):
    """The mark of a test that takes seconds where there are many units."""
    return pytest.mark.long if sum(architecture.units) > 16 else ()


every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_architecture_in_its_tier = pytest.mark.parametrize(
    "architecture",
    [pytest.param(name, marks=tier(architecture)) for name, architecture in ARCHITECTURES.items()],
)
every_builder = pytest.mark.parametrize("builder", BUILDERS)
#: With weights, which take JAX minutes to compile.
every_builder_with_weights = pytest.mark.parametrize(
    "builder", [pytest.param(name, marks=LONG_ELSEWHERE) for name in BUILDERS]
)


def checkpoint_with(architecture):
    return bit_keras.model_info(bit_keras.list_models(f"{architecture}.*")[0])


TINY = checkpoint_with("bit_tiny")


def build(builder, checkpoint=TINY, **options):
    """A network with random weights; class activation maps are those of a classifier."""
    create = BUILDERS[builder]
    if "weights" in inspect.signature(create).parameters:
        return create(checkpoint.name, weights=None, **options)
    return create(models.create_classifier(checkpoint.name, weights=None, **options))


def abstract(builder, checkpoint=TINY, **options):
    return abstract_model(functools.partial(build, builder, checkpoint, **options))


def output_shapes(builder, checkpoint, height, width):
    """The shapes for a batch of images of this size, of which either side may be unknown."""
    architecture = checkpoint.architecture

    def positions(stride):
        return tuple(side and math.ceil(side / stride) for side in (height, width))

    def channels(level):
        is_block = level.startswith("block")
        last = architecture.features if level == "pre_logits_map" else architecture.stem_filters
        return architecture.block_filters(int(level[-1])) if is_block else last

    return {
        "create_classifier": (None, checkpoint.classes),
        "create_feature_extractor": (None, architecture.features),
        "create_class_maps": (None, *positions(32), checkpoint.classes),
        "create_feature_maps": {
            level: (None, *positions(stride), channels(level)) for level, stride in STRIDES.items()
        },
    }[builder]


def shapes_of(outputs):
    return keras.tree.map_structure(lambda tensor: (None, *tensor.shape[1:]), outputs)


def assert_equal(found, expected):
    keras.tree.assert_same_structure(found, expected)
    for first, second in zip(*map(keras.tree.flatten, (found, expected)), strict=True):
        np.testing.assert_array_equal(to_numpy(first), to_numpy(second))


# Every architecture, without weights.


@every_architecture
def test_a_classifier_is_that_of_the_registry(architecture):
    assert_that_of_the_registry("create_classifier", checkpoint_with(architecture))


@pytest.mark.slow
@every_architecture_in_its_tier
@pytest.mark.parametrize("builder", sorted(BUILDERS.keys() - {"create_classifier"}))
def test_what_a_builder_makes_is_that_of_the_registry(builder, architecture):
    assert_that_of_the_registry(builder, checkpoint_with(architecture))


def assert_that_of_the_registry(builder, checkpoint):
    """Names and shapes of weights, parameters, and shapes of outputs for images of any size."""
    model, architecture = abstract(builder, checkpoint), checkpoint.architecture
    has_head = any(layer.name == "head" for layer in model.layers)
    assert has_head == ("_class" in builder)
    classes = checkpoint.classes if has_head else None
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    assert len(model.weights) == len(shapes)
    assert shapes == architecture.weight_shapes(classes)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    assert trainable == architecture.parameters(classes)
    assert (model.name, checkpoint_of(model)) == (checkpoint.name, checkpoint.name)
    assert model.input_shape == (None, None, None, 3)
    for size in SIZES:
        outputs = model.compute_output_spec(keras.Input((*size, 3)))
        assert shapes_of(outputs) == output_shapes(builder, checkpoint, *size)


def test_feature_maps_come_in_the_order_of_the_network():
    assert tuple(abstract("create_feature_maps").output) == tuple(STRIDES) == FEATURE_MAPS


@pytest.mark.slow
@every_architecture
def test_multiply_adds_are_those_of_the_registry(architecture):
    checkpoint = checkpoint_with(architecture)
    model = abstract("create_classifier", checkpoint, input_shape=(97, 64, 3))
    total = 0
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            positions = layer.output.shape[1:-1]
            total += math.prod(positions) * math.prod(layer.kernel.shape)
    assert total == checkpoint.architecture.multiply_adds(97, 64, checkpoint.classes)


@pytest.mark.slow
@every_architecture_in_its_tier
def test_a_network_is_made_again_from_its_config(architecture):
    model = abstract("create_classifier", checkpoint_with(architecture))
    again = abstract_model(lambda: type(model).from_config(model.get_config()))
    assert again.get_config() == model.get_config()
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]


# Every builder, without weights.


@every_builder
def test_the_image_data_format_of_the_user_changes_no_config(builder, channels_first):
    found = abstract(builder).get_config()
    keras.config.set_image_data_format("channels_last")
    assert found == abstract(builder).get_config()


@every_builder
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_policies_keep_weights_and_results_in_float32(builder, policy, dtype_policy):
    dtype_policy(policy)
    model = abstract(builder)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    dtypes = {output.dtype for output in keras.tree.flatten(model.output)}
    is_dense = builder == "create_feature_maps"
    assert dtypes == {policy.removeprefix("mixed_") if is_dense else "float32"}


@every_builder
def test_the_input_and_the_name_are_options(builder):
    model = abstract(builder, input_shape=(64, 48, 3))
    assert model.input_shape == (None, 64, 48, 3)
    assert shapes_of(model.output) == output_shapes(builder, TINY, 64, 48)
    named = abstract(builder, name="mine", in_channels=5, include_preprocessing=True)
    assert (named.name, checkpoint_of(named)) == ("mine", TINY.name)
    assert named.input_shape == (None, None, None, 5)
    assert tuple(named.get_layer("stem_conv").kernel.shape) == (7, 7, 5, 32)
    # Pixels 0, 127.5 and 255 to the ends and the middle; float32 rounds 1 / 127.5.
    pixels = named.get_layer("rescaling")(np.array([0, 127.5, 255]))
    np.testing.assert_allclose(to_numpy(pixels), [-1, 0, 1], atol=1e-7)


# Every builder, with weights.


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=LONG_ELSEWHERE) for name in BUILDERS]
)
def builder(request):
    return request.param


@pytest.fixture(scope="module")
def model(builder):
    model = build(builder, name="mine")
    fill_with_seeded_values(model)
    return model


@pytest.mark.slow
def test_images_of_any_size_give_finite_outputs_of_these_shapes(builder, model):
    for height, width in ((45, 33), (32, 64)):
        outputs = model(random_images(height, width), training=False)
        assert shapes_of(outputs) == output_shapes(builder, TINY, height, width)
        assert all(np.isfinite(to_numpy(output)).all() for output in keras.tree.flatten(outputs))


@pytest.mark.slow
def test_a_keras_file_gives_the_same_network_to_the_bit(model, tmp_path):
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is type(model)
    # Files have no tuples.
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    assert (again.name, checkpoint_of(again)) == ("mine", TINY.name)
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]
    assert_equal(again.get_weights(), model.get_weights())
    images = random_images(45, 33)
    assert_equal(again(images), model(images))


@pytest.mark.slow
def test_it_nests_in_other_models(model):
    images = random_images(45, 33)
    inputs = keras.Input((45, 33, 3))
    outer = [keras.Model(inputs, model(inputs))]
    if not isinstance(model.output, dict):
        outer.append(keras.Sequential([inputs, model]))
    for each in outer:
        assert [id(weight) for weight in each.weights] == [id(weight) for weight in model.weights]
        assert_equal(each(images), model(images))


@pytest.mark.slow
@every_builder_with_weights
def test_a_seed_decides_the_random_weights(builder):
    kernels = []
    for seed in (7, 7, 8):
        keras.utils.set_random_seed(seed)
        kernels.append(to_numpy(build(builder).get_layer("stem_conv").kernel))
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
