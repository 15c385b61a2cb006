"""`bit-keras convert`: every format to every other, to the bit."""

import itertools
import json
import zipfile

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.artifacts.members import METADATA
from bit_keras.checkpoints import fill_with_seeded_values, open_checkpoint
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.writing import FORMATS
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform, spec_of
from bit_keras.registry import ARCHITECTURES
from bit_keras.sources import resolve
from tests.cli.running import fails, run, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The command is tested once."
)

#: The name of what each format is written to.
NAMES = {
    "npz": "tiny.npz",
    "flax": "flax.npz",
    "timm": "tiny.safetensors",
    "transformers": "tiny",
    "keras": "tiny.keras",
}


@pytest.fixture(scope="module")
def sources(tiny_npz, tmp_path_factory):
    """The same weights in every format that is written."""
    folder = tmp_path_factory.mktemp("sources")
    for target, name in NAMES.items():
        succeeds("convert", tiny_npz, folder / name, "--to", target)
    return folder


@pytest.fixture
def no_network(monkeypatch):
    """Makes it an error to build a network."""

    def refuse(*_):
        raise AssertionError("a network is built")

    monkeypatch.setattr("bit_keras.models.builders.feature_maps", refuse)


def assert_equal(path, arrays):
    with open_checkpoint(path) as written:
        assert written.shapes == arrays.shapes
        assert set(written.dtypes.values()) == {"float32"}
        for name, value in arrays.items():
            assert np.array_equal(written[name], value), name


@pytest.mark.parametrize(("source", "target"), list(itertools.product(NAMES, FORMATS)))
def test_every_format_becomes_every_other(
    sources, tiny_arrays, tmp_path, source, target, no_network
):
    result = succeeds("convert", sources / NAMES[source], tmp_path / NAMES[target], "--to", target)
    assert result.stdout == f"Wrote {tmp_path / NAMES[target]}.\n"
    assert result.stderr == ""
    assert_equal(tmp_path / NAMES[target], tiny_arrays)
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[target]]


@pytest.mark.parametrize("source", NAMES)
def test_every_format_becomes_a_network_of_keras(sources, tiny_arrays, tmp_path, source):
    succeeds("convert", sources / NAMES[source], tmp_path / "a.keras", "--to", "keras")
    assert_equal(tmp_path / "a.keras", tiny_arrays)
    assert keras.models.load_model(tmp_path / "a.keras").name == "bit_tiny"


def test_a_keras_file_has_what_keras_writes_and_the_spec(sources, tmp_path):
    keras.models.load_model(sources / "tiny.keras").save(tmp_path / "kerass.keras")
    with zipfile.ZipFile(tmp_path / "kerass.keras") as theirs:
        members = {*theirs.namelist(), METADATA}
    with zipfile.ZipFile(sources / "tiny.keras") as ours:
        assert set(ours.namelist()) == members
        assert {member.compress_type for member in ours.infolist()} == {zipfile.ZIP_STORED}


def test_verify_says_that_a_converted_file_has_no_reference_outputs(sources):
    assert "contains no reference inputs and outputs" in fails("verify", sources / "tiny.keras")


@pytest.mark.parametrize("target", FORMATS)
def test_half_precision_halves_the_file(sources, tiny_arrays, tmp_path, target, no_network):
    succeeds(
        "convert", sources / "tiny.npz", tmp_path / "half", "--to", target, "--dtype", "float16"
    )
    with open_checkpoint(tmp_path / "half") as written:
        assert set(written.dtypes.values()) == {"float16"}
        for name, value in tiny_arrays.items():
            assert np.array_equal(written[name], value.astype("float16")), name


def test_networks_with_batch_norm_are_written_where_they_have_a_place(tmp_path, no_network):
    arrays = SeededArrays(official_shapes(ARCHITECTURES["resnetv2_50"], 3))
    write_npz(tmp_path / "a.npz", arrays)
    for target in ("flax", "transformers"):
        sentence = fails("convert", tmp_path / "a.npz", tmp_path / "b", "--to", target)
        assert "has BatchNorm" in sentence
    succeeds("convert", tmp_path / "a.npz", tmp_path / "b", "--to", "timm")
    assert_equal(tmp_path / "b", arrays)


