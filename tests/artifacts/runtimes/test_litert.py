"""TFLite files of every make: quantised, for one image, without signatures."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.litert import intermediate_tensors
from tests.artifacts.runtimes.conftest import IMAGES

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TFLite files are made by TensorFlow."
)

ENGINES = ("litert", "tf.lite")


def as_pixels(program_path):
    """What stands for `IMAGES` in the integers that a quantised file takes."""
    from ai_edge_litert.interpreter import Interpreter

    (details,) = Interpreter(model_path=str(program_path)).get_input_details()
    scale, zero_point = details["quantization"]
    return np.clip(np.rint(IMAGES / scale) + zero_point, 0, 255).astype("uint8")


@pytest.mark.parametrize("engine", ENGINES)
def test_integers_come_back_as_the_numbers_that_they_stand_for(pixels_tflite, expected, engine):
    program = open_program(pixels_tflite, engine=engine)
    assert program.signatures["serving_default"].input_dtype == "uint8"
    output = program(as_pixels(pixels_tflite))["logits"]
    assert output.dtype == np.float32
    error = np.abs(output - expected["logits"]).max() / np.abs(expected["logits"]).max()
    assert 0 < error < 0.03


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_for_one_image_classifies_many(single_tflite, expected, engine):
    program = open_program(single_tflite, engine=engine)
    assert program.signatures["serving_default"].input_shape == (1, 8, 8, 3)
    for count in (3, 1, 5):
        output = program(IMAGES[:count])["logits"]
        np.testing.assert_allclose(output, expected["logits"][:count], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_mixes_images_in_one_batch_is_run_one_by_one(tmp_path, engine):
    """Means of one image for the columns of another: the shapes fit where there are 8 of each."""
    import tensorflow as tf

    path = tmp_path / "mixing.tflite"

    @tf.function(input_signature=[tf.TensorSpec((1, 8, 8, 3), name="inputs")])
    def mixing(inputs):
        return {"centred": inputs - tf.reduce_mean(inputs, axis=(1, 2))}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [mixing.get_concrete_function()], tf.Module()
    )
    path.write_bytes(converter.convert())
    images = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype("float32")
    expected = images - images.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(
        open_program(path, engine=engine)(images)["centred"], expected, atol=1e-5
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_without_signatures_is_run_by_the_names_of_its_tensors(
    unsigned_tflite, expected, engine
):
    program = open_program(unsigned_tflite, engine=engine)
    assert list(program.signatures) == ["serving_default"]
    for count in (5, 2):
        (output,) = program(IMAGES[:count]).values()
        np.testing.assert_allclose(output, expected["logits"][:count], rtol=1e-5, atol=1e-5)


def test_both_interpreters_return_the_same(tflite, pixels_tflite):
    for path, images in ((tflite, IMAGES), (pixels_tflite, as_pixels(pixels_tflite))):
        outputs = [open_program(path, engine=engine)(images)["logits"] for engine in ENGINES]
        # XNNPACK in two releases; integers are equal.
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-6, atol=1e-6)


def test_nothing_is_printed(tflite):
    script = (
        "import sys, numpy as np; from bit_keras.artifacts.runtimes import open_program;"
        "open_program(sys.argv[1])(np.zeros((1, 8, 8, 3), 'float32'))"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(tflite)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_the_results_of_operations_are_shown_as_stored(pixels_tflite, expected):
    tensors = {
        tensor.name: tensor
        for tensor in intermediate_tensors(pixels_tflite, as_pixels(pixels_tflite))
    }
    assert {tensor.dtype for tensor in tensors.values()} == {"int8", "uint8"}
    maps = [tensor.values for tensor in tensors.values() if tensor.values.shape == (5, 8, 8, 4)]
    features = maps[-1].mean(axis=(1, 2))
    np.testing.assert_allclose(features, expected["features"], atol=0.05)
    np.testing.assert_allclose(tensors["logits"].values, expected["logits"], atol=0.3)
