"""Every file format is recognised by its content, predicts the same, and fails in one sentence."""

import shutil
import sys

import keras
import numpy as np
import pytest

from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import ExportError
from tests.artifacts.runtimes.conftest import IMAGES, write_onnx

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels need the TensorFlow backend."
)

FILES = ("saved_model", "tflite", "onnx_file", "openvino_folder")

#: Fixture, engine, and what `Program.engine` begins with.
ENGINES = [
    ("saved_model", None, "TensorFlow 2"),
    ("saved_model", "openvino", "OpenVINO 20"),
    ("tflite", None, "LiteRT "),
    ("tflite", "tf.lite", "TensorFlow Lite 2"),
    ("onnx_file", None, "ONNX Runtime 1"),
    ("onnx_file", "openvino", "OpenVINO 20"),
    ("openvino_folder", None, "OpenVINO 20"),
]


@pytest.fixture
def file(request):
    return lambda name: request.getfixturevalue(name)


@pytest.mark.parametrize(("name", "engine", "called"), ENGINES)
def test_every_engine_returns_what_the_network_computes(file, name, engine, called, expected):
    program = open_program(file(name), engine=engine)
    assert program.engine.startswith(called)
    signature = program.signatures["serving_default"]
    assert signature.input_shape == (None, 8, 8, 3)
    assert signature.input_dtype == "float32"
    results = program(IMAGES)
    assert tuple(results) == signature.outputs
    for output, result in results.items():
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected[output], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "engine"), [(name, engine) for name, engine, _ in ENGINES if name != "saved_model"]
)
def test_features_are_requested_by_themselves(file, name, engine, expected):
    results = open_program(file(name), engine=engine)(IMAGES, "features")
    assert list(results) == ["features"]
    np.testing.assert_allclose(results["features"], expected["features"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_any_number_of_images_is_classified(file, name, expected):
    program = open_program(file(name), threads=None)
    for count in (2, 1, 5, 1):
        result = program(IMAGES[:count])["logits"]
        np.testing.assert_allclose(result, expected["logits"][:count], rtol=1e-5, atol=1e-5)


def test_outputs_stay_when_the_next_images_are_computed(file):
    for name in FILES:
        program = open_program(file(name))
        first = program(IMAGES[:2])["logits"]
        copy = first.copy()
        program(IMAGES[3:5])
        assert np.array_equal(first, copy), name


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_does_not_change_the_outputs(file, name, threads, expected):
    result = open_program(file(name), threads=threads)(IMAGES)["logits"]
    np.testing.assert_allclose(result, expected["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("threads", [0, -1, "2", 1.5])
def test_threads_are_counted_from_one(tflite, threads):
    with pytest.raises(ExportError, match="must be an integer from 1"):
        open_program(tflite, threads=threads)


def test_tensorflow_takes_its_threads_once_per_process(saved_model):
    with pytest.raises(ExportError, match="start another process to run it on 7"):
        open_program(saved_model, threads=7)


def test_half_precision_is_said_and_rounds(openvino_folder, expected):
    program = open_program(openvino_folder, engine="openvino-bfloat16")
    assert program.engine.endswith(", bfloat16")
    result = program(IMAGES)["logits"]
    np.testing.assert_allclose(result, expected["logits"], rtol=0.1, atol=0.1)


def test_names_do_not_matter_but_content_does(tflite, onnx_file, openvino_folder, tmp_path):
    shutil.copy(tflite, tmp_path / "a.bin")
    shutil.copy(onnx_file, tmp_path / "b.bin")
    assert open_program(tmp_path / "a.bin").engine.startswith("LiteRT")
    assert open_program(tmp_path / "b.bin").engine.startswith("ONNX Runtime")
    assert open_program(openvino_folder / "model.xml").engine.startswith("OpenVINO")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ExportError, match="is not there; expected a folder with a SavedModel"):
        open_program(tmp_path / "nowhere.tflite")
    for name, content in {"a.tflite": b"", "b.onnx": b"text", "c.xml": b"<html/>"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExportError, match="is not a file that a program can run"):
            open_program(tmp_path / name)
    with pytest.raises(ExportError, match="is not a file that a program can run"):
        open_program(tmp_path)


def test_an_engine_for_other_files_is_refused(tflite, onnx_file):
    with pytest.raises(ExportError, match=r"'onnxruntime' does not run .* litert and tf.lite do"):
        open_program(tflite, engine="onnxruntime")
    with pytest.raises(ExportError, match="'floppy' does not run"):
        open_program(onnx_file, engine="floppy")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("tflite", "ai_edge_litert", "tflite"),
        ("onnx_file", "onnxruntime", "onnx"),
        ("openvino_folder", "openvino", "openvino"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(file, name, package, extra, monkeypatch):
    path = file(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package}: pip install .*bit_keras\[{extra}\]"):
        open_program(path)


@pytest.mark.parametrize("name", FILES)
def test_other_images_are_refused(file, name):
    program = open_program(file(name))
    for images in (
        IMAGES.astype("float64"),
        IMAGES[0],
        IMAGES[:0],
        IMAGES[:, :7],
        IMAGES.transpose(0, 3, 1, 2),
    ):
        with pytest.raises(ExportError, match=r"takes float32 images of the shape \(batch, 8, 8"):
            program(images)
    with pytest.raises(ExportError, match="no signature 'logits'; the file has serving_default"):
        program(IMAGES, "logits")


@pytest.mark.parametrize(("name", "engine"), [(name, engine) for name, engine, _ in ENGINES[3:6]])
def test_files_that_are_cut_are_refused(file, name, engine, tmp_path):
    content = file(name).read_bytes()
    # What LiteRT may crash on is tried in a process, which takes a second.
    count = 4 if name == "tflite" and engine is None else 12
    for length in np.linspace(16, len(content) - 1, count).astype(int):
        path = tmp_path / f"{length}.cut"
        path.write_bytes(content[:length])
        with pytest.raises(ExportError, match=r"\.cut (cannot be loaded by|is damaged|takes)"):
            open_program(path, engine=engine)


def test_cut_files_of_openvino_are_refused(openvino_folder, tmp_path):
    for name in ("model.xml", "model.bin"):
        folder = shutil.copytree(openvino_folder, tmp_path / name)
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ExportError, match="cannot be loaded by OpenVINO"):
            open_program(folder)


def test_a_file_for_several_images_takes_them_in_pieces(weights, expected, tmp_path):
    path = write_onnx(tmp_path / "three.onnx", weights, batch=3)
    program = open_program(path)
    assert program.signatures["serving_default"].input_shape == (3, 8, 8, 3)
    for count in (5, 2, 3):
        result = program(IMAGES[:count])["logits"]
        np.testing.assert_allclose(result, expected["logits"][:count], rtol=1e-5, atol=1e-5)


def test_pixels_are_taken_where_the_file_says_so(weights, tmp_path):
    path = write_onnx(tmp_path / "pixels.onnx", weights, element="UINT8")
    pixels = np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), np.uint8)
    for engine in ("onnxruntime", "openvino"):
        program = open_program(path, engine=engine)
        assert program.signatures["serving_default"].input_dtype == "uint8"
        assert np.ptp(program(pixels)["logits"]) > 1
        with pytest.raises(ExportError, match="takes uint8 images"):
            program(pixels.astype("float32"))


def test_a_graph_that_takes_no_images_is_refused(weights, saved_model, tmp_path):
    path = write_onnx(tmp_path / "other.onnx", weights, element="INT32")
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ExportError, match="and not one batch of images"):
            open_program(path, engine=engine)
    import tensorflow as tf

    loaded = tf.saved_model.load(saved_model)
    signatures = {"serving_default": loaded.signatures["image_bytes"]}
    tf.saved_model.save(loaded, tmp_path / "bytes", signatures=signatures)
    with pytest.raises(ExportError, match="has no signature that takes only images"):
        open_program(tmp_path / "bytes")
