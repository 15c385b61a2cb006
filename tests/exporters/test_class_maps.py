"""Artifacts that carry class activation maps: those of Keras, for a graph and no more weights."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.checksums import SUMS
from bit_keras.artifacts.members import REFERENCE, located
from bit_keras.artifacts.reference import (
    REFERENCE_CLASSES,
    reference_bytes,
    reference_difference,
    relative_difference,
)
from bit_keras.artifacts.replay import replay
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.cli import main
from bit_keras.errors import ExportError
from bit_keras.exporters import export
from bit_keras.exporters.tflite import export_tflite
from bit_keras.inference import load_predictor
from bit_keras.models import create_class_maps, create_classifier
from tests.exporters.tflite.models import photos, results

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

from bit_keras.exporters.onnx import export_onnx

pytestmark = pytest.mark.filterwarnings(
    # It is one of the two programs that have to run the files.
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)

TARGETS = ("hub", "serving", "tflite", "onnx", "openvino")
NAMES = {"tflite": "a.tflite", "onnx": "a.onnx"}

#: The contract of float32.
TOLERANCE = 1e-5


def images(*shape):
    return np.random.default_rng(7).uniform(-1, 1, shape).astype("float32")


def exported(folder, target, model, **options):
    """The path of an artifact with class maps."""
    path = folder / NAMES.get(target, target)
    export(model, path, target, class_maps=True, **options)
    return located(path)


@pytest.fixture(scope="module")
def artifacts(classifier, tmp_path_factory):
    """A function from a target to its artifact, which is exported once."""
    known = {}

    def artifact(target):
        if target not in known:
            known[target] = exported(tmp_path_factory.mktemp(target), target, classifier)
        return known[target]

    return artifact


def maps_and_logits(path, x):
    """Both outputs of an artifact, whichever of its signatures has them."""
    program = open_program(path)
    (signature,) = (
        name for name, known in program.signatures.items() if CLASS_MAPS in known.outputs
    )
    maps = program(x, signature)[CLASS_MAPS]
    assert maps.dtype == np.float32
    return maps, program(x)["logits"]


def require_maps_of_keras(path, classifier, x, tolerance, callers=lambda x: x):
    maps, logits = maps_and_logits(path, callers(x))
    expected = create_class_maps(classifier).predict(x, verbose=0)
    assert relative_difference(maps, expected) < tolerance
    assert relative_difference(logits, classifier.predict(x, verbose=0)) < tolerance
    assert relative_difference(maps.mean((1, 2)), logits) < tolerance


# What a caller relies on.


@pytest.mark.parametrize("target", TARGETS)
def test_the_maps_are_those_of_keras(classifier, artifacts, target):
    require_maps_of_keras(artifacts(target), classifier, images(3, 64, 64, 3), TOLERANCE)


@pytest.mark.parametrize(
    "target", [pytest.param("hub", marks=pytest.mark.long), "onnx", "openvino"]
)
def test_sides_are_rounded_up_at_any_size(classifier, artifacts, target):
    x = images(2, 45, 72, 3)
    assert maps_and_logits(artifacts(target), x)[0].shape == (2, 2, 3, 10)
    require_maps_of_keras(artifacts(target), classifier, x, TOLERANCE)


def test_an_onnx_file_of_one_size_states_that_of_its_maps(classifier, tmp_path):
    import onnx

    path = exported(tmp_path, "onnx", classifier, size=48, input_range=(0, 1))
    (output,) = (one for one in onnx.load(path).graph.output if one.name == CLASS_MAPS)
    assert [side.dim_value or side.dim_param for side in output.type.tensor_type.shape.dim] == [
        "batch",
        2,
        2,
        10,
    ]
    x = images(3, 48, 48, 3)
    require_maps_of_keras(path, classifier, x, TOLERANCE, lambda x: (x + 1) / 2)


@pytest.mark.long
def test_a_tflite_file_for_any_size_has_maps_of_any_size(classifier, tmp_path):
    path = exported(tmp_path, "tflite", classifier, size="dynamic")
    require_maps_of_keras(path, classifier, images(1, 72, 45, 3), TOLERANCE)


@pytest.mark.long
def test_folded_kernels_give_the_same_maps(classifier, tmp_path):
    path = exported(tmp_path, "hub", classifier, folded=True)
    require_maps_of_keras(path, classifier, images(2, 64, 64, 3), TOLERANCE)
    assert replay(path)[CLASS_MAPS] < TOLERANCE


# What rounding costs depends on the weights, so these are the trained ones. Measured on the images
# that artifacts store: 6e-4 with weights in float16, which have 11 bits; 2e-2 in bfloat16,
# which has 8; 3e-2 with the 8-bit weights of `dynamic`; 7e-2 in `int8`, also in activations.
@pytest.mark.parametrize(
    ("target", "options", "tolerance"),
    [
        pytest.param("tflite", {"quantize": "float16"}, 3e-3, marks=pytest.mark.long),
        pytest.param("tflite", {"quantize": "dynamic"}, 0.08, marks=pytest.mark.full),
        pytest.param("onnx", {"quantize": "float16"}, 3e-3, marks=pytest.mark.full),
        pytest.param("onnx", {"quantize": "int8", "size": 64}, 0.2, marks=pytest.mark.long),
        pytest.param("openvino", {"quantize": "float16"}, 3e-3, marks=pytest.mark.full),
        pytest.param("serving", {"precision": "bfloat16"}, 0.05, marks=pytest.mark.long),
    ],
)
def test_fewer_bits_cost_the_maps_what_they_cost_the_logits(tmp_path, target, options, tolerance):
    trained = create_classifier("bit_tiny.cifar10")
    x = photos() / np.float32(127.5) - 1
    if options.get("quantize") == "int8":
        options = options | {"calibration": x}
    path = exported(tmp_path, target, trained, **options)
    require_maps_of_keras(path, trained, x, tolerance)
    assert Artifact(path).verify().passed


@pytest.mark.parametrize("target", ["serving", "tflite", "onnx"])
def test_the_logits_stay_the_same(classifier, artifacts, target):
    x = images(2, 64, 64, 3)
    logits = load_predictor(artifacts(target)).network(x)
    assert relative_difference(logits, classifier.predict(x, verbose=0)) < TOLERANCE


@pytest.mark.long
def test_a_hub_artifact_is_fine_tuned_as_before(classifier_artifact, artifacts):
    def gradients(path):
        loaded = tf.saved_model.load(str(path))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(loaded(images(2, 32, 32, 3), training=True)[:, 0])
        return tape.gradient(loss, loaded.trainable_variables)

    before, after = gradients(classifier_artifact), gradients(artifacts("hub"))
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(one).max())


def size_of(path):
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def test_an_artifact_grows_by_less_than_the_weights_of_the_head(
    classifier, classifier_artifact, serving_artifact, artifacts, tmp_path
):
    export_onnx(classifier, tmp_path / "a.onnx")
    export_tflite(classifier, tmp_path / "a.tflite")
    before = {
        "hub": classifier_artifact,
        "serving": serving_artifact,
        "onnx": tmp_path / "a.onnx",
        "tflite": tmp_path / "a.tflite",
    }
    head = 4 * classifier.get_layer("head").count_params()
    for target, path in before.items():
        assert 0 < size_of(artifacts(target)) - size_of(path) < head, target


def test_other_artifacts_have_no_class_maps(classifier_artifact, serving_artifact):
    for path in (classifier_artifact, serving_artifact):
        assert CLASS_MAPS not in tf.saved_model.load(str(path)).signatures
        assert CLASS_MAPS not in Artifact(path).read_reference()


@pytest.mark.long
def test_mediapipe_takes_the_file_and_reads_the_probabilities_first(tmp_path):
    pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    from tests.exporters.tflite.test_mediapipe import classify, embed, scores

    path = exported(tmp_path, "tflite", create_classifier("bit_tiny.cifar10"))
    features, expected = results()
    heads = classify(path.read_bytes())
    names = ["probabilities", "logits", "features", CLASS_MAPS]
    assert [head.head_name for head in heads[0]] == names
    found = np.array([scores(head) for head, *_ in heads])
    assert np.abs(found - expected).max() < TOLERANCE
    assert heads[0][0].categories[0].category_name == "airplane"
    embeddings = embed(path.read_bytes())
    found = np.stack([heads[2].embedding for heads in embeddings])
    assert np.abs(found - features).max() < 1e-4 * np.abs(features).max()


# The self-check.


@pytest.mark.parametrize(
    ("target", "endpoints"),
    [
        ("hub", {CLASS_MAPS}),
        ("serving", {CLASS_MAPS}),
        ("tflite", {"class_maps (LiteRT)", "class_maps (TensorFlow Lite)"}),
        ("onnx", {"class_maps (ONNX Runtime)"}),
        ("openvino", {"class_maps (OpenVINO)"}),
    ],
)
def test_the_replay_names_the_maps(artifacts, target, endpoints):
    differences = replay(artifacts(target))
    assert endpoints <= differences.keys()
    assert max(differences.values()) < TOLERANCE


def test_other_maps_fail(artifacts, tmp_path):
    path = shutil.copytree(artifacts("openvino"), tmp_path / "a")
    reference = Artifact(path).read_reference()
    reference[CLASS_MAPS][1, 0, 1, 3] += 1e-3 * np.abs(reference[CLASS_MAPS]).max()
    (path / REFERENCE).write_bytes(reference_bytes(reference))
    (path / SUMS).unlink()
    verification = Artifact(path).verify()
    assert not verification.passed
    assert verification.differences["class_maps (OpenVINO)"] == pytest.approx(1e-3, rel=0.05)
    assert verification.differences["serving_default (OpenVINO)"] < TOLERANCE


def test_few_classes_are_stored_and_all_are_checked():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 25)).astype("float32")
    reference = {CLASS_MAPS: maps[..., :REFERENCE_CLASSES], "logits": maps.mean((1, 2))}
    assert reference_difference(CLASS_MAPS, maps, reference) < 1e-6
    # The right means at the wrong positions, and the right positions of most classes.
    assert reference_difference(CLASS_MAPS, maps[:, ::-1], reference) > 0.1
    other = maps.copy()
    other[0, 0, 0, 20] += 1
    assert reference_difference(CLASS_MAPS, other, reference) > 0.01
    assert reference_difference(CLASS_MAPS, maps[:, :2], reference) == np.inf


# Mistakes.


@pytest.mark.parametrize("target", TARGETS)
def test_a_network_without_a_head_is_refused(extractor, tmp_path, target):
    with pytest.raises(ExportError, match=r"class_maps goes with a classifier.*classification"):
        exported(tmp_path, target, extractor)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantize", ["int8", "int8-pure"])
def test_tflite_files_in_8_bits_are_refused(classifier, tmp_path, quantize):
    with pytest.raises(ExportError, match=r"class_maps goes with quantize='none' or .*'dynamic'"):
        exported(
            tmp_path, "tflite", classifier, quantize=quantize, calibration=images(1, 64, 64, 3)
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--to keras", "openvino. bit_keras.create_class_maps"),
        ("--to hub --variant feature_extraction", "with --variant classification."),
        (
            "--to tflite --quantize int8 --calibrate photos",
            "--class-maps goes with --quantize none or float16 or dynamic.",
        ),
    ],
)
def test_the_command_refuses_them_before_it_builds_anything(tmp_path, options, message):
    arguments = ["export", "bit_tiny.cifar10", *options.split(), "--class-maps", "--out"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "a.keras")])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_them(tmp_path):
    path = tmp_path / "a.onnx"
    arguments = ["export", "bit_tiny.cifar10", "--to", "onnx", "--class-maps", "--out", str(path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert CLASS_MAPS in open_program(path).signatures["serving_default"].outputs
