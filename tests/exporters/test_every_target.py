"""What holds for every target of the table, and for every form of it that the table lists."""

from typing import NamedTuple

import keras
import numpy as np
import pytest

from bit_keras import load
from bit_keras.artifacts import Artifact
from bit_keras.artifacts.metadata import CALIBRATED, Metadata
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.opening import format_of
from bit_keras.errors import BitKerasError, ExportError, SizeError
from bit_keras.exporters import export
from bit_keras.exporters.targets import COMMON_OPTIONS, TARGETS, artifact_path
from bit_keras.models import create_classifier
from bit_keras.preprocessing import spec_of
from bit_keras.preprocessing.decoding import scores_of

NAME = "bit_tiny.cifar10"

#: What an artifact may lose of the outputs of Keras, by its precision; in 8 bits, at most.
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 5e-3}
IN_8_BITS = 0.8

#: The targets that also take networks that end in an activation.
_ANY_NETWORK = ("keras",)


def forms():
    """Each target as it is, without a head, and with each value of an option in the table.

    The first of these are in the plain tests, the others in the long ones.
    """
    for target, known in TARGETS.items():
        yield pytest.param((target, "classifier", {}), id=target)
        headless = target, "extractor", {}
        yield pytest.param(headless, id=f"{target}-extractor", marks=pytest.mark.long)
        for name, values in known.options.items():
            # The first of several is the default.
            for value in (values or ())[1:] or values or ():
                model = "trained" if name == "quantize" else "classifier"
                form = target, model, {name: value}
                yield pytest.param(form, id=f"{target}-{name}-{value}", marks=pytest.mark.long)


class Written(NamedTuple):
    """An artifact, and what it was written from."""

    artifact: Artifact
    model: keras.Model
    metadata: Metadata
    target: str
    options: dict


@pytest.fixture
def written(request, calibration, exported):
    target, fixture, options = request.param
    model = request.getfixturevalue(fixture)
    images = calibration if options.get("quantize") in CALIBRATED else None
    path, metadata = exported(model, target, images, **options)
    return Written(Artifact(path), model, metadata, target, options)


of_every_form = pytest.mark.parametrize("written", [*forms()], indirect=True)
of_every_target = pytest.mark.parametrize("target", TARGETS)


def images_of(written):
    """The reference images in the range of the network."""
    low, high = written.metadata.input_range
    inputs = written.artifact.read_reference()["inputs"]
    return ((inputs - np.float32(low)) * np.float32(2 / (high - low)) - 1).astype("float32")


def expected_of(written):
    """What Keras computes for them, by the names of the outputs."""
    layers = written.model.get_layer
    outputs = {"features": layers("features").output}
    if written.metadata.variant == "classification":
        outputs["logits"] = layers("head").output
    return keras.Model(written.model.input, outputs).predict(images_of(written), verbose=0)


# What an artifact says and computes.


@of_every_form
def test_it_says_what_it_is(written):
    metadata, options = written.artifact.metadata, written.options
    assert metadata == written.metadata
    assert (metadata.model, metadata.target) == (NAME, written.target)
    assert metadata.precision == options.get("precision", options.get("quantize", "float32"))
    pixels = written.target == "tflite" and metadata.precision in CALIBRATED
    expected = (0.0, 255.0) if pixels else options.get("input_range", (-1.0, 1.0))
    assert metadata.input_range == expected
    assert written.artifact.read_reference()["inputs"].dtype == ("uint8" if pixels else "float32")
    is_classifier = written.model.layers[-1].name == "head"
    assert metadata.variant == ("classification" if is_classifier else "feature_extraction")
    assert metadata.outputs == (10 if is_classifier else 1024)
    assert metadata.spec == (spec_of(NAME) if is_classifier else None)
    assert {"bit_keras", "keras"} <= metadata.versions.keys()


@of_every_form
def test_its_reference_outputs_are_those_of_keras(written):
    reference, expected = written.artifact.read_reference(), expected_of(written)
    if "output_0" in reference:  # Whatever the network returns, in its order.
        name = "logits" if "logits" in expected else "features"
        reference, expected = {name: reference["output_0"]}, {name: expected[name]}
    for name, output in expected.items():
        assert relative_difference(reference[name], output) < TOLERANCES["float32"], name


@of_every_form
def test_it_computes_its_reference_outputs_within_its_tolerance(written):
    metadata, path = written.artifact.metadata, written.artifact.path
    if metadata.precision == "float32":
        assert metadata.tolerance == TOLERANCES["float32"]
    assert metadata.tolerance <= TOLERANCES.get(metadata.precision, IN_8_BITS)
    reference = written.artifact.read_reference()
    if format_of(path) is None:
        network = keras.models.load_model(path)
        found = {"output_0": network.predict(reference["inputs"], verbose=0)}
    else:
        found = open_program(path)(reference["inputs"])
    compared = found.keys() & reference.keys()
    assert compared
    for name in compared:
        assert relative_difference(found[name], reference[name]) <= metadata.tolerance, name


