"""The target `serving`: names, shapes, versions, warm-up, and what the options change."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.errors import BitKerasError, ExportError, SizeError
from bit_keras.exporters import export
from bit_keras.exporters.serving import BATCH_SIZES, export_serving
from bit_keras.exporters.warm_up import WARM_UP
from bit_keras.inference import load_predictor
from bit_keras.models import create_classifier, create_feature_extractor
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform
from tests.cifar10 import SAMPLES

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

CAT = (SAMPLES / "cat.jpg").read_bytes()


def images(*shape):
    return np.random.default_rng(7).uniform(-1, 1, shape).astype("float32")


def described(artifact):
    """Signatures as a client sees them: name -> (inputs, outputs) -> name -> (dtype, shape)."""
    loaded = tf.saved_model.load(str(artifact))

    def tensors(specs):
        return {name: (spec.dtype.name, tuple(spec.shape)) for name, spec in specs.items()}

    return {
        name: (
            tensors(signature.structured_input_signature[1]),
            tensors(signature.structured_outputs),
        )
        for name, signature in loaded.signatures.items()
    }


# What a client relies on.


def test_a_classifier_has_three_signatures_with_stable_names(serving_artifact):
    pixels = {"inputs": ("float32", (None, 64, 64, 3))}
    assert described(serving_artifact) == {
        "serving_default": (
            pixels,
            {"logits": ("float32", (None, 10)), "probabilities": ("float32", (None, 10))},
        ),
        "features": (pixels, {"features": ("float32", (None, 1024))}),
        "image_bytes": (
            {"image_bytes": ("string", (None,))},
            {
                "scores": ("float32", (None, 5)),
                "classes": ("string", (None, 5)),
                "class_ids": ("string", (None, 5)),
            },
        ),
    }


@pytest.mark.long
def test_an_extractor_returns_features_from_all_three(extractor, tmp_path):
    export_serving(extractor, tmp_path / "features", size=48)
    features = {"features": ("float32", (None, 1024))}
    pixels = {"inputs": ("float32", (None, 48, 48, 3))}
    assert described(tmp_path / "features" / "1") == {
        "serving_default": (pixels, features),
        "features": (pixels, features),
        "image_bytes": ({"image_bytes": ("string", (None,))}, features),
    }
    assert Artifact(tmp_path / "features").verify().passed


def test_no_output_is_named_as_if_it_were_bytes(serving_artifact):
    # The REST interface of TensorFlow Serving encodes outputs whose names end in `_bytes`.
    for _, outputs in described(serving_artifact).values():
        assert not any(name.endswith("_bytes") for name in outputs)


def test_the_default_endpoint_of_tfsm_layer_is_the_default_signature(classifier, serving_artifact):
    x = images(2, 64, 64, 3)
    output = keras.layers.TFSMLayer(serving_artifact)(x)
    assert relative_difference(np.asarray(output["logits"]), classifier.predict(x)) < 1e-5


def test_labels_travel_as_a_file_that_people_can_read(serving_artifact):
    lines = (serving_artifact / "assets" / "labels.tsv").read_text().splitlines()
    assert lines[0] == "airplane\tairplane"
    assert len(lines) == 10


@pytest.mark.long
def test_own_labels_are_what_image_bytes_returns(tmp_path):
    model = create_classifier("bit_tiny.cifar10", num_classes=2)
    head = model.get_layer("head")
    head.set_weights([head.get_weights()[0], np.array([0.0, 1.0], "float32")])
    labels = Labels("pets", ("n1", "n2"), ("Kätzchen", "dog, domestic dog"))
    spec = ClassifierSpec(labels, eval_transform("bit_tiny.cifar10", 48), "sigmoid")
    metadata = export_serving(model, tmp_path / "pets", spec=spec)
    assert metadata.size == 48
    loaded = tf.saved_model.load(str(tmp_path / "pets" / "1"))
    output = loaded.signatures["image_bytes"](image_bytes=tf.constant([CAT]))
    # Two classes are fewer than five.
    assert [name.decode() for name in output["classes"].numpy()[0]] == [
        "dog, domestic dog",
        "Kätzchen",
    ]
    assert output["class_ids"].numpy().tolist() == [[b"n2", b"n1"]]
    assert output["scores"].numpy()[0] == pytest.approx([1 / (1 + np.exp(-1.0)), 0.5])
    assert Artifact(tmp_path / "pets").verify().passed


def test_labels_that_would_break_the_file_are_refused(classifier, tmp_path):
    names = ("one\ttwo", *"bcdefghij")
    spec = ClassifierSpec(
        Labels("tabs", tuple("abcdefghij"), names), eval_transform("bit_tiny.cifar10")
    )
    with pytest.raises(ExportError, match=r"'one\\ttwo' contains a tab or a line break; rename it"):
        export_serving(classifier, tmp_path / "a", spec=spec)
    assert list(tmp_path.iterdir()) == []


def test_it_is_not_for_training(serving_artifact):
    loaded = tf.saved_model.load(str(serving_artifact))
    assert not callable(loaded)
    assert not hasattr(loaded, "trainable_variables")


# The options.


@pytest.mark.long
def test_versions_are_side_by_side_and_the_newest_counts(classifier, tmp_path):
    path = tmp_path / "tiny"
    export_serving(classifier, path, batch_sizes=())
    export_serving(classifier, path, version=10, size=48, batch_sizes=())
    assert sorted(folder.name for folder in path.iterdir()) == ["1", "10"]
    assert Artifact(path).verify().metadata.size == 48
    assert load_predictor(path).spec.transform.size == 48
    with pytest.raises(BitKerasError, match=r"tiny.1 exists already"):
        export_serving(classifier, path)
    with pytest.raises(ExportError, match=r"1 or more.*version=0"):
        export(classifier, path, "serving", version=0)


@pytest.mark.long
def test_bfloat16_halves_the_file_and_stays_within_its_digits(
    classifier, serving_artifact, tmp_path
):
    export_serving(classifier, tmp_path / "half", precision="bfloat16")
    verification = Artifact(tmp_path / "half").verify()
    assert verification.metadata.precision == "bfloat16"
    # Rounding to 8 bits, a hundred times in a row: more than float32's, less than the tolerance.
    assert 1e-4 < verification.largest < verification.metadata.tolerance == 5e-2
    weights = "variables/variables.data-00000-of-00001"
    size = (tmp_path / "half" / "1" / weights).stat().st_size
    assert size < 0.52 * (serving_artifact / weights).stat().st_size
    for _, outputs in described(tmp_path / "half" / "1").values():
        assert {dtype for dtype, _ in outputs.values()} <= {"float32", "string"}


def test_a_fixed_network_is_served_at_its_own_size(tmp_path):
    model = create_classifier("bit_tiny.cifar10", input_shape=(48, 48, 3))
    assert export_serving(model, tmp_path / "a", batch_sizes=()).size == 48
    with pytest.raises(SizeError, match=r"48.*64"):
        export_serving(model, tmp_path / "b", size=64)


@pytest.mark.long
def test_batch_norm_siblings_can_be_served(tmp_path):
    model = create_feature_extractor("resnetv2_50.a1h_in1k", weights=None)
    fill_with_seeded_values(model)
    export_serving(model, tmp_path / "sibling", size=64, batch_sizes=())
    assert Artifact(tmp_path / "sibling").verify().passed


def test_mistakes_are_named_and_leave_nothing(classifier, tmp_path):
    with pytest.raises(ExportError, match=r"batch_sizes .*1 or more.*=0"):
        export(classifier, tmp_path / "a", "serving", batch_sizes=(0, 1))
    with pytest.raises(ExportError, match="replays 1000 requests at most"):
        export_serving(classifier, tmp_path / "a", batch_sizes=range(1, 400))
    unknown = "bit_r50x1.in21k_ft_vtab_svhn_run0"
    model = create_classifier(unknown, weights=None)
    with pytest.raises(SizeError, match=r"No source states the input size .* pass `size=`"):
        export_serving(model, tmp_path / "a")
    grey = create_classifier("bit_tiny.cifar10", weights=None, in_channels=1)
    with pytest.raises(BitKerasError, match="in_channels=1, and images are read as RGB"):
        export_serving(grey, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(classifier, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.raises(ExportError, match=r"pip install 'bit_keras\[serving\]'"):
        export_serving(classifier, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    export_serving(classifier, tmp_path / "a", batch_sizes=())
    assert not (tmp_path / "a" / "1" / WARM_UP).exists()


# The requests a server warms up with.


def warm_up_requests(artifact):
    from tensorflow_serving.apis import prediction_log_pb2

    for record in tf.data.TFRecordDataset(str(artifact / WARM_UP)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        yield log.predict_log.request


def test_every_warm_up_request_can_be_replayed(serving_artifact):
    loaded = tf.saved_model.load(str(serving_artifact))
    seen = []
    for request in warm_up_requests(serving_artifact):
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        outputs = loaded.signatures[name](**inputs)
        (batch,) = {value.shape[0] for value in outputs.values()}
        seen.append((name, batch))
    names = ("serving_default", "features", "image_bytes")
    assert seen == [(name, size) for name in names for size in BATCH_SIZES]
    # Equal pixels are stored once.
    assert (serving_artifact / WARM_UP).stat().st_size < 100_000


def test_only_the_requested_batch_sizes_are_warmed_up(classifier, tmp_path):
    export_serving(classifier, tmp_path / "a", batch_sizes=(3,))
    batches = [
        next(iter(request.inputs.values())).tensor_shape.dim[0].size
        for request in warm_up_requests(tmp_path / "a" / "1")
    ]
    assert batches == [3, 3, 3]


# `hub` with the signatures of a server.


def both(artifact, x):
    """The outputs of the signature with folded kernels and of the callable root."""
    signature = artifact.signatures["serving_default"](inputs=tf.constant(x))["logits"]
    return signature.numpy(), artifact(tf.constant(x)).numpy()


@pytest.mark.long
def test_one_artifact_serves_and_is_verified(folded_artifact, serving_artifact):
    served, folded = described(serving_artifact), described(folded_artifact)
    assert folded.keys() == served.keys()
    for name in served:
        assert folded[name][1] == served[name][1]
    # A hub artifact takes any height and width.
    assert folded["features"][0] == {"inputs": ("float32", (None, None, None, 3))}
    verification = Artifact(folded_artifact).verify()
    assert verification.differences.keys() == {
        *served,
        "__call__",
        "__call__, one image at a time",
    }
    assert verification.passed


def test_kernels_are_stored_once(folded_artifact, classifier_artifact):
    weights = "variables/variables.data-00000-of-00001"
    size = (classifier_artifact / weights).stat().st_size
    assert (folded_artifact / weights).stat().st_size < 1.001 * size


@pytest.mark.long
def test_a_fine_tuned_artifact_serves_what_it_learnt_once_it_is_loaded_again(
    folded_artifact, tmp_path
):
    x = images(2, 64, 64, 3)
    loaded = tf.saved_model.load(str(folded_artifact))
    for variable in loaded.trainable_variables:
        variable.assign(variable * tf.random.stateless_uniform(variable.shape, [0, 1], 0.8, 1.2))
    tuned = loaded(tf.constant(x)).numpy()
    tf.saved_model.save(loaded, str(tmp_path / "tuned"), signatures=dict(loaded.signatures))
    reloaded = tf.saved_model.load(str(tmp_path / "tuned"))
    for output in both(reloaded, x):
        assert relative_difference(output, tuned) < 1e-5
    # Both in one process: kernels of one are not those of the other.
    original = tf.saved_model.load(str(folded_artifact))
    before, now = both(original, x), both(reloaded, x)
    assert relative_difference(*before) < 1e-5
    assert relative_difference(*now) < 1e-5
    assert relative_difference(before[0], now[0]) > 1e-2


# The same bytes for the same network.


@pytest.mark.long
@pytest.mark.parametrize("target", ["hub", "serving"])
def test_two_processes_write_the_same_bytes(target, tmp_path):
    program = (
        "import sys, bit_keras\n"
        "from bit_keras.exporters.hub import export_hub\n"
        "from bit_keras.exporters.serving import export_serving\n"
        "model = bit_keras.create_classifier('bit_tiny.cifar10')\n"
        f"export_{target}(model, sys.argv[1])\n"
    )
    for seed, name in enumerate(("first", "second")):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / name)],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        )
    files = [path for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        other = tmp_path / "second" / path.relative_to(tmp_path / "first")
        assert path.read_bytes() == other.read_bytes(), path.name


def test_metadata_says_how_it_is_served(serving_artifact):
    fields = json.loads((serving_artifact / "assets.extra" / "bit_keras.json").read_text())
    assert (fields["size"], fields["folded"]) == (64, True)
