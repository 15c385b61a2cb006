"""From what a user names to a network: every format, and nothing else."""

import numpy as np
import pytest

from bit_keras import registry
from bit_keras.checkpoints import save_weights
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.errors import BitKerasError, CheckpointError
from bit_keras.exporters.hub import export_hub
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.inference import load_network, load_predictor
from bit_keras.models import create_classifier
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform
from bit_keras.registry import ARCHITECTURES

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 40, 40, 3)).astype("float32")


def assert_same_network(model, other):
    assert np.array_equal(model.predict_on_batch(IMAGES), other.predict_on_batch(IMAGES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "name"),
    [("npz", "a.npz"), ("flax", "a"), ("timm", "a.bin"), ("transformers", "folder")],
)
def test_every_format_becomes_the_network(classifier, tmp_path, format, name):
    save_weights(classifier, tmp_path / name, format)
    model, spec = load_network(tmp_path / name)
    assert (model.name, spec) == ("bit_tiny", None)
    assert_same_network(model, classifier)


def test_an_exported_model_becomes_the_network(classifier, classifier_artifact, tmp_path):
    model, spec = load_network(classifier_artifact)
    assert_same_network(model, classifier)
    assert (model.name, spec.labels.name) == ("bit_tiny.cifar10", "cifar10")
    folded = tmp_path / "bit_tiny.cifar10"
    export_hub(classifier, folded, folded=True)
    model, _ = load_network(folded)
    assert model.name == "bit_tiny.cifar10"
    assert_same_network(model, classifier)


def test_a_file_that_is_named_after_a_checkpoint_is_known_by_it(classifier, tmp_path):
    save_weights(classifier, tmp_path / "bit_tiny.cifar10.safetensors", "timm")
    assert load_network(tmp_path / "bit_tiny.cifar10.safetensors")[0].name == "bit_tiny.cifar10"
    grey = SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], 10, in_channels=1))
    write_npz(tmp_path / "bit_tiny.cifar10.npz", grey)
    model, _ = load_network(tmp_path / "bit_tiny.cifar10.npz")
    assert (model.name, model.input_shape[-1]) == ("bit_tiny.cifar10", 1)


@pytest.mark.slow
def test_a_file_without_a_head_becomes_an_extractor(extractor, tmp_path):
    for name in ("a.npz", "bit_tiny.cifar10.npz"):
        save_weights(extractor, tmp_path / name)
        assert_same_network(load_network(tmp_path / name)[0], extractor)


@pytest.mark.slow
def test_a_model_name_is_its_published_network():
    model, spec = load_network("bit_tiny.cifar10")
    assert (model.name, spec) == ("bit_tiny.cifar10", None)
    assert_same_network(model, create_classifier("bit_tiny.cifar10"))


def test_a_keras_file_keeps_its_spec_and_what_is_around_the_network(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None, include_preprocessing=True)
    pets = Labels("pets", tuple("abcdefghij"), tuple("ABCDEFGHIJ"))
    spec = ClassifierSpec(pets, eval_transform("bit_tiny.cifar10", 48))
    export_keras(model, tmp_path / "a.keras", spec)
    loaded, stored = load_network(tmp_path / "a.keras")
    assert stored == spec
    assert any(layer.name == "rescaling" for layer in loaded.layers)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="folder without weights"):
        load_network(tmp_path)
    with pytest.raises(CheckpointError, match="There is no file"):
        load_network(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", **{"dense/kernel": np.zeros((2, 2), "float32")})
    with pytest.raises(CheckpointError, match="not a network of the registry"):
        load_network(tmp_path / "a.npz")


def test_a_repository_is_known_by_its_name(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="it knows the cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    names = {**registry._names(), "timm/tiny.test": "bit_tiny.cifar10"}
    monkeypatch.setattr(registry, "_names", lambda: names)
    repository = tmp_path / "models--timm--tiny.test"
    snapshot = repository / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    save_weights(create_classifier("bit_tiny.cifar10"), snapshot / "model.safetensors", "timm")
    model, _ = load_network("hf://timm/tiny.test")
    assert model.name == "bit_tiny.cifar10"
    assert load_predictor("hf://timm/tiny.test").spec.labels.name == "cifar10"


def test_predictions_need_labels(classifier, tmp_path):
    save_weights(classifier, tmp_path / "a", "transformers")
    with pytest.raises(BitKerasError, match="is not a checkpoint of the registry"):
        load_predictor(tmp_path / "a")
