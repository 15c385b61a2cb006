"""The registry against the published numbers, written out here a second time."""

import collections
import math

import pytest

import bit_keras
from bit_keras.checkpoints.names import official_shapes
from bit_keras.errors import BitKerasError, UnknownModelError
from bit_keras.registry import ARCHITECTURES, CHECKPOINTS, OFFICIAL_ROOT

# Without a head, with 1000 classes, with 21843: equal to timm's counts for the same networks.
PARAMETERS = {
    "bit_r50x1": (23_500_352, 25_549_352, 68_256_659),
    "bit_r50x3": (211_174_080, 217_319_080, 345_399_315),
    "bit_r101x1": (42_492_480, 44_541_480, 87_248_787),
    "bit_r101x3": (381_789_888, 387_934_888, 516_015_123),
    "bit_r152x2": (232_238_208, 236_335_208, 321_728_979),
    "bit_r152x4": (928_340_224, 936_533_224, 1_107_299_923),
}

FEATURES = {
    "bit_r50x1": 2048,
    "bit_r50x3": 6144,
    "bit_r101x1": 2048,
    "bit_r101x3": 6144,
    "bit_r152x2": 4096,
    "bit_r152x4": 8192,
    "resnetv2_50": 2048,
    "resnetv2_101": 2048,
    "bit_tiny": 1024,
}

# Billions of multiply-adds of the convolutions and a head of 1000 classes for one image of these
# sides, computed by hand from the layers of the papers.
GMAC_SIZES = (128, 160, 224, 384, 448, 480, 512)
GMACS = {
    "bit_r50x1": (1.34, 2.09, 4.09, 12.01, 16.35, 18.77, 21.36),
    "bit_r50x3": (11.79, 18.41, 36.08, 106.03, 144.31, 165.66, 188.49),
    "bit_r101x1": (2.55, 3.98, 7.80, 22.92, 31.20, 35.82, 40.75),
    "bit_r101x3": (22.70, 35.46, 69.49, 204.21, 277.95, 319.08, 363.04),
    "bit_r152x2": (14.96, 23.38, 45.81, 134.63, 183.25, 210.36, 239.34),
    "bit_r152x4": (59.69, 93.26, 182.78, 537.13, 731.08, 839.25, 954.88),
}

# timm results CSVs @aa4b585.
GMACS_OF_TIMM = {
    ("bit_r50x1", 224): 4.23,
    ("bit_r50x1", 448): 16.62,
    ("bit_r50x3", 224): 37.06,
    ("bit_r101x1", 224): 8.04,
    ("bit_r101x3", 224): 71.23,
    ("bit_r152x2", 224): 46.95,
    ("bit_r152x2", 384): 136.16,
    ("bit_r152x4", 480): 844.84,
}

# timm's measurement on ImageNet-1k, the side of the crop, what precedes the crop.
TIMM = {
    "bit_r50x1.distilled_in1k_224": (82.820, 224, 256, "bicubic"),
    "bit_r152x2.teacher_in1k_224": (82.918, 224, 256, "bicubic"),
    "bit_r152x2.teacher_in1k_384": (83.858, 384, 384, "bicubic"),
    "bit_r50x1.in21k_ft_in1k": (80.386, 448, 448, "bilinear"),
    "bit_r101x1.in21k_ft_in1k": (82.332, 448, 448, "bilinear"),
    "bit_r50x3.in21k_ft_in1k": (83.982, 448, 448, "bilinear"),
    "bit_r101x3.in21k_ft_in1k": (84.430, 448, 448, "bilinear"),
    "bit_r152x2.in21k_ft_in1k": (84.468, 448, 448, "bilinear"),
    "bit_r152x4.in21k_ft_in1k": (84.936, 480, 480, "bilinear"),
}

