"""`bit-keras export` to files for phones and other engines, and what is done with them then."""

import json
import shutil

import keras
import pytest

from tests.cifar10 import CLASSES, SAMPLES
from tests.cli.running import fails, run, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Artifacts need the TensorFlow backend."
)
pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

NAME = "bit_tiny.cifar10"


@pytest.mark.parametrize(
    ("options", "file"),
    [
        pytest.param(
            ["--to", "tflite", "--quantize", "int8", "--calibrate", SAMPLES],
            "a.tflite",
            marks=pytest.mark.long,
        ),
        (["--to", "onnx", "--quantize", "int8", "--calibrate", SAMPLES, "--size", 64], "a.onnx"),
        (["--to", "openvino", "--quantize", "float16"], "a"),
    ],
    ids=["tflite", "onnx", "openvino"],
)
def test_a_file_is_written_verified_and_evaluated(options, file, tmp_path):
    if "openvino" in options:
        pytest.importorskip("openvino", reason="openvino is not installed")
    path = tmp_path / file
    result = succeeds("export", NAME, *options, "--out", path)
    # TFLite's int8 files take pixels.
    assert ("[0,255]" if file == "a.tflite" else "[-1,1]") in result.stdout
    assert "exists already" in fails("export", NAME, *options, "--out", path)
    assert json.loads(succeeds("verify", path, "--json").stdout)["passed"]

    image = SAMPLES / "ship.jpg"
    (output,) = json.loads(succeeds("predict", path, image, "--json").stdout)
    assert output["predictions"][0]["label"] == "ship"
    for name in CLASSES:
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(SAMPLES / f"{name}.jpg", tmp_path / "data" / name)
    evaluated = succeeds("evaluate", path, "--data", tmp_path / "data", "--json")
    assert json.loads(evaluated.stdout)["top1"] >= 0.9  # All ten, or nine.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["--to", "tflite", "--quantize", "int8"],
            "Set --calibrate",
        ),
        (["--to", "tflite", "--quantize", "int4"], "'int4' is not one of 'none', 'float16'"),
        (
            ["--to", "onnx", "--quantize", "int8-pure"],
            "float16 or int8 with --to onnx. Received:",
        ),
        (["--to", "serving", "--quantize", "int8"], "--quantize goes with --to tflite or onnx"),
        (["--to", "tflite", "--calibrate", SAMPLES], "--calibrate goes with --quantize int8"),
        (["--to", "tflite", "--seed", "1"], "--seed goes with --calibrate and --quantize int8"),
        (["--to", "onnx", "--size", "dynamic"], "--size dynamic goes with --to tflite"),
        (["--to", "tflite", "--size", "large"], "'large' is not a number of pixels"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(options, sentence, tmp_path):
    result = run("export", NAME, *options, "--out", tmp_path / "a")
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not list(tmp_path.iterdir())


def test_images_that_cannot_calibrate_leave_nothing(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"no image")
    options = ["--to", "tflite", "--quantize", "int8", "--calibrate", tmp_path / "data"]
    error = fails("export", NAME, *options, "--out", tmp_path / "a.tflite")
    assert "calibrated with images, and none of the 1 in" in error
    assert not (tmp_path / "a.tflite").exists()


def test_a_damaged_file_is_a_sentence(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3 and no more")
    (tmp_path / "a.onnx").write_bytes(b"\x08no model")
    for name in ("a.tflite", "a.onnx"):
        for command in (["predict", tmp_path / name, SAMPLES / "cat.jpg"], ["verify"]):
            arguments = command if len(command) > 1 else ["verify", tmp_path / name]
            assert str(tmp_path / name) in fails(*arguments)
