"""ONNX files with a fixed batch, another opset or channels first, each and together."""

import itertools
import json

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.members import METADATA
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import ExportError
from bit_keras.exporters import export
from bit_keras.exporters.layer_errors import layer_errors
from bit_keras.models import create_class_maps
from tests.cifar10 import CLASSES, SAMPLES
from tests.cli.running import run, succeeds
from tests.onnx_files import without_checksum

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from bit_keras.exporters.onnx import export_onnx  # noqa: E402

NAME = "bit_tiny.cifar10"

#: The contract of float32, and what random weights lose in float16 and in int8.
TOLERANCES = {"none": 1e-5, "float16": 2e-2, "int8": 0.5}


def images(*shape):
    return np.random.default_rng(7).uniform(-1, 1, shape).astype("float32")


def shapes(path):
    session = onnxruntime.InferenceSession(path)
    return {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("quantize", TOLERANCES)
def test_all_options_go_together(classifier, quantize, engine, tmp_path):
    path, x = tmp_path / "a.onnx", images(5, 64, 64, 3)
    if engine == "openvino":
        pytest.importorskip("openvino", reason="openvino is not installed")
    metadata = export(
        classifier,
        path,
        "onnx",
        quantize=quantize,
        size=64,
        input_range=(0, 1),
        calibration=x if quantize == "int8" else None,
        class_maps=True,
        batch=2,
        opset=13,
        layout="nchw",
    )
    assert metadata == Artifact(path).metadata
    assert metadata.layout == "nchw"
    assert shapes(path) == {
        "inputs_nchw": [2, 3, 64, 64],
        "logits": [2, 10],
        "probabilities": [2, 10],
        "features": [2, 1024],
        "class_maps": [2, 2, 2, 10],
    }
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    # A program takes channels last, in any number: the file has three of two images each.
    outputs = open_program(path, engine=engine)((x + 1) / 2)
    maps = create_class_maps(classifier).predict(x, verbose=0)
    for name, expected in {"logits": maps.mean((1, 2)), "class_maps": maps}.items():
        assert relative_difference(outputs[name], expected) < TOLERANCES[quantize], name


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"batch": 4}, [4, "height", "width", 3]),
        ({"layout": "nchw"}, ["batch", 3, "height", "width"]),
        ({"layout": "nchw", "size": 48}, ["batch", 3, 48, 48]),
        ({"opset": 23, "batch": 1}, [1, "height", "width", 3]),
    ],
)
def test_an_extractor_takes_them_too(extractor, options, shape, tmp_path):
    export_onnx(extractor, tmp_path / "a.onnx", **options)
    (taken, features) = shapes(tmp_path / "a.onnx").values()
    assert taken == shape
    assert features == [shape[0], 1024]
    x = images(3, 48, 48, 3)
    output = open_program(tmp_path / "a.onnx")(x)["features"]
    assert relative_difference(output, extractor.predict(x, verbose=0)) < 1e-5


def test_images_in_the_other_layout_meet_another_name(classifier, tmp_path):
    export_onnx(classifier, tmp_path / "a.onnx", layout="nchw")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    # Height 3: the shape does not tell.
    with pytest.raises(ValueError, match="inputs_nchw"):
        session.run(["logits"], {"inputs": images(1, 3, 64, 64)})


CASES = [
    (opset, quantize)
    for opset, quantize in itertools.product(range(11, 24), TOLERANCES)
    if opset >= 13 or quantize != "int8"
]


def tier(number, case):
    """The marks of a case: in the long tests each opset has one precision, in turn."""
    if case in ((11, "float16"), (23, "int8")):
        return ()
    opset, _ = case
    return pytest.mark.long if number % 3 == opset % 3 else pytest.mark.full