def test_odd_names_become_official_ones(tiny_npz, tmp_path):
    with np.load(tiny_npz) as arrays:
        renamed = {
            name.replace("/standardized_conv2d/", "/standardized_conv2d_7/"): array
            for name, array in arrays.items()
        }
    np.savez_compressed(tmp_path / "odd.npz", **renamed)
    succeeds("convert", tmp_path / "odd.npz", tmp_path / "even.npz", "--to", "npz")
    assert (tmp_path / "even.npz").read_bytes() == tiny_npz.read_bytes()


# Labels and transforms


def labels_in(folder):
    labels = json.loads((folder / "config.json").read_text())["id2label"]
    return tuple(labels[str(index)] for index in range(len(labels)))


@pytest.fixture(scope="module")
def pets():
    labels = Labels("pets", tuple("abcdefghij"), tuple("ABCDEFGHIJ"))
    return ClassifierSpec(labels, eval_transform("bit_tiny.cifar10", 48), "sigmoid")


def test_what_the_registry_knows_goes_along(tiny_npz, tmp_path, no_network):
    cifar10 = spec_of("bit_tiny.cifar10").labels.names
    named = tmp_path / "bit_tiny.cifar10.npz"
    named.write_bytes(tiny_npz.read_bytes())
    for number, source in enumerate(("bit_tiny.cifar10", named)):
        folder = tmp_path / str(number)
        succeeds("convert", source, folder, "--to", "transformers")
        assert labels_in(folder) == cifar10
        processor = json.loads((folder / "preprocessor_config.json").read_text())
        assert processor["crop_size"] == {"height": 64, "width": 64}


def test_other_files_have_numbers_for_labels(tiny_npz, tmp_path):
    succeeds("convert", tiny_npz, tmp_path / "a", "--to", "transformers")
    assert labels_in(tmp_path / "a")[:2] == ("LABEL_0", "LABEL_1")
    assert not (tmp_path / "a" / "preprocessor_config.json").exists()
    # The name of a checkpoint that has another head.
    named = tmp_path / "bit_tiny.cifar10.npz"
    write_npz(named, SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], 7)))
    succeeds("convert", named, tmp_path / "b", "--to", "transformers")
    assert labels_in(tmp_path / "b") == tuple(f"LABEL_{index}" for index in range(7))


def test_the_spec_of_a_keras_file_is_kept(classifier, pets, tmp_path, no_network):
    export_keras(classifier, tmp_path / "a.keras", pets)
    succeeds("convert", tmp_path / "a.keras", tmp_path / "a", "--to", "transformers")
    assert labels_in(tmp_path / "a") == pets.labels.names
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"


@pytest.fixture
def finished_run(tmp_path_factory, pets, tiny_npz):
    """The folder of a training, as `bit-keras finetune` leaves it."""
    folder = tmp_path_factory.mktemp("run")
    sections = {key: {} for key in ("options", "rule", "data")}
    document = {"model": "bit_tiny.cifar10", **sections, "task": pets.to_json()}
    (folder / "run.json").write_text(json.dumps(document))
    (folder / "best.npz").write_bytes(tiny_npz.read_bytes())
    return folder


def test_a_run_gives_its_best_weights_and_its_spec(
    finished_run, pets, tiny_arrays, tmp_path, no_network
):
    succeeds("convert", finished_run, tmp_path / "a", "--to", "transformers")
    assert labels_in(tmp_path / "a") == pets.labels.names
    succeeds("convert", finished_run, tmp_path / "a.safetensors", "--to", "timm")
    assert_equal(tmp_path / "a.safetensors", tiny_arrays)


def test_a_run_becomes_a_keras_file_with_its_spec(finished_run, pets, tmp_path):
    succeeds("convert", finished_run, tmp_path / "a.keras", "--to", "keras")
    assert resolve(tmp_path / "a.keras").spec == pets


def test_a_run_without_weights_is_named(finished_run, tmp_path):
    (finished_run / "best.npz").unlink()
    sentence = fails("convert", finished_run, tmp_path / "a.npz", "--to", "npz")
    assert f"There is no file {finished_run / 'best.npz'}." in sentence


