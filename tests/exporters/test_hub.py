"""The reusable SavedModel, as programs that are not this one see it."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_keras.artifacts import Artifact
from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.exporters.hub import export_hub
from bit_keras.inference import load_predictor
from bit_keras.models import (
    create_classifier,
    create_feature_extractor,
    create_feature_maps,
)
from bit_keras.models.builders import network_of_file
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform, spec_of
from tests.cifar10 import SAMPLES, cifar10_images

#: Same operations in the same process, but another order of float32 sums.
TOLERANCE = 1e-5


def images(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


def relative(got, want):
    return np.abs(np.asarray(got) - np.asarray(want)).max() / np.abs(np.asarray(want)).max()


def test_signature_names_are_stable(classifier_artifact, extractor_artifact):
    for path, output, width in (
        (classifier_artifact, "logits", 10),
        (extractor_artifact, "features", 1024),
    ):
        signature = tf.saved_model.load(str(path)).signatures["serving_default"]
        _, inputs = signature.structured_input_signature
        assert inputs == {"inputs": tf.TensorSpec([None, None, None, 3], tf.float32, "inputs")}
        assert signature.structured_outputs.keys() == {output}
        assert signature.structured_outputs[output].shape.as_list() == [None, width]


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (3, 45, 64, 3), (2, 224, 224, 3)])
def test_every_way_to_call_it_agrees_with_keras_at_any_size(classifier, classifier_artifact, shape):
    loaded = tf.saved_model.load(str(classifier_artifact))
    x = images(*shape)
    want = classifier.predict(x, verbose=0)
    for got in (
        loaded(x),
        loaded(x, training=False),
        loaded(x, training=True),
        loaded.serve(x)["logits"],
        loaded.signatures["serving_default"](inputs=tf.constant(x))["logits"],
    ):
        assert relative(got, want) < TOLERANCE


def test_extractor_agrees_with_keras(extractor, extractor_artifact):
    x = images(2, 64, 48, 3)
    got = tf.saved_model.load(str(extractor_artifact))(x)
    assert relative(got, extractor.predict(x, verbose=0)) < TOLERANCE


def test_all_variables_are_listed_and_trainable(classifier, classifier_artifact):
    loaded = tf.saved_model.load(str(classifier_artifact))
    assert len(loaded.variables) == len(loaded.trainable_variables) == len(classifier.weights)
    assert all(variable.trainable for variable in loaded.trainable_variables)
    assert len(loaded.regularization_losses) == 0


def test_frozen_blocks_stay_frozen_in_the_artifact(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None)
    model.get_layer("block1").trainable = False
    export_hub(model, tmp_path / "frozen")
    loaded = tf.saved_model.load(str(tmp_path / "frozen"))
    assert len(loaded.variables) == len(model.weights)
    assert len(loaded.trainable_variables) == len(model.trainable_weights) < len(model.weights)


def test_regularization_losses_follow_the_variables(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None)
    kernel = model.get_layer("stem_conv").kernel
    kernel.regularizer = keras.regularizers.L2(0.5)
    export_hub(model, tmp_path / "regularized")
    # Its variables live as long as the loaded object does.
    loaded = tf.saved_model.load(str(tmp_path / "regularized"))
    (loss,) = loaded.regularization_losses
    want = 0.5 * np.square(keras.ops.convert_to_numpy(kernel)).sum()
    # A float32 sum of 4,704 squares.
    assert loss().numpy() == pytest.approx(want, rel=1e-5)


@pytest.mark.long
def test_networks_for_other_images_are_exported_and_verified(tmp_path):
    model = create_feature_extractor("bit_tiny.cifar10", in_channels=5)
    export_hub(model, tmp_path / "five")
    loaded = tf.saved_model.load(str(tmp_path / "five"))
    x = images(2, 45, 33, 5)
    assert relative(loaded(x), model.predict(x, verbose=0)) < TOLERANCE
    reference = Artifact(tmp_path / "five").read_reference()["inputs"]
    assert reference.shape == (2, 64, 64, 5)
    # Every channel is told from every other.
    assert len(np.unique(reference[0].reshape(-1, 5), axis=1).T) == 5
    assert Artifact(tmp_path / "five").verify().passed
    with pytest.raises(BitKerasError, match=r"takes in_channels=5, .* read as RGB; call it with"):
        export_hub(model, tmp_path / "folded", folded=True)
    assert not (tmp_path / "folded").exists()


def test_a_head_that_was_cut_down_is_exported_with_its_labels(tmp_path):
    classes = ("ship", "cat")
    model = create_classifier("bit_tiny.cifar10", classes=classes)
    spec = spec_of("bit_tiny.cifar10", classes=classes)
    export_hub(model, tmp_path / "two", spec=spec)
    predictor = load_predictor(tmp_path / "two")
    assert predictor.spec.labels.ids == classes
    (ranked,) = predictor([spec.transform(SAMPLES / "cat.jpg")])
    assert ranked[0][0] == "cat"


@pytest.mark.long
def test_batch_norm_sibling_trains_its_statistics_through_the_artifact(tmp_path):
    model = create_classifier("resnetv2_50.a1h_in1k", weights=None, num_classes=3)
    fill_with_seeded_values(model)
    export_hub(model, tmp_path / "sibling")
    loaded = tf.saved_model.load(str(tmp_path / "sibling"))
    x = images(4, 32, 32, 3)
    assert relative(loaded(x), model.predict(x, verbose=0)) < TOLERANCE
    statistics = [v for v in loaded.variables if not v.trainable]
    before = [v.numpy() for v in statistics]
    trained = loaded(x, training=True)
    assert relative(trained, loaded(x)) > 1e-3
    assert len(statistics) == 98
    for variable, old in zip(statistics, before, strict=True):
        assert not np.array_equal(variable.numpy(), old)


def test_labels_are_not_claimed_for_a_replaced_head(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None, num_classes=2)
    spec = export_hub(model, tmp_path / "two").task
    assert spec["labels"]["names"] == ["class_0", "class_1"]


def test_own_labels_and_transform_travel_with_a_classifier(extractor, tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None, num_classes=2)
    spec = ClassifierSpec(
        Labels("pets", ("c", "d"), ("cat", "dog")), eval_transform("bit_tiny.cifar10", 48)
    )
    export_hub(model, tmp_path / "pets", spec=spec)
    assert ClassifierSpec.from_json(Artifact(tmp_path / "pets").metadata.task) == spec
    inputs = Artifact(tmp_path / "pets").read_reference()["inputs"]
    assert inputs.shape == (2, 48, 48, 3)
    # The features of a classifier have no labels.
    assert export_hub(extractor, tmp_path / "features", spec=spec).spec is None


def test_a_classifier_that_no_transform_fits_is_exported_without_a_task(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None, input_shape=(48, 64, 3))
    assert export_hub(model, tmp_path / "oblong").task is None


def test_no_file_but_those_a_saved_model_may_contain(classifier_artifact):
    # The allowed members of `tensorflow/tfhub.dev`, `tools/validator.py`.
    files = {path.relative_to(classifier_artifact) for path in classifier_artifact.rglob("*")}
    names = {str(path) for path in files if (classifier_artifact / path).is_file()}
    assert names == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/bit_keras.json",
        "assets.extra/golden.npz",
        "assets.extra/saved_model.sha256",
    }


def test_other_models_are_refused(tmp_path):
    maps = create_feature_maps("bit_tiny.cifar10", weights=None)
    with pytest.raises(ExportError, match="create_feature_extractor"):
        export_hub(maps, tmp_path / "a")
    pixels = create_classifier("bit_tiny.cifar10", weights=None, include_preprocessing=True)
    with pytest.raises(ExportError, match="without include_preprocessing"):
        export_hub(pixels, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_other_backends_get_a_sentence(tmp_path):
    program = (
        "import bit_keras\n"
        "from bit_keras.exporters.hub import export_hub\n"
        "model = bit_keras.create_classifier('bit_tiny.cifar10', weights=None)\n"
        f"export_hub(model, {str(tmp_path / 'a')!r})\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ExportError: The target hub needs the TensorFlow backend" in (process.stderr)


# What users of TF Hub and of Keras do with it.


def one_epoch(model, x, y):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=16, epochs=1, verbose=0)


# tf_keras and tensorflow_hub use names that NumPy and setuptools are about to drop.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_keras_layer_fine_tunes_every_variable_on_real_images(
    classifier_artifact, extractor_artifact, tmp_path
):
    hub, tf_keras = pytest.importorskip("tensorflow_hub"), pytest.importorskip("tf_keras")
    x, y = cifar10_images(128)
    layer = hub.KerasLayer(str(extractor_artifact), trainable=True)
    model = tf_keras.Sequential([layer, tf_keras.layers.Dense(10, activation="softmax")])
    model.build([None, 32, 32, 3])
    assert len(layer.trainable_variables) == 61

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(x[:8]) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)

    before = [variable.numpy() for variable in model.trainable_variables]
    one_epoch(model, x, y)
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert not np.array_equal(variable.numpy(), old), variable.name

    tuned = model.predict(x[:32], verbose=0)
    model.save(str(tmp_path / "tuned"), save_format="tf")
    reloaded = tf_keras.models.load_model(str(tmp_path / "tuned"))
    assert np.array_equal(reloaded.predict(x[:32], verbose=0), tuned)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_keras_layer_gives_keras_logits(classifier, classifier_artifact):
    hub, tf_keras = pytest.importorskip("tensorflow_hub"), pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([hub.KerasLayer(str(classifier_artifact))])
    x = images(4, 40, 32, 3)
    assert relative(model.predict(x, verbose=0), classifier.predict(x, verbose=0)) < TOLERANCE


def test_tfsm_layer_loads_and_trains_it(classifier, classifier_artifact):
    layer = keras.layers.TFSMLayer(classifier_artifact, call_endpoint="serving_default")
    x = images(2, 32, 32, 3)
    assert relative(layer(x)["logits"], classifier.predict(x, verbose=0)) < TOLERANCE
    assert len(layer.trainable_weights) == len(classifier.weights)
    # `serve` is what TFSMLayer calls unless told otherwise.
    assert (
        relative(keras.layers.TFSMLayer(classifier_artifact)(x)["logits"], layer(x)["logits"])
        < TOLERANCE
    )


@pytest.mark.long
def test_a_disk_that_fills_up_leaves_nothing(tmp_path):
    # A limit on file sizes makes TensorFlow's writer fail in the middle, as a full disk does.
    program = (
        "import resource, sys\n"
        "import bit_keras\n"
        "from bit_keras.errors import BitKerasError\n"
        "from bit_keras.exporters.hub import export_hub\n"
        "model = bit_keras.create_classifier('bit_tiny.cifar10', weights=None)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "try:\n"
        f"    export_hub(model, {str(tmp_path / 'a')!r})\n"
        "except BitKerasError as error:\n"
        "    print(error)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "could not be written" in process.stdout, process.stderr
    assert "File too large" in process.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_the_name_of_a_model_is_refused_with_what_to_do(tmp_path, tiny_npz):
    (tmp_path / "mine.npz").write_bytes(tiny_npz.read_bytes())
    with pytest.raises(ExportError, match="after the one that it comes from"):
        export_hub(network_of_file(tmp_path / "mine.npz"), tmp_path / "hub")
    assert not (tmp_path / "hub").exists()
