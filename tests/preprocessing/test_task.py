"""A task survives its way through JSON, and knows what the registry knows."""

import json

import pytest

from bit_keras.errors import BitKerasError, SizeError, UnknownLabelsError
from bit_keras.preprocessing import (
    EvalTransform,
    Labels,
    Task,
    decode_predictions,
    load_labels,
    task_of,
)
from bit_keras.registry import Resizing

PETS = Labels("pets", ("c", "d"), ("cat", "dog"))
TRANSFORM = EvalTransform(64, Resizing("short_side", 80, "bicubic", "this test"))


def through_json(task):
    return Task.from_json(json.loads(json.dumps(task.to_json())))


@pytest.mark.parametrize(
    "task",
    [
        Task(PETS, TRANSFORM),
        Task(PETS, TRANSFORM, "sigmoid"),
        Task(load_labels("imagenet_21k"), TRANSFORM, "sigmoid"),
        # Bears the name of a packaged list without being it.
        Task(Labels("cifar10", ("c", "d"), ("cat", "dog")), TRANSFORM),
    ],
    ids=["own", "sigmoid", "packaged", "namesake"],
)
def test_a_task_survives_json(task):
    assert through_json(task) == task


def test_packaged_lists_are_only_named():
    document = Task(load_labels("imagenet_21k"), TRANSFORM).to_json()
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
    document = damage and {**Task(PETS, TRANSFORM).to_json(), **damage}
    with pytest.raises(BitKerasError):
        Task.from_json(document)


def test_another_size_keeps_the_multiple_of_the_crop():
    task = Task(PETS, TRANSFORM).at_size(96)
    assert (task.transform.size, task.transform.resizing.side) == (96, 120)
    assert task.transform.resizing.mode == "short_side"
    assert task.labels == PETS
    assert task.at_size(96) is task
    # As the registry scales it.
    student = task_of("bit_r50x1.distilled_in1k_224")
    assert student.at_size(160) == task_of("bit_r50x1.distilled_in1k_224", 160)
    with pytest.raises(SizeError):
        task.at_size(16)


def test_a_replaced_head_is_numbered_and_scored_with_softmax():
    task = task_of("bit_r50x1.in21k", classes=3)
    assert task.labels.names == ("class_0", "class_1", "class_2")
    assert task.activation == "softmax"
    assert task_of("bit_r50x1.in21k", classes=21843) == task_of("bit_r50x1.in21k")


def test_a_head_that_was_cut_down_keeps_its_ids_and_its_scores():
    task = task_of("bit_r50x1.in21k", classes=("n01443537", "n01440764"))
    assert task.labels.ids == ("n01443537", "n01440764")
    assert task.activation == "sigmoid"
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    with pytest.raises(UnknownLabelsError, match="without a class list"):
        task_of("BiT-M-R50x1-run0-svhn", 224, classes=["0"])


def test_predictions_are_decoded_by_the_labels_and_the_activation_of_a_task():
    for activation, score in (("softmax", 0.5), ("sigmoid", 0.5)):
        ((best, _),) = decode_predictions([[0.0, 0.0]], Task(PETS, TRANSFORM, activation))
        assert best == ("c", "cat", score)
    ((best, other),) = decode_predictions([[800.0, 0.0]], Task(PETS, TRANSFORM, "sigmoid"))
    assert (best, other) == (("c", "cat", 1.0), ("d", "dog", 0.5))
