"""The clients of TFLite files, each in every form: they return what the Interpreter returns.

`make clients` writes what is measured here into docs/deploy.md.
"""

import importlib.metadata

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.litert import dequantized
from bit_keras.preprocessing.decoding import scores_of
from tests.exporters.tflite.models import FORMS, SIZE, extractor, photos, results

litert = pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

#: In the tests that run often; the others take a minute to export.
OFTEN = ("tflite", "tflite --size dynamic")

EVERY_FORM = [
    form if form in OFTEN else pytest.param(form, marks=pytest.mark.long) for form in FORMS
]


def difference_to_keras(path, logits):
    """Of the logits for the two images that a file stores."""
    return relative_difference(logits, Artifact(path).read_reference()["logits"])


@pytest.fixture(params=EVERY_FORM)
def form(request):
    return request.param


@pytest.fixture
def path(form, file_of_form):
    return file_of_form(form)


# The interpreters.


@pytest.mark.parametrize(
    ("client", "engine", "package"),
    [
        ("LiteRT Interpreter", "litert", "ai-edge-litert"),
        ("tf.lite.Interpreter", "tf.lite", "tensorflow"),
    ],
)
def test_the_interpreters(form, path, client, engine, package, client_record):
    logits = open_program(path, engine=engine)(Artifact(path).read_reference()["inputs"])["logits"]
    difference = difference_to_keras(path, logits)
    assert difference < (0.5 if "--quantize" in form else 1e-5)
    client_record(client, importlib.metadata.version(package), form, difference)


# CompiledModel.


class Compiled:
    """LiteRT's CompiledModel: the outputs of a signature for one batch, by name."""

    def __init__(self, path):
        from ai_edge_litert.compiled_model import CompiledModel

        self.model = CompiledModel.from_file(str(path))

    def resize(self, shape, strict=True):
        for number in range(self.model.get_num_signatures()):
            self.model.resize_input_tensor(0, shape, number, strict)

    def __call__(self, images, signature="serving_default"):
        model, number = self.model, self.model.get_signature_index(signature)
        (given,), outputs = model.create_input_buffers(number), model.create_output_buffers(number)
        given.write(np.ascontiguousarray(images))
        model.run_by_index(number, [given], outputs)
        details = model.get_output_tensor_details(signature)
        names = model.get_signature_list()[signature]["outputs"]
        return {
            name: output.read(
                int(np.prod(details[name]["shape"])), np.dtype(details[name]["dtype"])
            ).reshape(details[name]["shape"])
            for name, output in zip(names, outputs, strict=True)
        }


def interpreted(path, images):
    """What the interpreter returns, as it is stored, and the details of the outputs."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    runner = interpreter.get_signature_runner("serving_default")
    return runner(inputs=images), runner.get_output_details()


@pytest.mark.parametrize("signature", ["serving_default", "features"])
def test_compiled_model_returns_what_the_interpreter_returns(form, path, signature, client_record):
    compiled = Compiled(path)
    if form == "tflite --size dynamic":
        compiled.resize((1, SIZE, SIZE, 3))
    logits = []
    for image in Artifact(path).read_reference()["inputs"]:
        found = compiled(image[None], signature)
        expected, details = interpreted(path, image[None])
        assert found.keys() == expected.keys()
        for name in found:
            if expected[name].dtype == np.uint8:
                np.testing.assert_array_equal(found[name], expected[name], name)
            else:
                assert relative_difference(found[name], expected[name]) < 1e-5, name
        logits.append(dequantized(found["logits"], details["logits"]))
    version = importlib.metadata.version("ai-edge-litert")
    difference = difference_to_keras(path, np.concatenate(logits))
    client_record("LiteRT CompiledModel", version, form, difference)


def test_compiled_model_takes_other_sizes_of_a_file_for_any(file_of_form):
    path = file_of_form("tflite --size dynamic")
    compiled = Compiled(path)
    for shape in ((1, 48, 80, 3), (3, 64, 64, 3)):
        images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        compiled.resize(shape)
        found, (expected, _) = compiled(images), interpreted(path, images)
        for name in expected:
            assert relative_difference(found[name], expected[name]) < 1e-5, name


def test_compiled_model_takes_a_feature_extractor(tmp_path):
    path = tmp_path / "extractor.tflite"
    path.write_bytes(extractor())
    images = photos()[:1] / np.float32(127.5) - 1
    for signature in ("serving_default", "features"):
        (found,) = Compiled(path)(images, signature).values()
        assert relative_difference(found, results()[0][:1]) < 1e-5


# MediaPipe.


def test_mediapipe_returns_the_probabilities(form, path, client_record):
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    from tests.exporters.tflite.test_mediapipe import classify, scores

    reference = Artifact(path).read_reference()
    pixels = reference["inputs"]
    if pixels.dtype != np.uint8:
        pixels = np.rint((pixels + 1) * 127.5).astype("uint8")
    expected = scores_of(reference["logits"], "softmax")
    heads = [heads[0] for heads in classify(path.read_bytes(), images=pixels)]
    assert [head.head_name for head in heads] == ["probabilities"] * 2
    difference = relative_difference(np.array([scores(head) for head in heads]), expected)
    assert difference < (0.5 if "--quantize" in form else 1e-5)
    client_record("MediaPipe ImageClassifier", mediapipe.__version__, form, difference)