FILES = {
    "bit_r50x1.distilled_in1k_224": "distill/R50x1_224.npz",
    "bit_r50x1.distilled_in1k_160": "distill/R50x1_160.npz",
    "bit_r152x2.teacher_in1k_224": "distill/R152x2_T_224.npz",
    "bit_r152x2.teacher_in1k_384": "distill/R152x2_T_384.npz",
    "bit_r152x2.teacher_flowers_128": "distill/R152x2_T_flowers128.npz",
    "bit_r152x4.in21k": "BiT-M-R152x4.npz",
    "bit_r101x3.in1k": "BiT-S-R101x3.npz",
    "bit_r50x3.in21k_ft_in1k": "BiT-M-R50x3-ILSVRC2012.npz",
    "bit_r50x1.in21k_ft_cifar10": "BiT-M-R50x1-CIFAR10.npz",
    "bit_r101x1.in21k_ft_vtab_smallnorb_azimuth_run2": (
        "vtab/BiT-M-R101x1-run2-smallnorb-azimuth.npz"
    ),
}

ALIASES = {
    "BiT-M-R50x1": "bit_r50x1.in21k",
    "BiT-M-R50x1.npz": "bit_r50x1.in21k",
    "gs://bit_models/vtab/BiT-M-R50x1-run0-svhn.npz": "bit_r50x1.in21k_ft_vtab_svhn_run0",
    "https://storage.googleapis.com/bit_models/distill/R50x1_160.npz": (
        "bit_r50x1.distilled_in1k_160"
    ),
    "R152x2_T_384": "bit_r152x2.teacher_in1k_384",
    "google/bit-50": "bit_r50x1.in21k_ft_in1k",
    "https://tfhub.dev/google/bit/s-r101x1/1": "bit_r101x1.in1k",
    "google/bit/m-r50x1/imagenet21k_classification/1": "bit_r50x1.in21k",
    "https://tfhub.dev/sayakpaul/bit_r152x2_384_feature_extraction/1": (
        "bit_r152x2.teacher_in1k_384"
    ),
    # What the README of that collection and its first model page link to.
    "https://tfhub.dev/sayakpaul/distill_bit_r50x1_224_classification/1": (
        "bit_r50x1.distilled_in1k_224"
    ),
    "https://tfhub.dev/sayakpaul/distill_bit_r50x1_160_classification/1": (
        "bit_r50x1.distilled_in1k_160"
    ),
    "sayakpaul/bit_r152x2_384_classification/1": "bit_r152x2.teacher_in1k_384",
    "sayakpaul/bit_r152x2_224_classification/1": "bit_r152x2.teacher_in1k_224",
    "resnetv2_50x1_bitm": "bit_r50x1.in21k_ft_in1k",
    "resnetv2_50x1_bit.goog_in21k": "bit_r50x1.in21k",
    "timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k": "bit_r152x2.teacher_in1k_224",
    "timm/resnetv2_101.a1h_in1k": "resnetv2_101.a1h_in1k",
    "resnetv2_50_a1h-000cdf49.pth": "resnetv2_50.a1h_in1k",
}


def top1_of_timm(checkpoint):
    """timm's top-1 on ImageNet-1k and the size that it was measured at."""
    (accuracy,) = (
        accuracy
        for accuracy in checkpoint.accuracies
        if (accuracy.dataset, accuracy.metric) == ("ImageNet-1k", "top-1")
        and accuracy.source.startswith("timm")
    )
    return accuracy.value, accuracy.size


# Architectures.


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    counts = tuple(ARCHITECTURES[name].parameters(classes) for classes in (None, 1000, 21843))
    assert counts == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "count"), [("resnetv2_50", 25_549_352), ("resnetv2_101", 44_541_480)]
)
def test_moving_statistics_are_not_parameters(name, count):
    assert ARCHITECTURES[name].parameters(1000) == count
    assert any("/moving_" in path for path in ARCHITECTURES[name].weight_shapes())


