"""Models of one's own, and weights that are not numbers, on their way to every target."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from bit_keras.artifacts import Artifact
from bit_keras.errors import BitKerasError
from bit_keras.exporters.hub import export_hub
from bit_keras.exporters.keras_archive import export_keras
from bit_keras.exporters.onnx import export_onnx
from bit_keras.exporters.openvino_ir import export_openvino
from bit_keras.exporters.serving import export_serving
from bit_keras.inference import load_network, load_predictor
from bit_keras.layers import GroupNorm
from bit_keras.models import (
    create_classifier,
    create_feature_extractor,
    fold_weight_standardization,
)
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform
from tests.cli.running import fails, succeeds

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A Sequential around an extractor, as people train it, and its file."""
    head = keras.layers.Dense(3, activation="softmax", kernel_initializer="random_normal")
    body = create_feature_extractor("bit_tiny.cifar10", name="body")
    layers = [keras.Input((64, 64, 3)), body, keras.layers.Dropout(0.2), head]
    model = keras.Sequential(layers, name="flowers")
    path = tmp_path_factory.mktemp("flowers") / "flowers.keras"
    model.save(path)
    return model, path


def scores(predictions):
    return {label: score for _, label, score in predictions}


@pytest.mark.slow
def test_a_network_with_a_head_of_ones_own_predicts(flowers):
    model, path = flowers
    predictor = load_predictor(path)
    assert predictor.name == "bit_tiny.cifar10"
    found = [scores(each) for each in predictor(list(IMAGES), top=3)]
    expected = model.predict_on_batch(IMAGES)
    for row, theirs in zip(found, expected, strict=True):
        assert [row[f"class_{i}"] for i in range(3)] == pytest.approx(theirs, rel=1e-5)


def test_its_labels_are_stored_with_it(flowers, tmp_path):
    model, _ = flowers
    labels = Labels("flowers", ("d", "r", "t"), ("daisy", "rose", "tulip"))
    spec = ClassifierSpec(labels, eval_transform("bit_tiny.cifar10", 64))
    export_keras(model, tmp_path / "a.keras", spec)
    (predictions,) = load_predictor(tmp_path / "a.keras")(list(IMAGES[:1]), top=3)
    assert scores(predictions).keys() == {"daisy", "rose", "tulip"}


def test_it_is_exported_like_any_classifier(flowers, tmp_path):
    model, path = flowers
    classifier, spec = load_network(path)
    export_serving(classifier, tmp_path / "served", spec=spec, batch_sizes=())
    predictor = load_predictor(tmp_path / "served")
    found = [scores(each) for each in predictor(list(IMAGES), top=3)]
    expected = model.predict_on_batch(IMAGES)
    assert [row["class_1"] for row in found] == pytest.approx(expected[:, 1], rel=1e-5)
    with pytest.raises(BitKerasError, match="with_own_head turns a"):
        export_hub(model, tmp_path / "hub")


@pytest.mark.slow
def test_what_cannot_be_a_classifier_gets_a_way_to_go_on(tmp_path):
    body = create_feature_extractor("bit_tiny.cifar10", weights=None, name="body")
    hidden = keras.layers.Dense(4, activation="relu", name="hidden")
    layers = [keras.Input((64, 64, 3)), body, hidden, keras.layers.Dense(2)]
    keras.Sequential(layers).save(tmp_path / "deep.keras")
    body.save(tmp_path / "body.keras")
    for name, words in (("deep", "at 'hidden'"), ("body", "Put a Dense layer")):
        with pytest.raises(BitKerasError, match=words):
            load_predictor(tmp_path / f"{name}.keras")


def test_a_free_name_changes_no_artifact(tmp_path):
    model = create_classifier("bit_tiny.cifar10", name="mine")
    export_hub(model, tmp_path / "hub")
    assert Artifact(tmp_path / "hub").metadata.model == "bit_tiny.cifar10"
    model.save(tmp_path / "mine.keras")
    predictor = load_predictor(tmp_path / "mine.keras")
    assert (predictor.name, predictor.spec.labels.name) == ("bit_tiny.cifar10", "cifar10")


@pytest.fixture
def diverged():
    model = create_classifier("bit_tiny.cifar10")
    kernel = model.get_layer("block2").get_layer("block2_unit01_conv2").kernel
    values = keras.ops.convert_to_numpy(kernel).copy()
    values[0, 0, 0, :2] = np.nan, np.inf
    kernel.assign(values)
    return model


def test_weights_that_are_not_finite_are_taken_on_request(diverged, tmp_path):
    with pytest.raises(BitKerasError, match="block2_unit01_conv2/kernel"):
        fold_weight_standardization(diverged)
    fold_weight_standardization(diverged, allow_nonfinite=True)
    export_keras(diverged, tmp_path / "a.keras", allow_nonfinite=True)
    assert (tmp_path / "a.keras").exists()


def test_the_commands_take_it_and_refuse_what_is_not_finite(flowers, diverged, tmp_path):
    _, path = flowers
    Image.new("RGB", (80, 60), "red").save(tmp_path / "a.png")
    printed = succeeds("predict", path, tmp_path / "a.png", "--top", "1", "--json").stdout
    ((prediction,),) = (each["predictions"] for each in json.loads(printed))
    assert prediction["label"].startswith("class_")
    diverged.save(tmp_path / "b.keras")
    out = tmp_path / "c.keras"
    message = fails("export", tmp_path / "b.keras", "--to", "keras", "--out", out)
    assert "block2_unit01_conv2/kernel" in message
    options = ("--to", "keras", "--out", out, "--allow-nonfinite")
    succeeds("export", tmp_path / "b.keras", *options)


def test_a_file_that_computes_something_else_is_not_written(tmp_path):
    # Changes to a layer that neither its class nor its configuration tells.
    model = create_classifier("bit_tiny.cifar10")
    for layer in model.get_layer("block1").layers:
        if isinstance(layer, GroupNorm):
            call = layer.call
            layer.call = lambda x, call=call: call(x) + 0.1
    for exporter, name in ((export_onnx, "a.onnx"), (export_openvino, "openvino")):
        with pytest.raises(BitKerasError, match="computes something else"):
            exporter(model, tmp_path / name, size=64)
    with pytest.raises(BitKerasError, match="has other outputs"):
        fold_weight_standardization(model)
    assert list(tmp_path.iterdir()) == []


def test_folded_kernels_that_compute_something_else_are_not_written(tmp_path):
    model = create_classifier("bit_tiny.cifar10")
    convolution = model.get_layer("stem_conv")
    call = convolution.call
    convolution.call = lambda x: call(x) + 0.1
    with pytest.raises(BitKerasError, match=r"stem_conv.*has other outputs"):
        export_hub(model, tmp_path / "hub", folded=True)
    assert list(tmp_path.iterdir()) == []