@pytest.mark.parametrize(
    ("opset", "quantize"),
    [pytest.param(*case, marks=tier(number, case)) for number, case in enumerate(CASES)],
)
def test_every_opset_is_valid_and_agrees(classifier, opset, quantize, tmp_path):
    x = images(2, 64, 64, 3)
    export_onnx(classifier, tmp_path / "a.onnx", quantize, opset=opset, calibration=x)
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert [entry.version for entry in model.opset_import] == [opset]
    operators = onnx.helper.make_opsetid("", opset)
    assert model.ir_version == onnx.helper.find_min_ir_version_for([operators])
    expected = classifier.predict(x, verbose=0)
    outputs = open_program(tmp_path / "a.onnx")(x)["logits"]
    assert relative_difference(outputs, expected) < TOLERANCES[quantize]


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"opset": 10}, ("11 to 23", "opset=10")),
        ({"opset": 24}, ("11 to 23", "opset=24")),
        ({"opset": 12, "quantize": "int8"}, ("13 to 23", "int8", "opset=12")),
        ({"opset": 17.0}, ("11 to 23", "17.0")),
        ({"batch": 0}, ("1 to 1024", "batch=0")),
        ({"batch": 1025}, ("1 to 1024", "batch=1025")),
        ({"batch": True}, ("1 to 1024", "batch=True")),
        ({"layout": "chwn"}, ("nhwc or nchw or triton", "chwn")),
    ],
)
def test_what_cannot_be_written_is_refused_in_python_and_on_the_command_line(
    classifier, options, facts, tmp_path
):
    with pytest.raises(ExportError) as error:
        calibration = images(1, 64, 64, 3) if options.get("quantize") == "int8" else None
        export(classifier, tmp_path / "a.onnx", "onnx", calibration=calibration, **options)
    for fact in facts:
        assert fact in str(error.value)
    if all(isinstance(value, int | str) and value is not True for value in options.values()):
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        calibrate = ["--calibrate", SAMPLES] if "quantize" in options else []
        arguments = ["--to", "onnx", *words, *calibrate, "--out", tmp_path / "a.onnx"]
        result = run("export", NAME, *arguments)
        assert result.exit_code == 2
        facts = (*facts[:-1], *words) if "layout" not in options else ("nhwc", "nchw", "chwn")
        for fact in facts:
            assert fact in result.stderr
    assert not list(tmp_path.iterdir())


def test_other_targets_take_none_of_them(tmp_path):
    for option in (["--batch", "2"], ["--opset", "17"]):
        result = run("export", NAME, "--to", "openvino", *option, "--out", tmp_path / "a")
        assert result.exit_code == 2
        assert f"{option[0]} goes with --to onnx" in result.stderr


def test_every_command_feeds_channels_first(tmp_path):
    path = tmp_path / "a.onnx"
    options = ["--layout", "nchw", "--batch", "4", "--size", "64", "--class-maps"]
    succeeds("export", NAME, "--to", "onnx", *options, "--out", path)
    assert json.loads(succeeds("verify", path, "--layers", "--json").stdout)["passed"]
    photos = sorted(SAMPLES.glob("*.jpg"))
    predicted = json.loads(succeeds("predict", path, *photos, "--json").stdout)
    native = json.loads(succeeds("predict", NAME, *photos, "--json").stdout)
    for found, expected in zip(predicted, native, strict=True):
        best, other = found["predictions"][0], expected["predictions"][0]
        assert best["label"] == other["label"]
        assert best["score"] == pytest.approx(other["score"], abs=1e-4)
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.jpg").write_bytes((SAMPLES / f"{name}.jpg").read_bytes())
    evaluated = succeeds("evaluate", path, "--data", tmp_path / "data", "--json")
    assert json.loads(evaluated.stdout)["top1"] >= 0.9
    succeeds("predict", path, photos[0], "--explain", tmp_path / "maps.png")


@pytest.mark.long
def test_the_benchmark_feeds_channels_first(tmp_path):
    path = tmp_path / "a.onnx"
    options = ["--layout", "nchw", "--batch", "2", "--size", "64"]
    succeeds("export", NAME, "--to", "onnx", *options, "--out", path)
    arguments = ["--batch", "3", "--threads", "1", "--json"]
    document = json.loads(succeeds("benchmark", path, *arguments).stdout)
    assert "a.onnx" in json.dumps(document)
    assert "error" not in json.dumps(document).lower()


def test_the_layers_of_a_file_with_channels_first_are_those_of_keras(tmp_path):
    from bit_keras.models import create_classifier

    model = create_classifier(NAME)
    export_onnx(model, tmp_path / "a.onnx", size=64, layout="nchw")
    errors = layer_errors(tmp_path / "a.onnx", model)
    assert len(errors.errors) > 30
    assert max(error.error for error in errors.errors) < 1e-5


def test_a_file_from_before_there_were_layouts_is_still_read(classifier, tmp_path):
    path = tmp_path / "a.onnx"
    export_onnx(classifier, path)
    model = onnx.load(path)
    without_checksum(model)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA)
    fields = json.loads(entry.value)
    del fields["layout"]
    entry.value = json.dumps(fields)
    onnx.save(model, path)
    assert Artifact(path).metadata.layout == "nhwc"
    assert Artifact(path).verify().passed
    del fields["size"]
    entry.value = json.dumps(fields)
    onnx.save(model, path)
    with pytest.raises(ExportError, match="differs in size"):
        _ = Artifact(path).metadata


def test_outputs_are_taken_by_no_node(classifier, tmp_path):
    # What converts a file to float16 and keeps the types of outputs takes them for ends.
    export(classifier, tmp_path / "a.onnx", "onnx", class_maps=True)
    graph = onnx.load(tmp_path / "a.onnx").graph
    taken = {name for node in graph.node for name in node.input}
    assert not taken & {output.name for output in graph.output}
    assert Artifact(tmp_path / "a.onnx").read_reference()["inputs"].shape[-1] == 3
