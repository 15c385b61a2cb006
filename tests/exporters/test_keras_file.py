"""A `.keras` file with its spec inside, as Keras and as this package read it."""

import zipfile

import keras
import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.errors import BitKerasError, CheckpointError, ExportError
from bit_keras.exporters.keras_archive import convert_to_keras, export_keras
from bit_keras.inference import load_predictor
from bit_keras.models import create_classifier, create_feature_maps
from bit_keras.models.builders import network_of_file
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform, spec_of
from bit_keras.registry import ARCHITECTURES
from bit_keras.sources import resolve


def test_keras_loads_the_file_as_any_other(classifier, exported):
    path, _ = exported(classifier, "keras")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    loaded = keras.models.load_model(path)
    assert np.array_equal(loaded.predict(images, verbose=0), classifier.predict(images, verbose=0))


def test_the_task_travels_along(classifier, extractor, tmp_path):
    export_keras(classifier, tmp_path / "a.keras")
    assert resolve(tmp_path / "a.keras").spec == spec_of("bit_tiny.cifar10")
    pets = Labels("pets", tuple("abcdefghij"), tuple("ABCDEFGHIJ"))
    spec = ClassifierSpec(pets, eval_transform("bit_tiny.cifar10", 48), "sigmoid")
    export_keras(classifier, tmp_path / "a.keras", spec)
    assert resolve(tmp_path / "a.keras").spec == spec
    export_keras(extractor, tmp_path / "b.keras")
    assert resolve(tmp_path / "b.keras").spec is None


def test_files_that_only_keras_wrote_have_no_task(classifier, tmp_path):
    classifier.save(tmp_path / "a.keras")
    assert resolve(tmp_path / "a.keras").spec is None


def test_damaged_metadata_are_named(tmp_path):
    (tmp_path / "a.keras").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="not exported by bit_keras"):
        _ = Artifact(tmp_path / "a.keras").metadata
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as archive:
        archive.writestr("assets.extra/bit_keras.json", "{")
    with pytest.raises(ExportError, match="cannot be read"):
        _ = Artifact(tmp_path / "b.keras").metadata


def test_a_head_with_scores_after_it_counts_as_well(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None, classifier_activation="softmax")
    export_keras(model, tmp_path / "a.keras")
    assert resolve(tmp_path / "a.keras").spec.labels.name == "cifar10"


@pytest.mark.long
def test_the_file_passes_its_self_check_in_a_fresh_process(classifier, extractor, tmp_path):
    pixels = create_classifier("bit_tiny.cifar10", include_preprocessing=True)
    maps = create_feature_maps("bit_tiny.cifar10", levels=("block1", "block4"))
    for number, model in enumerate((classifier, extractor, pixels, maps)):
        export_keras(model, tmp_path / f"{number}.keras")
        verification = Artifact(tmp_path / f"{number}.keras").verify()
        assert verification.differences.keys() == {"the network"}
        assert verification.passed
    assert Artifact(tmp_path / "2.keras").metadata.input_range == (0.0, 255.0)


@pytest.mark.long
def test_networks_for_other_images_pass_their_self_check_and_classify_no_rgb(tmp_path):
    export_keras(create_classifier("bit_tiny.cifar10", in_channels=1), tmp_path / "grey.keras")
    assert Artifact(tmp_path / "grey.keras").verify().passed
    with pytest.raises(BitKerasError, match=r"in_channels=1, and images are read as RGB; call"):
        load_predictor(tmp_path / "grey.keras")


@pytest.mark.long
def test_a_changed_file_fails(classifier, tmp_path):
    export_keras(classifier, tmp_path / "a.keras")
    other = create_classifier("bit_tiny.cifar10")
    other.save(tmp_path / "b.keras")
    with (
        zipfile.ZipFile(tmp_path / "a.keras") as exported,
        zipfile.ZipFile(tmp_path / "b.keras", "a") as changed,
    ):
        for name in ("assets.extra/bit_keras.json", "assets.extra/golden.npz"):
            changed.writestr(name, exported.read(name))
    assert not Artifact(tmp_path / "b.keras").verify().passed


@pytest.mark.long
def test_half_precision_is_held_to_what_it_can_do(dtype_policy, tmp_path):
    dtype_policy("mixed_bfloat16")
    export_keras(create_classifier("bit_tiny.cifar10"), tmp_path / "a.keras")
    verification = Artifact(tmp_path / "a.keras").verify()
    assert verification.metadata.precision == "bfloat16"
    assert verification.metadata.tolerance == 5e-2
    assert verification.passed


@pytest.mark.parametrize(
    ("architecture", "classes", "channels"),
    [("bit_tiny", 10, 3), ("bit_tiny", None, 3), ("bit_tiny", 10, 1), ("resnetv2_50", 7, 3)],
)
def test_a_converted_file_is_the_network_to_the_bit(tmp_path, architecture, classes, channels):
    shapes = official_shapes(ARCHITECTURES[architecture], classes, channels)
    write_npz(tmp_path / "x.npz", SeededArrays(shapes))
    with open_checkpoint(tmp_path / "x.npz") as arrays:
        convert_to_keras("x.npz", arrays, tmp_path / "x.keras")
    expected, found = (
        network_of_file(tmp_path / "x.npz"),
        keras.models.load_model(tmp_path / "x.keras"),
    )
    assert (found.name, found.output_shape) == (expected.name, expected.output_shape)
    for theirs, ours in zip(found.weights, expected.weights, strict=True):
        assert theirs.path == ours.path
        np.testing.assert_array_equal(theirs.numpy(), ours.numpy())
    # Also what a weight would begin with, were it initialised again.
    assert found.get_layer("stem_conv").get_config() == expected.get_layer("stem_conv").get_config()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".h5"] == []


def test_a_conversion_that_fails_leaves_the_old_file(tmp_path, classifier):
    export_keras(classifier, tmp_path / "x.keras")
    before = (tmp_path / "x.keras").read_bytes()
    arrays = SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], 10))
    write_npz(tmp_path / "x.npz", arrays)
    damaged = bytearray((tmp_path / "x.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "x.npz").write_bytes(damaged)
    with open_checkpoint(tmp_path / "x.npz") as opened, pytest.raises(CheckpointError):
        convert_to_keras("x.npz", opened, tmp_path / "x.keras")
    assert (tmp_path / "x.keras").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.keras", "x.npz"]
