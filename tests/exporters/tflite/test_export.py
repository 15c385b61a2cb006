"""The target `tflite`: what a file returns, what it promises, what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import ExportError
from bit_keras.exporters import export
from bit_keras.exporters.tflite import export_tflite, operators
from bit_keras.exporters.tflite.operators import operator_counts
from bit_keras.models import create_classifier
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform, spec_of
from bit_keras.preprocessing.decoding import scores_of
from tests.cifar10 import SAMPLES

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

NAME = "bit_tiny.cifar10"
QUANTIZATIONS = ("none", "float16", "dynamic", "int8", "int8-pure")

# Largest difference of a logit, in units of the largest. Measured: 1e-6, 4e-4, 2e-2, 5e-2, 2e-1.
# Five classes of ten are cats and their like: what counts is measured on 10,000 images, in
# docs/deploy.md.
TOLERANCES = {"none": 1e-5, "float16": 2e-3, "dynamic": 0.05, "int8": 0.1, "int8-pure": 0.4}


@pytest.fixture(scope="module")
def images():
    return np.stack([eval_transform(NAME)(path) for path in sorted(SAMPLES.glob("*.jpg"))])


@pytest.fixture(scope="module")
def outputs(trained, images):
    logits = trained.predict(images, verbose=0)
    features = keras.Model(trained.input, trained.get_layer("features").output)
    return {
        "logits": logits,
        "probabilities": scores_of(logits, "softmax"),
        "features": features.predict(images, verbose=0),
    }


@pytest.fixture(scope="module")
def files(file_of_form):
    """The files of all quantisations, by name."""
    forms = {name: f"tflite --quantize {name}" for name in QUANTIZATIONS} | {"none": "tflite"}
    return {name: file_of_form(form) for name, form in forms.items()}


@pytest.fixture(scope="module", params=QUANTIZATIONS)
def quantize(request):
    return request.param


def given(program, images):
    """The images as a file takes them."""
    if program.signatures["serving_default"].input_dtype == "uint8":
        return np.rint((images + 1) * 127.5).astype("uint8")
    return images


@pytest.mark.parametrize("engine", ["litert", "tf.lite"])
def test_both_interpreters_agree_with_keras(quantize, engine, files, images, outputs):
    program = open_program(files[quantize], engine=engine)
    assert set(program.signatures) == {"serving_default", "features"}
    found = program(given(program, images))
    assert found.keys() == {"features", "logits", "probabilities"}
    (features,) = program(given(program, images), "features").values()
    np.testing.assert_array_equal(features, found["features"])
    for name, expected in outputs.items():
        assert found[name].shape == expected.shape
        assert relative_difference(found[name], expected) < TOLERANCES[quantize], name


def test_the_interpreters_agree(quantize, files, images):
    engines = [open_program(files[quantize], engine=name) for name in ("litert", "tf.lite")]
    first, second = (program(given(program, images)) for program in engines)
    # XNNPACK's kernels differ between the two builds. Rounding to 8 bits hides that, or makes
    # steps of it: 7 of 255 in one of the features of int8-pure.
    tolerance = {"int8": 0.0, "int8-pure": 0.05}.get(quantize, 1e-5)
    for name in first:
        assert relative_difference(second[name], first[name]) <= tolerance


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
@pytest.mark.parametrize("quantize", ["int8", "int8-pure"])
def test_the_interpreters_own_kernels_agree_to_the_bit(quantize, files, images):
    from ai_edge_litert import interpreter as litert

    features = []
    for module, resolvers in ((litert, litert), (tf.lite, tf.lite.experimental)):
        interpreter = module.Interpreter(
            str(files[quantize]),
            experimental_op_resolver_type=resolvers.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        runner = interpreter.get_signature_runner("serving_default")
        pixels = np.rint((images[:1] + 1) * 127.5).astype("uint8")
        features.append(runner(inputs=pixels)["features"])
    np.testing.assert_array_equal(*features)


@pytest.mark.long
@pytest.mark.parametrize("name", ["none", "int8"])
def test_a_file_passes_its_self_check_in_a_fresh_process(name, files):
    verification = Artifact(files[name]).verify()
    assert verification.passed
    assert verification.differences.keys() == {
        f"{signature} ({engine})"
        for signature in ("serving_default", "features")
        for engine in ("LiteRT", "TensorFlow Lite")
    }


def test_a_quantised_file_is_as_small_as_it_should_be(files, trained):
    weights = 4 * trained.count_params()
    sizes = {name: (files[name]).stat().st_size / weights for name in QUANTIZATIONS}
    assert 1 <= sizes["none"] < 1.1
    assert 0.5 <= sizes["float16"] < 0.55
    for name in ("dynamic", "int8", "int8-pure"):
        assert 0.25 <= sizes[name] < 0.31, name


def test_statistics_of_int8_stay_in_float_and_those_of_int8_pure_do_not(files):
    fast, pure = (operator_counts((files[name]).read_bytes()) for name in ("int8", "int8-pure"))
    assert fast["CONV_2D"] == 24  # 23 and the head.
    assert fast["DEQUANTIZE"] == 23
    assert "DEQUANTIZE" not in pure
    assert pure["QUANTIZE"] == 4  # The input and three outputs, between int8 and uint8.


#: The versions of operators above 1 that a form may need: those that the lowest versions of
#: TensorFlow in docs/deploy.md have.
VERSIONS = {
    "none": {},
    "float16": {"DEQUANTIZE": 3},
    "dynamic": {"CONV_2D": 5},
    "int8": {"CONV_2D": 3, "DEQUANTIZE": 2, "MAX_POOL_2D": 2, "PAD": 2, "SOFTMAX": 2},
    "int8-pure": {"CONV_2D": 3, "FULLY_CONNECTED": 4, "MUL": 3, "TILE": 3}
    | dict.fromkeys(("ADD", "MAX_POOL_2D", "MEAN", "PAD", "RSQRT", "SOFTMAX", "SUB"), 2),
}


def test_no_operator_is_newer_than_the_versions_of_the_page(files):
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    for quantize, path in files.items():
        root = schema.Model.GetRootAs(path.read_bytes())
        for index in range(root.OperatorCodesLength()):
            code = root.OperatorCodes(index)
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            assert code.Version() <= VERSIONS[quantize].get(name, 1), f"{quantize}: {name}"


def test_the_same_model_gives_the_same_bytes(trained, tmp_path):
    for name in ("a", "b"):
        export_tflite(trained, tmp_path / name, quantize="float16")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dynamic_size_takes_images_of_any(trained, tmp_path):
    path = tmp_path / "any.tflite"
    export_tflite(trained, path, size="dynamic")
    program = open_program(path)
    assert program.signatures["serving_default"].input_shape == (None, None, None, 3)
    for shape in ((3, 48, 80, 3), (1, 64, 64, 3)):
        some = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        expected = trained.predict(some, verbose=0)
        assert relative_difference(program(some)["logits"], expected) < 1e-5


def test_another_size_and_range_are_stored(trained, images, outputs, tmp_path):
    path = tmp_path / "a.tflite"
    metadata = export_tflite(trained, path, size=48, input_range=(0, 1))
    assert (metadata.size, metadata.input_range) == (48, (0.0, 1.0))
    program = open_program(path)
    some = np.random.default_rng(0).uniform(0, 1, (2, 48, 48, 3)).astype("float32")
    expected = trained.predict(2 * some - 1, verbose=0)
    assert relative_difference(program(some)["logits"], expected) < 1e-5


@pytest.mark.long
def test_an_extractor_has_only_features(extractor, calibration, tmp_path):
    for name in ("none", "int8"):
        path = tmp_path / f"{name}.tflite"
        metadata = export_tflite(extractor, path, quantize=name, calibration=calibration)
        assert metadata.task is None
        program = open_program(path)
        assert {signature.outputs for signature in program.signatures.values()} == {("features",)}


def test_labels_of_ones_own_travel_in_the_file(tmp_path):
    model = create_classifier(NAME, weights=None, num_classes=2)
    labels = Labels("pets", ("cat", "dog"), ("cat", "dog"))
    spec = ClassifierSpec(labels, spec_of(NAME).transform, "sigmoid")
    export_tflite(model, tmp_path / "a.tflite", spec=spec)
    assert ClassifierSpec.from_json(Artifact(tmp_path / "a.tflite").metadata.task) == spec
    # A head of zeros: the sigmoid of 0.
    found = open_program(tmp_path / "a.tflite")(np.zeros((1, 64, 64, 3), "float32"))
    np.testing.assert_array_equal(found["probabilities"], [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantize": "int8"}, "is calibrated with images, and none were given"),
        (
            {"quantize": "int8", "calibration": np.zeros((0, 64, 64, 3), "float32")},
            "is calibrated with images",
        ),
        (
            {"quantize": "int8", "calibration": np.zeros((2, 32, 32, 3), "float32")},
            r"Calibration images are float32 \(64, 64, 3\) in \[-1, 1\].* \(32, 32, 3\)",
        ),
        (
            {"quantize": "int8", "input_range": (0, 1), "calibration": np.zeros((2, 64, 64, 3))},
            "input_range goes with quantize='none' or 'float16' or 'dynamic'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(trained, tmp_path, changes, words):
    with pytest.raises(ExportError, match=words):
        export(trained, tmp_path / "a.tflite", "tflite", **changes)
    assert not list(tmp_path.iterdir())


def test_a_network_over_the_limit_is_refused_with_the_alternative(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(operators, "LIMIT", 5_000_000)
    with pytest.raises(ExportError, match=r"--quantize float16 or dynamic or .*--to onnx"):
        export_tflite(trained, tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_calibration_takes_the_images_as_they_are(trained, calibration, tmp_path):
    """Images in another range give other scales: nothing rescales them in silence."""
    tolerances = [
        export_tflite(trained, tmp_path / "a", quantize="int8", calibration=images).tolerance
        for images in (calibration, np.full_like(calibration, 0.1))
    ]
    assert tolerances[1] > 2 * tolerances[0]
