"""Verification: an artifact passes as it was written, and in no other state."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.checksums import SUMS
from bit_keras.artifacts.members import REFERENCE
from bit_keras.artifacts.reference import (
    reference_bytes,
    reference_images,
    relative_difference,
)
from bit_keras.artifacts.runtimes.saved_model_graph import DIGEST
from bit_keras.errors import ExportError
from bit_keras.exporters.onnx import export_onnx
from bit_keras.exporters.openvino_ir import export_openvino
from bit_keras.exporters.tflite.tflite_export import export_tflite
from bit_keras.preprocessing import spec_of


@pytest.fixture
def artifact(classifier_artifact, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(classifier_artifact, tmp_path / "artifact")


def flip_bit(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def test_an_artifact_describes_itself(artifact):
    described = Artifact(artifact)
    assert described.path == artifact
    assert described.metadata.model == "bit_tiny.cifar10"
    assert described.spec == spec_of("bit_tiny.cifar10")
    assert described.has_reference
    reference = described.read_reference()
    outputs = described.open_program()(reference["inputs"])
    assert relative_difference(outputs["logits"], reference["logits"]) < 1e-5


def test_an_untouched_artifact_passes(artifact):
    verification = Artifact(artifact).verify()
    assert verification.passed
    assert verification.differences.keys() == {
        "serving_default",
        "__call__",
        "__call__, one image at a time",
    }
    # The same operations on the same machine; batches of one sum in another order.
    assert verification.differences["__call__"] < 1e-6
    assert verification.largest < 1e-5


def test_the_reference_output_is_that_of_keras(classifier, classifier_artifact):
    reference = Artifact(classifier_artifact).read_reference()
    assert reference["inputs"].shape == (2, 64, 64, 3)
    output = classifier.predict(reference["inputs"], verbose=0)
    assert relative_difference(output, reference["logits"]) < 1e-5


def test_the_reference_images_are_not_noise_and_fill_their_range():
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        images = reference_images(64, 64, (low, high))
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (low, high)
        assert np.array_equal(images, reference_images(64, 64, (low, high)))
    # Neighbouring pixels are alike, the two images are not.
    assert np.abs(np.diff(images, axis=2)).mean() < np.abs(images[0] - images[1]).mean()


@pytest.mark.long
def test_another_output_fails(artifact):
    reference = Artifact(artifact).read_reference()
    reference["logits"][1, 3] += 1e-4 * np.abs(reference["logits"]).max()
    (artifact / REFERENCE).write_bytes(reference_bytes(reference))
    verification = Artifact(artifact).verify()
    assert not verification.passed
    assert verification.largest == pytest.approx(1e-4, rel=0.05)  # float32 noise of 1e-6


def test_a_changed_weight_fails(classifier_artifact, tmp_path):
    loaded = tf.saved_model.load(str(classifier_artifact))
    loaded.variables[0].assign(loaded.variables[0] * tf.random.stateless_uniform([], [0, 1]))
    loaded.variables[2].assign_add(0.01 * tf.ones_like(loaded.variables[2]))
    tf.saved_model.save(loaded, str(tmp_path / "changed"), signatures=loaded.signatures)
    shutil.copytree(classifier_artifact / "assets.extra", tmp_path / "changed" / "assets.extra")
    (tmp_path / "changed" / DIGEST).unlink()
    assert not Artifact(tmp_path / "changed").verify().passed


@pytest.mark.long
def test_flipped_bits_in_the_weights_are_found(artifact):
    weights = artifact / "variables" / "variables.data-00000-of-00001"
    flip_bit(weights, weights.stat().st_size // 2)
    with pytest.raises(ExportError, match="cannot be loaded"):
        Artifact(artifact).verify()


@pytest.mark.long
@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index"])
def test_missing_and_cut_files_are_reported(artifact, file):
    path = artifact / file
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ExportError, match="cannot be loaded"):
        Artifact(artifact).verify()
    path.unlink()
    with pytest.raises(ExportError, match="cannot be loaded"):
        Artifact(artifact).verify()


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ExportError, match="There is no artifact"):
        Artifact(tmp_path / "nowhere").verify()
    with pytest.raises(ExportError, match="was not exported by bit_keras"):
        Artifact(tmp_path).verify()


def test_metadata_of_another_version_is_refused(artifact):
    (artifact / "assets.extra" / "bit_keras.json").write_text('{"model": "bit_tiny.cifar10"}')
    with pytest.raises(ExportError, match="another version of bit_keras"):
        Artifact(artifact).verify()


def test_differences_that_are_not_numbers_are_infinite():
    reference = np.ones((2, 3), "float32")
    assert relative_difference(reference * np.nan, reference) == np.inf
    assert relative_difference(reference[:1], reference) == np.inf
    assert relative_difference(reference * 1.5, reference) == 0.5
    assert (
        relative_difference(reference * 0, reference * 0) == np.inf
    )  # Zeros compare with nothing.


# Files for other engines


@pytest.fixture(scope="module")
def files(classifier, tmp_path_factory):
    """One artifact of each format that is not a SavedModel, and what it is replayed in."""
    folder = tmp_path_factory.mktemp("files")
    export_tflite(classifier, folder / "tiny.tflite")
    export_onnx(classifier, folder / "tiny.onnx")
    export_openvino(classifier, folder / "openvino")
    return {
        folder / "tiny.tflite": {"LiteRT", "TensorFlow Lite"},
        folder / "tiny.onnx": {"ONNX Runtime"},
        folder / "openvino": {"OpenVINO"},
    }


@pytest.mark.long
def test_every_format_passes_in_the_engines_that_are_made_for_it(files):
    for path, engines in files.items():
        verification = Artifact(path).verify()
        assert verification.passed, path
        assert verification.differences.keys() == {
            f"{signature} ({engine})"
            for engine in engines
            for signature in ("serving_default", "features")
        }
        assert verification.largest < 1e-5


@pytest.mark.long
def test_another_output_of_another_engine_fails(files, tmp_path):
    openvino = next(path for path in files if path.name == "openvino")
    artifact = shutil.copytree(openvino, tmp_path / "artifact")
    reference = Artifact(artifact).read_reference()
    reference["features"][0, 7] += 1e-3 * np.abs(reference["features"]).max()
    (artifact / REFERENCE).write_bytes(reference_bytes(reference))
    with pytest.raises(ExportError, match="checksum"):
        Artifact(artifact).verify()
    (artifact / SUMS).unlink()
    differences = Artifact(artifact).verify().differences
    assert differences["features (OpenVINO)"] == pytest.approx(1e-3, rel=0.05)


@pytest.mark.long
def test_damage_is_reported_by_the_engine(files, tmp_path):
    openvino = next(path for path in files if path.name == "openvino")
    artifact = shutil.copytree(openvino, tmp_path / "artifact")
    weights = artifact / "model.bin"
    weights.write_bytes(weights.read_bytes()[:1000])
    (artifact / SUMS).unlink()
    with pytest.raises(ExportError, match="artifact cannot be loaded by OpenVINO"):
        Artifact(artifact).verify()


@pytest.mark.long
def test_a_missing_engine_is_named_with_its_extra(files, tmp_path, monkeypatch):
    # The replay is a process of its own, in which this finder hides the installed package.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\n\n"
        "class Hiding:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            raise ModuleNotFoundError(name)\n\n\n"
        "sys.meta_path.insert(0, Hiding)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    onnx = next(path for path in files if path.suffix == ".onnx")
    with pytest.raises(ExportError, match=r"needs onnxruntime: .*bit_keras\[onnx\]"):
        Artifact(onnx).verify()


def test_a_program_that_crashes_is_reported(artifact, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import bit_keras.artifacts.replay as module, os\n"
        "module.replay_job = lambda _: os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"artifact cannot be loaded.* crashed \(SIGABRT\)"):
        Artifact(artifact).verify()
