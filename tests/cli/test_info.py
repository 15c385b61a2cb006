"""`bit-keras info`: what is known about a model, and what is in a file of weights."""

import json

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.files import write_npz as write
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.writing import write_checkpoint
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.registry import ARCHITECTURES
from tests.cli.running import fails, run, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The command is tested once."
)


def rows(*arguments):
    """The printed table, as a dict from label to text."""
    lines = succeeds("info", *arguments).stdout.splitlines()
    return dict(line.rstrip().split("  ", 1) for line in lines)


def cells(*arguments):
    return {label: text.strip() for label, text in rows(*arguments).items()}


def document(*arguments):
    return json.loads(succeeds("info", *arguments, "--json").stdout)


# Models


def test_a_model_is_shown_with_its_facts_and_their_sources():
    name = "https://tfhub.dev/sayakpaul/bit_resnet152x2_384_classification/1"
    output = succeeds("info", name).stdout
    assert "bit_r152x2.teacher_in1k_384" in output
    assert "236,335,208" in output
    assert "84.3 % top-1 on ImageNet-1k at 384 (big_vision distillation README)" in output
    assert "83.858 % top-1 on ImageNet-1k at 384 (timm results CSVs" in output


def test_a_model_is_printed_as_one_json_document():
    for name in ("bit_r50x1.in21k", "resnetv2_50.a1h_in1k"):
        facts = document(name)
        assert facts["name"] == name
        assert facts["parameters"] in (68_256_659, 25_549_352)


def test_an_alias_that_is_also_a_repository_is_a_model():
    assert document("timm/resnetv2_50x1_bit.goog_in21k")["name"] == "bit_r50x1.in21k"


def test_what_is_neither_gets_the_nearest_names():
    sentence = fails("info", "bit_r50x1.in21")
    assert "The nearest are bit_r50x1.in21k" in sentence
    assert "Nor is there a file of that name." in sentence


# Weights


@pytest.fixture
def tiny(tiny_npz, tmp_path):
    """A function that writes the small network in a format."""

    def written(format, name):
        with open_checkpoint(tiny_npz) as arrays:
            write_checkpoint(tmp_path / name, arrays, format)
        return tmp_path / name

    return written


@pytest.mark.parametrize(
    ("target", "name", "format"),
    [
        ("npz", "tiny.npz", "npz, official"),
        ("flax", "tiny.npz", "npz, flax"),
        ("timm", "tiny.safetensors", "safetensors, timm"),
        ("transformers", "tiny", "safetensors, transformers"),
    ],
)
def test_weights_are_described(tiny, target, name, format):
    path = tiny(target, name)
    file = path / "model.safetensors" if path.is_dir() else path
    assert cells(path) == {
        "file": str(file),
        "format": format,
        "architecture": (
            "bit_tiny: units (1, 2, 2, 1), width x1, GroupNorm and weight standardisation"
        ),
        "classes": "10",
        "parameters": "2,368,042",
        "arrays": "63, float32",
        "bytes": f"{file.stat().st_size:,}",
        "in Python": f'model, spec = bit_keras.inference.load_network("{path}")',
        "to convert": f"bit-keras convert {path} weights.npz --to npz",
    }


def test_weights_of_a_known_name_are_those_of_its_model(tiny):
    path = tiny("npz", "bit_tiny.cifar10.npz")
    facts = cells(path)
    assert facts["model"] == "bit_tiny.cifar10"
    assert facts["classes"] == "10, labels cifar10"
    assert facts["in Python"] == (
        f'bit_keras.create_classifier("bit_tiny.cifar10", weights="{path}")'
    )
    assert eval(facts["in Python"], {"bit_keras": bit_keras}).name == "bit_tiny.cifar10"


def test_the_printed_python_makes_the_network(tiny):
    namespace = {"bit_keras": bit_keras}
    exec(document(tiny("timm", "it's.safetensors"))["python"], namespace)
    assert namespace["model"].name == "bit_tiny"


