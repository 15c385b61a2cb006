"""`bit-keras evaluate`, and what every command makes of a fine-tuned network."""

import json
import shutil

import keras
import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.checkpoints import fill_with_seeded_values, save_weights
from bit_keras.exporters.hub import export_hub
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.exporters.onnx import export_onnx
from bit_keras.exporters.openvino_ir import export_openvino
from bit_keras.exporters.tflite.tflite_export import export_tflite
from bit_keras.inference import load_predictor
from bit_keras.models import create_classifier
from bit_keras.sources import resolve
from bit_keras.training import finetune
from tests.cifar10 import CLASSES, SAMPLES
from tests.cli.running import fails, run, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels need the TensorFlow backend."
)

TINY = "bit_tiny.cifar10"


def class_folders(folder, classes=CLASSES, copies=1):
    """The ten real images as class folders."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for copy in range(copies):
            shutil.copy(SAMPLES / f"{name}.jpg", folder / name / f"{copy}.jpg")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("images") / "ten")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same weights in every form that the commands take."""
    folder = tmp_path_factory.mktemp("sources")
    model = create_classifier(TINY, weights=None)
    fill_with_seeded_values(model)
    paths = {
        "npz": folder / f"{TINY}.npz",
        "keras": folder / "tiny.keras",
        "hub": folder / "hub",
        "range": folder / "range",
        "tflite": folder / "tiny.tflite",
        "onnx": folder / "tiny.onnx",
        "openvino": folder / "openvino",
    }
    save_weights(model, paths["npz"])
    export_keras(model, paths["keras"])
    export_hub(model, paths["hub"])
    export_hub(model, paths["range"], input_range=(0, 1))
    export_tflite(model, paths["tflite"])
    export_onnx(model, paths["onnx"], input_range=(0, 1))
    export_openvino(model, paths["openvino"])
    return paths


def evaluated(source, data, *options):
    document = json.loads(succeeds("evaluate", source, "--data", data, "--json", *options).stdout)
    del document["throughput"], document["model"]
    return document


def close(document):
    """What float32 sums in another order may change in the last digits."""
    scores = [mistake.pop("score") for mistake in document["mistakes"]]
    return document.pop("loss"), scores, document


@pytest.mark.long
def test_every_form_of_a_network_gets_the_same_result(sources, images, monkeypatch):
    monkeypatch.setattr("bit_keras.checkpoints.download.pretrained_path", lambda _: sources["npz"])
    documents = {name: evaluated(path, images) for name, path in sources.items()}
    documents["name"] = evaluated(TINY, images)
    loss, scores, rest = close(documents.pop("npz"))
    assert rest["images"] == 10
    for name, document in documents.items():
        other_loss, other_scores, other = close(document)
        # Rescaling to [0, 1] and back rounds twice in float32.
        assert other_loss == pytest.approx(loss, rel=1e-4), name
        assert other_scores == pytest.approx(scores, rel=1e-3), name
        assert other == rest, name


def test_the_table_names_what_matters(sources, images, tmp_path):
    out = tmp_path / "report"
    result = succeeds("evaluate", sources["npz"], "--data", images, "--batch", 4, "--out", out)
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{sources['npz']} on {images}, all of it, at ")
    for word in ("top-1", "top-5", "images", "unreadable", "images/s", "worst classes"):
        assert any(line.startswith(word) for line in lines), word
    assert lines[-1] == f"The report is {out / 'report.html'}."
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.json", "report.html"]
    assert "exists already" in fails("evaluate", sources["npz"], "--data", images, "--out", out)


def test_the_test_split_goes_before_the_others(sources, tmp_path):
    class_folders(tmp_path / "data" / "train", copies=2)
    class_folders(tmp_path / "data" / "val")
    data = tmp_path / "data"
    source = sources["npz"]
    document = evaluated(source, data)
    assert document["data"].endswith("split val")
    class_folders(tmp_path / "data" / "test", CLASSES[:3])
    document = evaluated(source, data)
    assert document["data"].endswith("split test")
    assert document["images"] == 3
    assert evaluated(source, data, "--split", "train")["images"] == 20
    assert "train, val, test" in fails("evaluate", source, "--data", data, "--split", "tset")


def test_unreadable_images_are_named_and_do_not_fail(sources, tmp_path):
    data = class_folders(tmp_path / "data", CLASSES[:2])
    whole = (data / "airplane" / "0.jpg").read_bytes()
    (data / "airplane" / "cut.jpg").write_bytes(whole[:300])
    result = succeeds("evaluate", sources["npz"], "--data", data, "--json")
    assert "airplane/cut.jpg" in result.stderr
    document = json.loads(result.stdout)
    assert list(document["unreadable"]) == ["airplane/cut.jpg"]
    assert document["images"] == 2
    for path in data.rglob("*.jpg"):
        path.write_bytes(whole[:300])
    refusal = fails("evaluate", sources["npz"], "--data", data)
    for fact in ("airplane", "automobile", "--skip-unreadable-classes"):
        assert fact in refusal