@pytest.mark.parametrize("name", GMACS)
def test_multiply_adds_are_those_computed_by_hand(name):
    architecture = ARCHITECTURES[name]
    counts = [architecture.multiply_adds(size, size, 1000) / 1e9 for size in GMAC_SIZES]
    assert tuple(round(count, 2) for count in counts) == GMACS[name]


@pytest.mark.parametrize(("name", "size"), GMACS_OF_TIMM)
def test_multiply_adds_are_a_little_less_than_timm_counts(name, size):
    # timm's counter adds what normalisation and activations cost.
    ratio = ARCHITECTURES[name].multiply_adds(size, size, 1000) / 1e9 / GMACS_OF_TIMM[name, size]
    assert 0.96 < ratio < 1


def test_multiply_adds_round_odd_sides_up_and_leave_the_head_out_where_there_is_none():
    architecture = ARCHITECTURES["bit_r50x1"]
    assert architecture.multiply_adds(223, 224) == architecture.multiply_adds(224, 224)
    # The last map of 33 pixels is 2x2, that of 32 is 1x1.
    assert architecture.multiply_adds(33, 33) > architecture.multiply_adds(33, 32)
    assert (
        architecture.multiply_adds(224, 224, 1000) - architecture.multiply_adds(224, 224)
        == 2048 * 1000
    )


@pytest.mark.parametrize(
    ("depth", "count"), [("r50", 153), ("r101", 306), ("r152", 459)], ids=["r50", "r101", "r152"]
)
def test_array_counts_are_those_of_the_official_files(depth, count):
    names = [name for name in ARCHITECTURES if name.startswith(f"bit_{depth}x")]
    assert len(names) == 2
    for name in names:
        assert len(ARCHITECTURES[name].weight_shapes(1000)) == count
        assert len(ARCHITECTURES[name].weight_shapes()) == count - 2


def test_pooled_features_are_as_wide_as_published():
    assert {name: a.features for name, a in ARCHITECTURES.items()} == FEATURES


def test_the_max_pool_sees_zeros_in_bit_and_nothing_in_the_siblings():
    borders = {name: a.pool_border for name, a in ARCHITECTURES.items()}
    siblings = {"resnetv2_50", "resnetv2_101"}
    assert borders == {name: -math.inf if name in siblings else 0.0 for name in FEATURES}


@pytest.mark.parametrize("name", FEATURES)
def test_official_names_are_one_to_one(name):
    paths = ARCHITECTURES[name].weight_shapes(1000)
    assert len(official_shapes(ARCHITECTURES[name], 1000)) == len(paths)


# The sizes of the official files, computed only from names and shapes.


def npz_bytes(shapes, zip64_extras):
    """The size of `np.savez(**arrays)` for float32 arrays in alphabetical order.

    Field sizes: PKWARE's APPNOTE.TXT, sections 4.3.7, 4.3.12, 4.3.14 to 4.3.16 and 4.5.3.
    """
    beyond = 2**31 - 1  # What CPython's zipfile lets a 32-bit field store.
    offset = index = 0
    for name, shape in sorted(shapes.items()):
        member = len(f"{name}.npy")
        index += 46 + member + (12 if offset > beyond else 0)
        # A local header, an npy header of 128 bytes, the values.
        offset += 30 + member + (20 if zip64_extras else 0) + 128 + 4 * math.prod(shape)
    end = 22 + (56 + 20 if offset > beyond else 0)
    return offset + index + end


@pytest.mark.parametrize("size", ["r50x1", "r50x3", "r101x1", "r101x3", "r152x2", "r152x4"])
def test_names_and_shapes_make_files_of_the_published_size(size):
    # One letter more in one name would add two bytes: this checks the names without the files.
    checkpoint = bit_keras.model_info(f"bit_{size}.in21k_ft_in1k")
    shapes = official_shapes(checkpoint.architecture, 1000)
    assert npz_bytes(shapes, zip64_extras=False) == checkpoint.bytes


