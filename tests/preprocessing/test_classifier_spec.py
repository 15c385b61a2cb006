"""A task survives its way through JSON, and knows what the registry knows."""

import json

import pytest

from bit_keras.errors import BitKerasError, SizeError, UnknownLabelsError
from bit_keras.preprocessing import (
    ClassifierSpec,
    EvalTransform,
    Labels,
    decode_predictions,
    load_labels,
    spec_of,
)
from bit_keras.registry import Resizing

PETS = Labels("pets", ("c", "d"), ("cat", "dog"))
TRANSFORM = EvalTransform(64, Resizing("short_side", 80, "bicubic", "this test"))


def through_json(spec):
    return ClassifierSpec.from_json(json.loads(json.dumps(spec.to_json())))


@pytest.mark.parametrize(
    "spec",
    [
        ClassifierSpec(PETS, TRANSFORM),
        ClassifierSpec(PETS, TRANSFORM, "sigmoid"),
        ClassifierSpec(load_labels("imagenet_21k"), TRANSFORM, "sigmoid"),
        # Bears the name of a packaged list without being it.
        ClassifierSpec(Labels("cifar10", ("c", "d"), ("cat", "dog")), TRANSFORM),
    ],
    ids=["own", "sigmoid", "packaged", "namesake"],
)
def test_a_task_survives_json(spec):
    assert through_json(spec) == spec


def test_packaged_lists_are_only_named():
    document = ClassifierSpec(load_labels("imagenet_21k"), TRANSFORM).to_json()
    assert document["labels"] == {"name": "imagenet_21k"}


@pytest.mark.parametrize(
    "damage",
    [
        None,
        {},
        {"labels": {"name": "pets"}},
        {"labels": {"name": "pets", "ids": ["a"], "names": []}},
        {"transform": {"size": 64}},
        {"transform": {"size": 64, "resizing": {"mode": "squash"}}},
    ],
)
def test_other_documents_are_refused(damage):
    document = damage and {**ClassifierSpec(PETS, TRANSFORM).to_json(), **damage}
    with pytest.raises(BitKerasError):
        ClassifierSpec.from_json(document)


def test_another_size_keeps_the_multiple_of_the_crop():
    spec = ClassifierSpec(PETS, TRANSFORM).at_size(96)
    assert (spec.transform.size, spec.transform.resizing.side) == (96, 120)
    assert spec.transform.resizing.mode == "short_side"
    assert spec.labels == PETS
    assert spec.at_size(96) == spec
    # As the registry scales it.
    student = spec_of("bit_r50x1.distilled_in1k_224")
    assert student.at_size(160) == spec_of("bit_r50x1.distilled_in1k_224", 160)
    with pytest.raises(SizeError):
        spec.at_size(16)


def test_a_replaced_head_is_numbered_and_scored_with_softmax():
    spec = spec_of("bit_r50x1.in21k", classes=3)
    assert spec.labels.names == ("class_0", "class_1", "class_2")
    assert spec.activation == "softmax"
    assert spec_of("bit_r50x1.in21k", classes=21843) == spec_of("bit_r50x1.in21k")


def test_a_head_that_was_cut_down_keeps_its_ids_and_its_scores():
    spec = spec_of("bit_r50x1.in21k", classes=("n01443537", "n01440764"))
    assert spec.labels.ids == ("n01443537", "n01440764")
    assert spec.activation == "sigmoid"
    assert ClassifierSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    with pytest.raises(UnknownLabelsError, match="without a class list"):
        spec_of("BiT-M-R50x1-run0-svhn", 224, classes=["0"])


def test_predictions_are_decoded_by_the_labels_and_the_activation_of_a_task():
    for activation, score in (("softmax", 0.5), ("sigmoid", 0.5)):
        ((best, _),) = decode_predictions([[0.0, 0.0]], ClassifierSpec(PETS, TRANSFORM, activation))
        assert best == ("c", "cat", score)
    ((best, other),) = decode_predictions(
        [[800.0, 0.0]], ClassifierSpec(PETS, TRANSFORM, "sigmoid")
    )
    assert (best, other) == (("c", "cat", 1.0), ("d", "dog", 0.5))