def test_weights_are_printed_as_one_json_document(tiny):
    path = tiny("timm", "tiny.safetensors")
    facts = document(path)
    assert facts.pop("architecture")["units"] == [1, 2, 2, 1]
    assert facts == {
        "path": str(path),
        "format": "safetensors, timm",
        "model": None,
        "in_channels": 3,
        "classes": 10,
        "labels": None,
        "parameters": 2_368_042,
        "arrays": 63,
        "dtypes": ["float32"],
        "bytes": path.stat().st_size,
        "left_out": [],
        "python": f'model, spec = bit_keras.inference.load_network("{path}")',
        "command": f"bit-keras convert {path} weights.npz --to npz",
    }


def test_a_keras_file_is_described_with_its_labels_and_what_is_not_a_weight(tmp_path):
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    model.compile(keras.optimizers.SGD(momentum=0.9))
    model.optimizer.build(model.trainable_variables)
    export_keras(model, tmp_path / "a.keras")
    facts = cells(tmp_path / "a.keras")
    assert facts["format"].startswith("keras")
    assert facts["classes"] == "10, labels cifar10"
    assert facts["skipped"].startswith("65 arrays")
    assert len(document(tmp_path / "a.keras")["left_out"]) == 65


def test_an_exported_model_is_described(classifier_artifact):
    facts = document(classifier_artifact)
    assert facts["format"].startswith("SavedModel")
    assert facts["architecture"]["name"] == "bit_tiny"
    assert facts["bytes"] > 4 * facts["parameters"]


def test_networks_without_a_head_and_with_batch_norm_are_described(tmp_path):
    write(tmp_path / "a.npz", SeededArrays(official_shapes(ARCHITECTURES["resnetv2_50"], None)))
    facts = cells(tmp_path / "a.npz")
    assert facts["classes"] == "none: no head"
    assert facts["parameters"] == "23,500,352"
    assert facts["architecture"].endswith("BatchNorm and plain convolutions")


def test_other_channels_than_three_are_named(tmp_path):
    shapes = official_shapes(ARCHITECTURES["bit_tiny"], 10, in_channels=5)
    write(tmp_path / "a.npz", SeededArrays(shapes))
    assert cells(tmp_path / "a.npz")["input"] == "5 channels"


def test_another_network_is_shown_with_the_difference_to_the_nearest(tmp_path):
    shapes = official_shapes(ARCHITECTURES["bit_tiny"], 10)
    beta = "resnet/block1/unit01/a/group_norm/beta"
    write(tmp_path / "a.npz", SeededArrays({**shapes, beta: (33,)}))
    result = run("info", tmp_path / "a.npz")
    assert result.exit_code == 1
    assert "63, float32" in result.stdout
    assert "in Python" not in result.stdout
    assert (
        "does not fit bit_tiny: 0 arrays are missing, 0 unexpected, 1 misshapen. The file is "
        in (result.stderr)
    )
    assert f"{beta} (33,) in the file, (32,) in the network" in result.stderr
    result = run("info", tmp_path / "a.npz", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["architecture"] is None


def test_arrays_without_a_known_name_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", **{"dense/kernel": np.zeros((2, 2), "float32")})
    assert "is not a network of the registry: of its 1 arrays (dense/kernel" in fails(
        "info", tmp_path / "a.npz"
    )
    (tmp_path / "notes.txt").write_text("not weights")
    assert "is not a checkpoint of a known format" in fails("info", tmp_path / "notes.txt")


def test_repositories_are_weights(tiny, tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub", reason="it knows the cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "hub" / "models--timm--tiny.test"
    (repository / "snapshots" / ("1" * 40)).mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1" * 40)
    tiny("timm", "model.safetensors").rename(
        repository / "snapshots" / ("1" * 40) / "model.safetensors"
    )
    for name in ("hf://timm/tiny.test", "timm/tiny.test"):
        facts = document(name)
        assert facts["format"] == "safetensors, timm"
        assert facts["command"] == f"bit-keras convert {name} weights.npz --to npz"
    for name in ("hf://timm/resnetv2_50x1_bit.goog_in21k", "timm/other"):
        assert "cannot be fetched (HF_HUB_OFFLINE is set)" in fails("info", name)