# Other sources


def test_an_exported_model_becomes_weights_again(
    classifier_artifact, classifier, tmp_path, no_network
):
    succeeds("convert", classifier_artifact, tmp_path / "a.npz", "--to", "npz")
    bit_keras.save_weights(classifier, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_repository_in_the_cache_is_converted_without_a_network(
    sources, tiny_npz, tmp_path, monkeypatch
):
    pytest.importorskip("huggingface_hub", reason="it knows the cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--timm--tiny.test"
    snapshot = repository / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    (snapshot / "model.safetensors").write_bytes((sources / "tiny.safetensors").read_bytes())
    for source in ("timm/tiny.test", "hf://timm/tiny.test"):
        succeeds("convert", source, tmp_path / "a.npz", "--to", "npz")
        assert (tmp_path / "a.npz").read_bytes() == tiny_npz.read_bytes()
    sentence = fails("convert", "timm/other", tmp_path / "b.npz", "--to", "npz")
    assert "timm/other cannot be fetched (HF_HUB_OFFLINE is set)" in sentence


def test_the_state_of_an_optimizer_is_skipped_and_named_once(tmp_path):
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    model.compile(keras.optimizers.SGD(momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "a.keras")
    result = succeeds("convert", tmp_path / "a.keras", tmp_path / "a.npz", "--to", "npz")
    with open_checkpoint(tmp_path / "a.keras") as arrays:
        count = len(arrays.left_out)
    assert count > 60
    sentence = f"{count} arrays that are not weights are skipped, such as optimizer/"
    assert result.stderr.count(sentence) == 1
    bit_keras.save_weights(model, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


# Mistakes


def test_what_cannot_be_done_is_named(tiny_npz, tmp_path):
    assert "ends in .keras" in fails("convert", tiny_npz, tmp_path / "a.h5", "--to", "keras")
    assert "There is no file" in fails("convert", tmp_path / "no.npz", "b.npz", "--to", "npz")
    sentence = fails("convert", "bit_r50x1.in21", tmp_path / "a.npz", "--to", "npz")
    assert "The nearest are bit_r50x1.in21k" in sentence
    assert "Nor is there a file of that name." in sentence
    sentence = fails(
        "convert", tiny_npz, tmp_path / "a.keras", "--to", "keras", "--dtype", "float16"
    )
    assert "--dtype goes with --to npz, flax, timm or transformers" in sentence
    assert run("convert", tiny_npz, tmp_path / "a", "--to", "tflite").exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", NAMES)
def test_what_is_not_a_network_of_the_registry_is_refused(tmp_path, target):
    np.savez(tmp_path / "other.npz", **{"dense/kernel": np.zeros((2, 2), "float32")})
    sentence = fails("convert", tmp_path / "other.npz", tmp_path / "x.keras", "--to", target)
    assert "not a network of the registry" in sentence
    assert [path.name for path in tmp_path.iterdir()] == ["other.npz"]


@pytest.mark.parametrize("target", NAMES)
def test_a_folder_in_the_way_is_named_and_left_unchanged(tiny_npz, tmp_path, target):
    (tmp_path / "a.keras").mkdir()
    (tmp_path / "a.keras" / "mine.txt").write_text("mine")
    sentence = fails("convert", tiny_npz, tmp_path / "a.keras", "--to", target)
    assert "is a folder" in sentence or "exists already" in sentence
    assert [path.name for path in tmp_path.rglob("*")] == ["a.keras", "mine.txt"]


@pytest.mark.parametrize("target", NAMES)
def test_damage_is_found_before_anything_is_written(tiny_npz, tmp_path, target, monkeypatch):
    data = bytearray(tiny_npz.read_bytes())
    data[-200_000] ^= 1  # In the last array that is read.
    (tmp_path / "bad.npz").write_bytes(data)
    monkeypatch.setattr("bit_keras.atomic.tempfile", None)  # What begins to write would fail.
    out = tmp_path / "out.keras"
    assert "is damaged" in fails("convert", tmp_path / "bad.npz", out, "--to", target)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]