@of_every_form
def test_it_is_loaded_with_its_labels_and_classifies_as_keras(written):
    if written.metadata.variant != "classification":
        with pytest.raises(BitKerasError, match="features"):
            load(written.artifact.path)
        return
    predictor, logits = load(written.artifact.path), expected_of(written)["logits"]
    assert predictor.spec == spec_of(NAME)
    ranked = predictor(list(images_of(written)), top=10)
    ids = predictor.spec.labels.ids
    scores = np.array([[{id: score for id, _, score in row}[id] for id in ids] for row in ranked])
    # Scores differ by less than the largest difference of a logit.
    tolerance = written.metadata.tolerance * np.abs(logits).max() + 1e-6
    assert np.abs(scores - scores_of(logits, "softmax")).max() < tolerance


@pytest.mark.long
@of_every_form
def test_it_is_verified_in_a_fresh_process(written):
    assert written.artifact.verify().passed


# What is refused, before anything is written.


def path_of(folder, target):
    return folder / f"a{TARGETS[target].suffix}"


@of_every_target
def test_a_folder_that_exists_is_not_touched(target, classifier, tmp_path):
    path = path_of(tmp_path, target)
    thesis = artifact_path(path, target, {}) / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    with pytest.raises(BitKerasError, match=r"exists already|is a folder"):
        export(classifier, path, target)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [thesis]
    assert thesis.read_text() == "years of work"


@of_every_target
def test_a_missing_parent_is_named(target, classifier, tmp_path):
    with pytest.raises(BitKerasError, match="does not exist; create it first"):
        export(classifier, path_of(tmp_path / "no", target), target)
    assert list(tmp_path.iterdir()) == []


@of_every_target
def test_a_write_that_fails_leaves_nothing(target, classifier, tmp_path, monkeypatch):
    def fail(metadata):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Metadata, "to_json", fail)
    with pytest.raises(BitKerasError, match=r"could not be written \(No space left on device\)"):
        export(classifier, path_of(tmp_path, target), target)
    assert list(tmp_path.iterdir()) == []


@of_every_target
def test_other_options_and_values_are_refused_with_those_that_are_allowed(
    target, classifier, tmp_path
):
    with pytest.raises(ExportError) as raised:
        export(classifier, path_of(tmp_path, target), target, colour="red")
    for name in (*TARGETS[target].options, *COMMON_OPTIONS, "colour"):
        assert name in str(raised.value)
    for name, values in TARGETS[target].options.items():
        if values is None:
            continue
        with pytest.raises(ExportError) as raised:
            export(classifier, path_of(tmp_path, target), target, **{name: ("red",)})
        shown = [",".join(f"{x:g}" for x in v) if isinstance(v, tuple) else v for v in values]
        for word in (name, target, "red", *shown):
            assert word in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@of_every_target
def test_networks_specs_sizes_and_names_that_do_not_fit_are_refused(target, classifier, tmp_path):
    path = path_of(tmp_path, target)
    with pytest.raises(ExportError, match="10 classes and the labels of its spec are 2"):
        export(classifier, path, target, spec=spec_of(NAME, classes=2))
    if "size" in TARGETS[target].options:
        with pytest.raises(SizeError, match="at least 32"):
            export(classifier, path, target, size=16)
    if TARGETS[target].suffix:
        with pytest.raises(ExportError, match=rf"ends in \{TARGETS[target].suffix}; .*a\.h5 does"):
            export(classifier, tmp_path / "a.h5", target)
        with pytest.raises(ExportError, match=r"ends in"):
            export(classifier, tmp_path / TARGETS[target].suffix, target)
    if target not in _ANY_NETWORK:
        softmax = create_classifier(NAME, weights=None, classifier_activation="softmax")
        with pytest.raises(ExportError, match=rf"target {target} .*create_classifier"):
            export(softmax, path, target)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def diverged():
    model = create_classifier(NAME)
    kernel = model.get_layer("block2").get_layer("block2_unit01_conv2").kernel
    values = keras.ops.convert_to_numpy(kernel).copy()
    values[0, 0, 0, :2] = np.nan, np.inf
    kernel.assign(values)
    return model


@of_every_target
def test_weights_that_are_not_finite_are_refused_by_name(target, diverged, tmp_path):
    with pytest.raises(BitKerasError) as raised:
        export(diverged, path_of(tmp_path, target), target)
    for fact in ("2 of the 36,864 values", "block2_unit01_conv2/kernel", "allow_nonfinite=True"):
        assert fact in str(raised.value)
    assert list(tmp_path.iterdir()) == []
