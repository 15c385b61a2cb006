"""The rule between weight paths and official array names."""

import pytest

from bit_keras.checkpoints.names import (
    head_classes,
    identify,
    official_names,
    official_shapes,
    without_numbers,
)
from bit_keras.registry import ARCHITECTURES, Architecture

# The names are those of `google-research/big_transfer`, read there and not made by the rule.
GROUP_NORM_NAMES = {
    "stem_conv/kernel": "resnet/root_block/standardized_conv2d/kernel",
    "block1_unit01_norm1/gamma": "resnet/block1/unit01/a/group_norm/gamma",
    "block1_unit01_norm1/beta": "resnet/block1/unit01/a/group_norm/beta",
    "block1_unit01_proj/kernel": "resnet/block1/unit01/a/proj/standardized_conv2d/kernel",
    "block1_unit01_conv1/kernel": "resnet/block1/unit01/a/standardized_conv2d/kernel",
    "block1_unit02_norm2/gamma": "resnet/block1/unit02/b/group_norm/gamma",
    "block1_unit02_norm2/beta": "resnet/block1/unit02/b/group_norm/beta",
    "block2_unit03_conv2/kernel": "resnet/block2/unit03/b/standardized_conv2d/kernel",
    "block2_unit04_norm3/gamma": "resnet/block2/unit04/c/group_norm/gamma",
    "block2_unit04_norm3/beta": "resnet/block2/unit04/c/group_norm/beta",
    "block3_unit06_conv3/kernel": "resnet/block3/unit06/c/standardized_conv2d/kernel",
    "block4_unit01_proj/kernel": "resnet/block4/unit01/a/proj/standardized_conv2d/kernel",
    "block4_unit03_conv3/kernel": "resnet/block4/unit03/c/standardized_conv2d/kernel",
    "norm/gamma": "resnet/group_norm/gamma",
    "norm/beta": "resnet/group_norm/beta",
    "head/kernel": "resnet/head/conv2d/kernel",
    "head/bias": "resnet/head/conv2d/bias",
}
BATCH_NORM_NAMES = {
    "stem_conv/kernel": "resnet/root_block/conv2d/kernel",
    "block1_unit01_norm1/gamma": "resnet/block1/unit01/a/batch_norm/gamma",
    "block1_unit01_norm1/moving_mean": "resnet/block1/unit01/a/batch_norm/moving_mean",
    "block2_unit01_proj/kernel": "resnet/block2/unit01/a/proj/conv2d/kernel",
    "block2_unit04_conv2/kernel": "resnet/block2/unit04/b/conv2d/kernel",
    "block4_unit03_norm3/moving_variance": "resnet/block4/unit03/c/batch_norm/moving_variance",
    "norm/moving_mean": "resnet/batch_norm/moving_mean",
    "head/kernel": "resnet/head/conv2d/kernel",
}

all_architectures = pytest.mark.parametrize(
    "architecture", ARCHITECTURES.values(), ids=list(ARCHITECTURES)
)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [("bit_r50x1", GROUP_NORM_NAMES), ("resnetv2_50", BATCH_NORM_NAMES)],
)
def test_names_are_the_published_ones(architecture, names):
    made = official_names(ARCHITECTURES[architecture].weight_shapes(1000))
    assert {path: made.get(path) for path in names} == names


@all_architectures
def test_the_rule_is_one_to_one(architecture):
    paths = architecture.weight_shapes(1000)
    names = official_names(paths)
    assert list(names) == list(paths)
    assert len(set(names.values())) == len(paths)


@pytest.mark.parametrize(
    ("architecture", "arrays"),
    [("bit_r50x1", 153), ("bit_r50x3", 153), ("bit_r101x1", 306), ("bit_r152x4", 459)],
)
def test_a_file_has_as_many_arrays_as_the_published_one(architecture, arrays):
    assert len(official_shapes(ARCHITECTURES[architecture], 1000)) == arrays
    assert len(official_shapes(ARCHITECTURES[architecture], None)) == arrays - 2


def test_shapes_are_the_published_ones():
    shapes = official_shapes(ARCHITECTURES["bit_r50x3"], 21843)
    assert shapes["resnet/root_block/standardized_conv2d/kernel"] == (7, 7, 3, 192)
    assert shapes["resnet/block1/unit01/a/group_norm/gamma"] == (192,)
    proj = "resnet/block1/unit01/a/proj/standardized_conv2d/kernel"
    assert shapes[proj] == (1, 1, 192, 768)
    assert shapes["resnet/block4/unit03/b/standardized_conv2d/kernel"] == (3, 3, 1536, 1536)
    assert shapes["resnet/head/conv2d/kernel"] == (1, 1, 6144, 21843)
    assert shapes["resnet/head/conv2d/bias"] == (21843,)


@pytest.mark.parametrize(
    "path",
    [
        "dense/kernel",
        "my_head/kernel",
        "block1_unit1_conv1/kernel",
        "block1_unit01_conv4/kernel",
        "block1_unit01_conv1_extra/kernel",
        "kernel",
        "",
    ],
)
def test_layers_of_others_get_no_name(path):
    assert official_names({path: (1, 1, 2, 3)}) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "resnet/block1/unit01/a/standardized_conv2d_7/kernel",
            "resnet/block1/unit01/a/standardized_conv2d/kernel",
        ),
        (
            "resnet/block4/unit01/a/proj/standardized_conv2d_123/kernel",
            "resnet/block4/unit01/a/proj/standardized_conv2d/kernel",
        ),
        ("resnet/standardized_conv2d_x/kernel", "resnet/standardized_conv2d_x/kernel"),
        ("resnet/group_norm_7/gamma", "resnet/group_norm_7/gamma"),
    ],
)
def test_numbers_after_standardized_conv2d_are_dropped_and_no_others(name, expected):
    assert without_numbers(name) == expected


@all_architectures
@pytest.mark.parametrize("classes", [None, 1, 10, 21843])
def test_every_architecture_is_recognised_with_any_head(architecture, classes):
    shapes = official_shapes(architecture, classes)
    assert identify(dict(reversed(shapes.items()))) is architecture
    assert head_classes(shapes) == classes


@all_architectures
def test_nothing_else_is_recognised(architecture):
    shapes = official_shapes(architecture, 10)
    kernel = next(
        name for name in shapes if "/block3/unit01/b/" in name and name.endswith("kernel")
    )
    assert identify({name: shape for name, shape in shapes.items() if name != kernel}) is None
    assert identify(shapes | {"resnet/block9/unit01/a/group_norm/gamma": (64,)}) is None
    assert identify(shapes | {kernel: (3, 3, 1, 1)}) is None
    assert identify(shapes | {"resnet/head/conv2d/bias": (11,)}) is None
    assert identify(shapes | {"resnet/head/conv2d/bias": (1, 10)}) is None


@pytest.mark.parametrize(
    "stranger",
    [Architecture("r26", (2, 2, 2, 2)), Architecture("r50x5", (3, 4, 6, 3), width=5)],
    ids=lambda architecture: architecture.name,
)
def test_networks_outside_the_registry_are_not_recognised(stranger):
    assert identify(official_shapes(stranger, 1000)) is None
    assert identify({}) is None