def test_the_teacher_was_written_by_a_newer_numpy_that_adds_zip64_extras():
    checkpoint = bit_keras.model_info("bit_r152x2.teacher_in1k_384")
    shapes = official_shapes(checkpoint.architecture, 1000)
    assert npz_bytes(shapes, zip64_extras=True) == checkpoint.bytes == 945_485_848


def test_published_sizes_are_literals():
    known = {name: c.bytes for name, c in CHECKPOINTS.items() if c.bytes is not None}
    assert known == {
        "bit_r50x1.in21k_ft_in1k": 102_242_668,
        "bit_r50x3.in21k_ft_in1k": 869_321_580,
        "bit_r101x1.in21k_ft_in1k": 178_256_468,
        "bit_r101x3.in21k_ft_in1k": 1_551_830_100,
        "bit_r152x2.in21k_ft_in1k": 945_476_668,
        "bit_r152x4.in21k_ft_in1k": 3_746_270_104,
        "bit_r152x2.teacher_in1k_384": 945_485_848,
        "bit_tiny.cifar10": 4_754_704,
    }


# Checkpoints.


def test_a_name_is_an_architecture_and_a_tag():
    for name, checkpoint in CHECKPOINTS.items():
        architecture, dot, tag = name.partition(".")
        assert (architecture, dot) == (checkpoint.architecture.name, "."), name
        assert tag, name
        assert checkpoint.name == name
        assert ARCHITECTURES[architecture] is checkpoint.architecture


def test_the_families_are_complete():
    tags = collections.Counter(name.partition(".")[2].partition("_vtab")[0] for name in CHECKPOINTS)
    assert tags == {
        "distilled_in1k_224": 1,
        "distilled_in1k_160": 1,
        "teacher_in1k_384": 1,
        "teacher_in1k_224": 1,
        "teacher_flowers_128": 1,
        "teacher_pet_128": 1,
        "teacher_food_128": 1,
        "teacher_sun_128": 1,
        "in21k": 6,
        "in21k_ft_in1k": 6,
        "in1k": 5,
        "in21k_ft_cifar10": 1,
        "a1h_in1k": 2,
        "cifar10": 1,
        "in21k_ft": 285,  # VTAB: 19 tasks, 3 runs, 5 architectures.
    }


@pytest.mark.parametrize("name", TIMM)
def test_accuracy_and_transform_are_those_that_timm_measured(name):
    checkpoint = CHECKPOINTS[name]
    top1, size, side, interpolation = TIMM[name]
    assert top1_of_timm(checkpoint) == (top1, size)
    assert checkpoint.size == size
    resizing = checkpoint.resizing
    assert (resizing.mode, resizing.side, resizing.interpolation) == (
        "short_side",
        side,
        interpolation,
    )


def test_the_160_pixel_student_has_the_accuracy_that_its_authors_state():
    (accuracy,) = CHECKPOINTS["bit_r50x1.distilled_in1k_160"].accuracies
    assert (accuracy.value, accuracy.size) == (80.5, 160)


@pytest.mark.parametrize("name", FILES)
def test_files_are_where_google_published_them(name):
    assert CHECKPOINTS[name].file == FILES[name]
    assert CHECKPOINTS[name].url == OFFICIAL_ROOT + FILES[name]


@pytest.mark.parametrize("depth", ["50", "101"])
def test_the_siblings_with_batch_norm_are_repositories_of_timm(depth):
    checkpoint = CHECKPOINTS[f"resnetv2_{depth}.a1h_in1k"]
    assert checkpoint.url == f"hf://timm/resnetv2_{depth}.a1h_in1k"
    assert checkpoint.file == f"timm/resnetv2_{depth}.a1h_in1k"
    assert bit_keras.model_info(checkpoint.url) is checkpoint


def test_no_two_checkpoints_share_a_file():
    urls = [c.url for c in CHECKPOINTS.values()]
    assert len(urls) == len(set(urls))


def test_imagenet_21k_heads_are_multi_label_and_all_others_are_not():
    for name, checkpoint in CHECKPOINTS.items():
        is_21k = name.endswith(".in21k")
        assert checkpoint.activation == ("sigmoid" if is_21k else "softmax"), name
        assert (checkpoint.classes == 21843) == is_21k, name


