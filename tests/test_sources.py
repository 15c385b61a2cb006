"""One record of whatever a user names, before anything heavy is imported."""

import dataclasses
import json
import subprocess
import sys

import pytest

from bit_keras.checkpoints import save_weights
from bit_keras.errors import (
    BitKerasError,
    CheckpointError,
    DownloadError,
    TrainingError,
    UnknownModelError,
)
from bit_keras.preprocessing import spec_of
from bit_keras.registry import model_info
from bit_keras.sources import RUN_RECORD, resolve

NAME = "bit_tiny.cifar10"


@pytest.fixture(scope="module")
def artifacts(classifier, classifier_artifact, tmp_path_factory):
    """An artifact of the small classifier in every format, by format."""
    from bit_keras.exporters.keras_archive import export_keras
    from bit_keras.exporters.onnx import export_onnx
    from bit_keras.exporters.openvino_ir import export_openvino
    from bit_keras.exporters.tflite import export_tflite

    folder = tmp_path_factory.mktemp("artifacts")
    paths = {
        "tflite": folder / "a.tflite",
        "onnx": folder / "a.onnx",
        "openvino": folder / "openvino",
        "keras": folder / "a.keras",
    }
    export_tflite(classifier, paths["tflite"], size=64)
    export_onnx(classifier, paths["onnx"], size=64)
    export_openvino(classifier, paths["openvino"], size=64)
    export_keras(classifier, paths["keras"])
    return {**paths, "saved_model": classifier_artifact}


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    record = {"model": NAME, "options": {}, "rule": {}, "data": {}, "task": spec_of(NAME).to_json()}
    (folder / RUN_RECORD).write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino", "saved_model"])
def test_an_artifact_is_known_by_its_content(artifacts, format):
    source = resolve(artifacts[format])
    assert (source.format, source.path) == (format, artifacts[format])
    assert source.is_program
    assert source.metadata.model == NAME
    assert source.spec == spec_of(NAME)


def test_a_keras_file_has_its_spec_and_its_weights(artifacts):
    source = resolve(artifacts["keras"])
    assert (source.format, source.is_program, source.spec) == ("keras", False, spec_of(NAME))
    assert source.weights() == artifacts["keras"]


@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino"])
def test_weights_that_were_changed_for_inference_are_refused(artifacts, format):
    with pytest.raises(BitKerasError, match="name the model, run or file") as raised:
        resolve(artifacts[format]).weights()
    assert str(artifacts[format]) in str(raised.value)


def test_of_versions_the_newest_is_taken(artifacts, tmp_path):
    for version in ("2", "10"):
        (tmp_path / version).symlink_to(artifacts["saved_model"], target_is_directory=True)
    assert resolve(tmp_path).path == tmp_path / "10"
    assert resolve(tmp_path).weights() == tmp_path / "10"
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "model.onnx").symlink_to(artifacts["onnx"])
    assert resolve(tmp_path).format == "onnx"
    assert resolve(artifacts["openvino"] / "model.xml").path == artifacts["openvino"]


def test_a_run_is_known_by_its_record(run_folder):
    source = resolve(run_folder)
    assert (source.format, source.path, source.is_program) == ("run", run_folder, False)
    assert source.spec == spec_of(NAME)
    assert source.weights() == run_folder / "best.npz"
    (run_folder / RUN_RECORD).write_text("{}")
    with pytest.raises(TrainingError, match="was not written by"):
        resolve(run_folder).spec  # noqa: B018


def test_weights_of_every_other_format_are_left_to_their_reader(classifier, tmp_path):
    for format, name in (("npz", "a.npz"), ("timm", "a.bin"), ("transformers", "folder")):
        save_weights(classifier, tmp_path / name, format)
        source = resolve(tmp_path / name)
        assert (source.format, source.spec, source.metadata) == ("weights", None, None)
        assert source.weights() == tmp_path / name


def test_a_record_is_its_own_source(tmp_path):
    source = resolve(tmp_path)
    assert resolve(source) is source
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.format = "run"


def test_what_exists_is_taken_as_it_is(tiny_npz, tmp_path, monkeypatch):
    assert resolve(tiny_npz).weights() == tiny_npz
    assert resolve(str(tmp_path)).weights() == tmp_path
    # Even where it has the name of something else.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm" / "x").mkdir(parents=True)
    (tmp_path / NAME).write_bytes(b"")
    assert resolve("timm/x").weights().is_dir()
    assert resolve(NAME).weights().stat().st_size == 0


@pytest.mark.parametrize("name", [NAME, NAME.upper()])
def test_a_model_name_is_its_published_file(name):
    source = resolve(name)
    assert (source.format, source.path) == ("model", None)
    assert source.checkpoint is model_info(NAME)
    assert source.weights().name == "bit_tiny.cifar10.npz"
    assert source.weights().is_file()


@pytest.mark.parametrize(
    "name", ["BiT-M-R50x1", "BiT-M-R50x1.npz", "https://tfhub.dev/google/bit/m-r50x1/1"]
)
def test_every_alias_is_one_too(tmp_path, name, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    (tmp_path / "BiT-M-R50x1.npz").write_bytes(b"")
    assert resolve(name).weights() == tmp_path / "BiT-M-R50x1.npz"


def test_weights_of_a_repository_may_be_in_a_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    file = tmp_path / "resnetv2_101.a1h_in1k" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert resolve("resnetv2_101.a1h_in1k").weights() == file


@pytest.mark.parametrize(
    "name", ["no.npz", "no.Safetensors", "no.pth", "no.keras", "weights/no", "./no", "/no/where"]
)
def test_a_file_that_is_not_there_is_named(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        resolve(name)
    assert str(raised.value).startswith("There is no file ")
    assert name.removeprefix("./") in str(raised.value)


@pytest.mark.parametrize("name", ["bit_r50x1.in21", "https://tfhub.dev/google/bit/m-r51x1/1"])
def test_an_unknown_name_gets_the_nearest_names(name):
    with pytest.raises(UnknownModelError) as raised:
        resolve(name)
    assert f"There is no model {name!r}. The nearest are " in str(raised.value)
    assert str(raised.value).endswith(" Nor is there a file of that name.")


def test_only_an_architecture_is_not_enough():
    with pytest.raises(UnknownModelError, match="is an architecture"):
        resolve("bit_r50x1")


def test_a_repository_may_be_known_by_the_registry():
    source = resolve("timm/resnetv2_50x1_bit.goog_in21k")
    assert (source.format, source.checkpoint.name) == ("repository", "bit_r50x1.in21k")
    assert resolve("hf://someone/else").checkpoint is None


def test_a_repository_without_an_owner_is_refused():
    with pytest.raises(DownloadError, match="write hf://OWNER/NAME"):
        resolve("hf://bit").weights()


@pytest.mark.parametrize("format", ["tflite", "onnx", "openvino", "keras", "saved_model", "run"])
def test_resolving_imports_no_framework(artifacts, run_folder, format):
    path = run_folder if format == "run" else artifacts[format]
    heavy = {"h5py", "huggingface_hub", "keras", "onnx", "tensorflow", "torch"}
    script = (
        "import sys; from bit_keras.sources import resolve; "
        f"print(resolve({str(path)!r}).spec.labels.name, *sorted({heavy!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "cifar10\n", result.stderr
