"""`bit-keras verify` on files for other engines, and `--layers`."""

import json

import keras
import pytest

from bit_keras.errors import DownloadError
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.exporters.onnx import export_onnx
from bit_keras.models import create_classifier
from tests.cli.running import fails, run, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Exports need the TensorFlow backend."
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The packaged network."""
    path = tmp_path_factory.mktemp("trained") / "tiny.onnx"
    export_onnx(create_classifier("bit_tiny.cifar10"), path)
    return path


@pytest.fixture(scope="module")
def seeded(classifier, tmp_path_factory):
    """A network of other weights under the same name, and its Keras file."""
    folder = tmp_path_factory.mktemp("seeded")
    export_onnx(classifier, folder / "tiny.onnx")
    export_keras(classifier, folder / "tiny.keras")
    return folder


def test_layers_are_compared_with_the_model_that_the_artifact_names(trained):
    lines = succeeds("verify", trained, "--layers").stdout.splitlines()
    assert any(line.startswith("serving_default (ONNX Runtime)") for line in lines)
    (header,) = (number for number, line in enumerate(lines) if line.startswith("layer"))
    assert lines[header + 1].startswith("stem_conv ")
    assert lines[-2].startswith("head ")
    assert lines[-1].endswith("layers; the others are merged with these.")


def test_layers_are_part_of_the_one_document(seeded):
    result = succeeds(
        "verify", seeded / "tiny.onnx", "--layers", "--against", seeded / "tiny.keras", "--json"
    )
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert document["layers"][-1]["layer"] == "head"
    assert all(layer["error"] < 1e-5 for layer in document["layers"])


def test_weights_that_are_missing_or_others_are_named(seeded, trained, monkeypatch):
    message = fails("verify", seeded / "tiny.onnx", "--layers")
    assert "exported from other weights" in message

    def refuse(name):
        raise DownloadError(f"{name} cannot be fetched.")

    monkeypatch.setattr("bit_keras.checkpoints.download.pretrained_path", refuse)
    message = fails("verify", trained, "--layers")
    assert "cannot be fetched. Without the weights of bit_tiny.cifar10 layers cannot" in message
    assert "--against" in message


def test_options_that_do_not_go_together_are_wrong_usage(trained):
    assert run("verify", trained, "--against", "bit_tiny.cifar10").exit_code == 2
