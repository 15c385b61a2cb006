"""The target `openvino`: a folder that OpenVINO runs, with the outputs of Keras."""

import importlib.metadata
import sys

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import ExportError
from bit_keras.exporters.openvino_ir import export_openvino
from bit_keras.inference import load_predictor
from bit_keras.models import create_classifier
from bit_keras.preprocessing import ClassifierSpec, EvalTransform, Labels, spec_of
from bit_keras.preprocessing.decoding import scores_of
from bit_keras.registry import Resizing
from tests.cifar10 import SAMPLES

pytest.importorskip("onnx", reason="onnx is not installed")
openvino = pytest.importorskip("openvino", reason="openvino is not installed")

#: The contract of float32.
TOLERANCE = 1e-5


def images(*shape):
    return np.random.default_rng(7).uniform(-1, 1, shape).astype("float32")


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (3, 48, 80, 3)])
def test_a_classifier_agrees_with_keras(classifier, extractor, openvino_folder, shape):
    x = images(*shape)
    outputs = open_program(openvino_folder)(x)
    logits = classifier.predict(x, verbose=0)
    assert outputs.keys() == {"logits", "probabilities", "features"}
    assert relative_difference(outputs["logits"], logits) < TOLERANCE
    expected = scores_of(logits, "softmax")
    assert relative_difference(outputs["probabilities"], expected) < TOLERANCE
    assert outputs["features"].shape == (shape[0], 1024)


def test_an_extractor_of_a_fixed_size_agrees_with_keras(extractor, tmp_path):
    metadata = export_openvino(extractor, tmp_path / "a", size=48, input_range=(0, 1))
    assert (metadata.size, metadata.input_range) == (48, (0.0, 1.0))
    x = images(3, 48, 48, 3)
    outputs = open_program(tmp_path / "a")((x + 1) / 2)
    assert outputs.keys() == {"features"}
    assert relative_difference(outputs["features"], extractor.predict(x, verbose=0)) < TOLERANCE
    model = openvino.Core().read_model(tmp_path / "a" / "model.xml")
    assert str(model.inputs[0].partial_shape) == "[?,48,48,3]"
    assert not (tmp_path / "a" / "labels.tsv").exists()


def test_the_folder_has_these_files_and_folded_kernels(openvino_folder):
    files = [path for path in openvino_folder.rglob("*") if path.is_file()]
    names = {str(path.relative_to(openvino_folder)) for path in files}
    assert names == {
        "model.xml",
        "model.bin",
        "labels.tsv",
        "assets.extra/bit_keras.json",
        "assets.extra/golden.npz",
        "assets.extra/SHA256SUMS",
    }
    assert Artifact(openvino_folder).metadata.folded


def info_of(folder):
    """What is below `model_info`, by OpenVINO."""
    info = openvino.Core().read_model(folder / "model.xml").get_rt_info(["model_info"])
    return {name: value.astype(str) for name, value in info.astype(dict).items()}


def test_the_graph_says_what_the_model_api_needs_to_know(
    openvino_folder, classifier, extractor, tmp_path
):
    info = info_of(openvino_folder)
    assert info["model_type"] == "Classification"
    assert info["labels"].split() == list(spec_of("bit_tiny.cifar10").labels.names)
    assert info["mean_values"] == info["scale_values"] == "127.5 127.5 127.5"
    assert info["reverse_input_channels"] == info["output_raw_scores"] == "True"
    assert info["multilabel"] == "False"
    (inputs,) = openvino.Core().read_model(openvino_folder / "model.xml").inputs
    assert openvino.layout_helpers.get_layout(inputs).to_string() == "[N,H,W,C]"

    labels = Labels("ten", tuple("abcdefghij"), tuple(f"class  {name}" for name in "ABCDEFGHIJ"))
    resizing = Resizing("squash", 64, "bicubic", "a test")
    spec = ClassifierSpec(labels, EvalTransform(64, resizing), "sigmoid")
    export_openvino(classifier, tmp_path / "a", quantize="float16", input_range=(0, 1), spec=spec)
    info = info_of(tmp_path / "a")
    assert info["labels"].split() == [f"class_{name}" for name in "ABCDEFGHIJ"]
    assert (info["mean_values"], info["scale_values"]) == ("0 0 0", "255 255 255")
    assert (info["resize_type"], info["interpolation_mode"]) == ("standard", "CUBIC")
    assert info["multilabel"] == "True"

    export_openvino(extractor, tmp_path / "b")
    assert set(info_of(tmp_path / "b")) == {"reverse_input_channels", "mean_values", "scale_values"}


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("input_range", [(-1, 1), (0, 1)])
def test_the_model_api_classifies_as_predict_does(input_range, tmp_path, client_record):
    """`pip install openvino-model-api` brings it."""
    model_api = pytest.importorskip(
        "model_api.models", reason="openvino-model-api is not installed"
    )
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    model = create_classifier("bit_tiny.cifar10")
    export_openvino(model, tmp_path / "a", size=64, input_range=input_range)
    predictor = load_predictor(tmp_path / "a")
    classifier = model_api.ClassificationModel.create_model(
        str(tmp_path / "a" / "model.xml"), device="CPU"
    )
    differences = []
    for path in sorted(SAMPLES.glob("*.jpg")):
        # At the side of the network nothing is resized, which two programs do in two ways.
        image = np.rint((predictor.spec.transform(path.read_bytes()) + 1) * 127.5).astype("uint8")
        result = classifier(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        (expected,) = predictor([image.astype("float32") / 127.5 - 1], top=10)
        assert result.top_labels[0].name == expected[0][1]
        scores = {label: score for _, label, score in expected}
        labels = predictor.spec.labels.names
        raw = dict(zip(labels, result.raw_scores, strict=True))
        differences.append(max(abs(raw[label] - scores[label]) for label in labels))
    # It computes in bfloat16 where the processor has it.
    assert max(differences) < 0.05
    version = importlib.metadata.version("openvino-model-api")
    client_record("Model API", version, "openvino --size 64", max(differences))


def test_float16_halves_the_weights_and_keeps_their_digits(openvino_folder, trained, exported):
    path, metadata = exported(trained, "openvino", quantize="float16")
    full, half = (folder / "model.bin" for folder in (openvino_folder, path))
    assert half.stat().st_size < 0.52 * full.stat().st_size
    reference = Artifact(path).read_reference()
    logits = open_program(path)(reference["inputs"])["logits"]
    assert 1e-6 < relative_difference(logits, reference["logits"]) <= metadata.tolerance < 1e-2


@pytest.mark.parametrize("package", ["onnx", "openvino"])
def test_a_missing_package_is_named(classifier, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package}: pip install 'bit_keras\[openvino\]'"):
        export_openvino(classifier, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