def test_parameters_of_a_checkpoint_include_its_head():
    assert CHECKPOINTS["bit_r50x1.in21k"].parameters == PARAMETERS["bit_r50x1"][2]


# Looking up.


def test_every_name_and_alias_resolves_to_its_own_checkpoint():
    for name, checkpoint in CHECKPOINTS.items():
        for alias in (name, *checkpoint.aliases):
            # Two checkpoints with one alias: the earlier of them would fail here.
            assert bit_keras.model_info(alias) is checkpoint, alias
            assert bit_keras.model_info(f" {alias.upper()} ") is checkpoint, alias


@pytest.mark.parametrize("alias", ALIASES)
def test_names_that_people_know_are_aliases(alias):
    assert bit_keras.model_info(alias).name == ALIASES[alias]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("bit_r50x1.distiled_in1k_224", "bit_r50x1.distilled_in1k_224"),
        ("bit_r50x1.in22k", "bit_r50x1.in21k"),
        ("R152x2_T_348", "bit_r152x2.teacher_in1k_384"),
        ("resnetv2_50x1_bit.goog_in21", "bit_r50x1.in21k"),
    ],
)
def test_an_unknown_name_fails_with_the_nearest_ones(name, nearest):
    with pytest.raises(UnknownModelError) as caught:
        bit_keras.model_info(name)
    message = str(caught.value)
    assert message.startswith(f"There is no model {name!r}. The nearest are ")
    assert nearest in message
    assert message.endswith("`bit-keras list` shows all of them.")


def test_a_name_like_no_other_fails_without_a_suggestion():
    with pytest.raises(UnknownModelError) as caught:
        bit_keras.model_info("??")
    assert str(caught.value) == "There is no model '??'. `bit-keras list` shows all of them."


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_without_a_tag_fails_and_says_what_to_add(name):
    with pytest.raises(UnknownModelError, match="is an architecture") as caught:
        bit_keras.model_info(name)
    assert bit_keras.list_models(f"{name}.*")[0] in str(caught.value)


def test_an_unknown_name_is_also_a_lookup_error_and_an_error_of_this_package():
    assert issubclass(UnknownModelError, LookupError)
    assert issubclass(UnknownModelError, BitKerasError)


def test_list_models_lists_all_and_takes_shell_patterns():
    assert bit_keras.list_models() == list(CHECKPOINTS)
    assert bit_keras.list_models("*distilled*") == [
        "bit_r50x1.distilled_in1k_224",
        "bit_r50x1.distilled_in1k_160",
    ]
    assert bit_keras.list_models("resnetv2_?0.*") == ["resnetv2_50.a1h_in1k"]
    assert len(bit_keras.list_models("*_vtab_*")) == 285
    assert bit_keras.list_models("nothing") == []


def test_the_classes_of_vtab_are_those_of_its_own_script():
    # google-research/task_adaptation @d7630d3, scripts/run_all_tasks.sh: `num_classes=16`.
    for name in bit_keras.list_models("*_dsprites_*"):
        assert bit_keras.model_info(name).classes == 16


def test_residual_units_are_those_of_the_weights():
    for architecture in ARCHITECTURES.values():
        units = list(architecture.residual_units())
        assert len(units) == sum(architecture.units)
        layers = {path.partition("/")[0] for path in architecture.weight_shapes()}
        assert {unit.name for unit in units} == {
            layer.rpartition("_")[0] for layer in layers if "_unit" in layer
        }
        assert {unit.name for unit in units if unit.projects} == {
            layer.removesuffix("_proj") for layer in layers if layer.endswith("_proj")
        }
        assert [unit.block for unit in units if unit.strides == 2] == [2, 3, 4]
        assert [unit.in_filters for unit in units[1:]] == [unit.filters for unit in units[:-1]]