def test_another_size_is_a_matter_of_an_option(sources, images, tmp_path):
    result = succeeds("evaluate", sources["hub"], "--data", images, "--size", 40)
    assert "at 40 pixels" in result.stdout
    fixed = create_classifier(TINY, weights=None, input_shape=(48, 48, 3))
    fixed.save(tmp_path / "fixed.keras")
    assert load_predictor(tmp_path / "fixed.keras", 48).spec.transform.size == 48
    arguments = (tmp_path / "fixed.keras", "--data", images, "--size", 40)
    assert "takes only images of 48 pixels" in fails("evaluate", *arguments)


def test_mistakes_are_sentences(sources, images, tmp_path):
    data = class_folders(tmp_path / "data", CLASSES[:2])
    (data / "bird").mkdir()
    shutil.copy(SAMPLES / "bird.jpg", data / "bird")
    (data / "bird").rename(data / "unicorn")
    assert "'unicorn'" in fails("evaluate", sources["npz"], "--data", data)
    assert "ReaL accuracy is defined" in fails(
        "evaluate", sources["npz"], "--data", images, "--real"
    )
    assert run("evaluate", sources["npz"]).exit_code == 2


# Fine-tuned networks


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """A run on two classes that no packaged list has."""
    folder = tmp_path_factory.mktemp("fine_tuned")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 128, (24, 40, 40, 3), np.uint8)
    images[::2] += 127
    labels = ["bright", "dark"] * 12
    finetune(TINY, (images, labels), folder / "run", weights="random", size=32, steps=4, batch=8)
    data = folder / "data"
    for index in range(8):
        (data / labels[index]).mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(data / labels[index] / f"{index}.png", images[index], scale=False)
    return folder / "run", data


def test_a_run_is_evaluated_with_its_own_labels(fine_tuned):
    path, data = fine_tuned
    document = evaluated(path, data)
    assert [result["id"] for result in document["classes"]] == ["bright", "dark"]
    assert document["images"] == 8


def test_a_run_predicts_its_own_classes_at_its_own_size(fine_tuned):
    path, data = fine_tuned
    assert load_predictor(path).spec.transform.size == 32
    image = next(data.rglob("*.png"))
    (document,) = json.loads(succeeds("predict", path, image, "--json").stdout)
    assert {entry["label"] for entry in document["predictions"]} == {"bright", "dark"}


@pytest.mark.long
def test_a_run_is_exported_and_converted_as_it_is(fine_tuned, tmp_path):
    path, data = fine_tuned
    want = evaluated(path, data)
    spec = load_predictor(path).spec
    succeeds("export", path, "--to", "hub", "--out", tmp_path / "hub")
    succeeds("verify", tmp_path / "hub")
    succeeds("export", path, "--to", "keras", "--out", tmp_path / "a.keras")
    succeeds("convert", path, tmp_path / "b.keras", "--to", "keras")
    succeeds("convert", tmp_path / "b.keras", tmp_path / "c.keras", "--to", "keras")
    assert resolve(tmp_path / "c.keras").spec == spec
    loss, scores, rest = close(want)
    for name in ("hub", "a.keras", "b.keras"):
        assert load_predictor(tmp_path / name).spec == spec
        other_loss, other_scores, other = close(evaluated(tmp_path / name, data))
        # Same weights; another graph may sum in another order.
        assert other_loss == pytest.approx(loss, rel=1e-4), name
        assert other_scores == pytest.approx(scores, rel=1e-3), name
        assert other == rest, name


def test_weights_of_a_run_become_an_official_file(fine_tuned, tmp_path):
    path, _ = fine_tuned
    succeeds("convert", path, tmp_path / "a.npz", "--to", "npz")
    assert (tmp_path / "a.npz").read_bytes() == (path / "best.npz").read_bytes()
    export_keras(create_classifier(TINY, path / "best.npz", 2), tmp_path / "a.keras")
    succeeds("convert", tmp_path / "a.keras", tmp_path / "b.npz", "--to", "npz")
    assert (tmp_path / "b.npz").read_bytes() == (path / "best.npz").read_bytes()


def test_features_of_a_run_are_exported(fine_tuned, tmp_path):
    options = ["--variant", "feature_extraction", "--to"]
    succeeds("export", fine_tuned[0], *options, "hub", "--out", tmp_path / "hub")
    assert Artifact(tmp_path / "hub").metadata.variant == "feature_extraction"
    succeeds("export", fine_tuned[0], *options, "keras", "--out", tmp_path / "a.keras")
    assert keras.models.load_model(tmp_path / "a.keras").output_shape == (None, 1024)


def test_export_names_what_does_not_go_together(fine_tuned, sources, tmp_path):
    path, out = fine_tuned[0], tmp_path / "out"
    hub = ["--to", "hub", "--out", out]
    assert run("export", path, *hub, "--weights", "random").exit_code == 2
    options = ["--to", "keras", "--out", tmp_path / "a.keras", "--input-range", "0,1"]
    assert run("export", path, *options).exit_code == 2
    assert "ends in .keras" in fails("export", TINY, "--to", "keras", "--out", out)
    options = ["--variant", "feature_extraction", "--out", tmp_path / "features.keras"]
    succeeds("export", sources["keras"], "--to", "keras", *options)
    assert "has no head" in fails("export", tmp_path / "features.keras", *hub)
    assert not out.exists()
