"""The metrics next to a restatement in plain loops, on logits made up here."""

import keras
import numpy as np
import pytest

from bit_keras.data import open_images
from bit_keras.errors import BitKerasError, DecodingError, UnknownLabelsError
from bit_keras.evaluation import evaluate
from bit_keras.preprocessing import (
    ClassifierSpec,
    EvalTransform,
    Labels,
    decode_predictions,
    load_labels,
)
from bit_keras.registry import Resizing
from tests.cifar10 import SAMPLES

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="No network of Keras takes part."
)

TRANSFORM = EvalTransform(32, Resizing("squash", 32, "bilinear", "this test"))


def task_with(classes, activation="softmax"):
    names = tuple(f"class {index}" for index in range(classes))
    ids = tuple(f"k{index}" for index in range(classes))
    return ClassifierSpec(Labels("classes", ids, names), TRANSFORM, activation)


def numbered_images(targets, classes):
    """Plain images whose grey value is their number."""
    pixels = np.arange(len(targets), dtype=np.uint8)[:, None, None, None]
    pixels = np.broadcast_to(pixels, (len(targets), 32, 32, 3))
    names = [f"k{index}" for index in range(classes)]
    return open_images((pixels, [names[target] for target in targets]))


def outputs(logits):
    """A network that knows the images by their grey value."""

    def network(images):
        assert images.dtype == np.float32
        assert images.shape[1:] == (32, 32, 3)
        return logits[np.round((images[:, 0, 0, 0] + 1) * 127.5).astype(int)]

    return network


@pytest.fixture(scope="module")
def made_up():
    generator = np.random.default_rng(0)
    # Few values, so that most rows contain equal logits.
    logits = generator.integers(0, 4, (103, 7)).astype(np.float32)
    targets = generator.integers(0, 7, 103)
    return logits, targets


def test_metrics_agree_with_plain_loops(made_up):
    logits, targets = made_up
    images = numbered_images(targets, 7)
    evaluation = evaluate(outputs(logits), task_with(7), images, batch=10)
    correct1 = correct5 = 0
    confusion = [[0] * 7 for _ in range(7)]
    loss = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        order = sorted(range(7), key=lambda index: (-row[index], index))
        correct1 += order[0] == target
        correct5 += target in order[:5]
        confusion[target][order[0]] += 1
        loss -= np.log(np.exp(row[target]) / sum(np.exp(value) for value in row))
    assert evaluation.images == 103
    assert evaluation.top1 == correct1 / 103
    assert evaluation.top5 == correct5 / 103
    assert evaluation.confusion.dtype == np.int64
    assert evaluation.confusion.tolist() == confusion
    # Both are float64; the order of the sum differs.
    assert evaluation.loss == pytest.approx(loss / 103, rel=1e-12)
    for index, result in enumerate(evaluation.classes):
        row = confusion[index]
        wrong = [0 if column == index else count for column, count in enumerate(row)]
        assert (result.id, result.label) == (f"k{index}", f"class {index}")
        assert (result.images, result.correct) == (sum(row), row[index])
        assert result.mistaken == max(wrong)
        assert result.mistaken_for == f"class {wrong.index(max(wrong))}"


def test_equal_logits_are_resolved_as_decode_predictions_does(made_up):
    logits, targets = made_up
    evaluation = evaluate(outputs(logits), task_with(7), numbered_images(targets, 7))
    decoded = decode_predictions(logits, task_with(7), top=5)
    true = [f"k{target}" for target in targets]
    hits = [name == best[0][0] for name, best in zip(true, decoded, strict=True)]
    among = [name in {e[0] for e in best} for name, best in zip(true, decoded, strict=True)]
    assert evaluation.top1 == np.mean(hits)
    assert evaluation.top5 == np.mean(among)


@pytest.mark.parametrize("batch", [1, 7, 32, 103, 500])
def test_every_image_counts_once_for_any_batch(made_up, batch):
    logits, targets = made_up
    seen, told = [], []

    def network(images):
        seen.extend(np.round((images[:, 0, 0, 0] + 1) * 127.5).astype(int))
        return outputs(logits)(images)

    images = numbered_images(targets, 7)
    evaluation = evaluate(network, task_with(7), images, batch=batch, progress=told.append)
    assert seen == list(range(103))
    assert sum(told) == evaluation.confusion.sum() == evaluation.images == 103


def test_the_most_confident_mistakes_come_first():
    logits = np.array([[9, 0, 0], [0, 9, 0], [3, 0, 0], [0, 0, 6]], np.float32)
    images = numbered_images([1, 1, 1, 0], 3)
    evaluation = evaluate(outputs(logits), task_with(3), images)
    assert evaluation.top5 is None
    assert [mistake.image for mistake in evaluation.mistakes] == [0, 3, 2]
    first = evaluation.mistakes[0]
    assert (first.label, first.predicted) == ("class 1", "class 0")
    assert first.score == pytest.approx(np.exp(9) / (np.exp(9) + 2), rel=1e-12)


def test_data_with_some_of_the_classes_is_fine():
    logits = np.eye(8, dtype=np.float32)[[5, 5, 2, 7]]
    evaluation = evaluate(outputs(logits), task_with(8), numbered_images([5, 5, 2, 2], 8))
    assert [result.id for result in evaluation.classes] == ["k2", "k5"]
    assert evaluation.confusion.shape == (2, 8)
    assert evaluation.top1 == 0.75
    assert evaluation.to_json()["confusion"] == [["k2", "k2", 1], ["k2", "k7", 1], ["k5", "k5", 2]]


def test_multi_label_heads_have_no_cross_entropy():
    logits = np.array([[800, 900, -900]], np.float32)
    evaluation = evaluate(outputs(logits), task_with(3, "sigmoid"), numbered_images([0], 3))
    assert evaluation.loss is None
    assert evaluation.mistakes[0].score == 1.0


def test_truncated_images_are_named_and_skipped(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "whole.jpg").write_bytes((SAMPLES / f"{name}.jpg").read_bytes())
    (tmp_path / "cat" / "cut.jpg").write_bytes((SAMPLES / "cat.jpg").read_bytes()[:400])
    spec = ClassifierSpec(load_labels("cifar10"), TRANSFORM)
    images = open_images(str(tmp_path))
    evaluation = evaluate(lambda x: np.eye(10)[[3] * len(x)], spec, images, batch=1)
    assert (evaluation.images, evaluation.top1) == (2, 0.5)
    assert list(evaluation.unreadable) == ["cat/cut.jpg"]
    assert evaluation.fingerprint == images.fingerprint
    for path in tmp_path.rglob("whole.jpg"):
        path.unlink()
    with pytest.raises(BitKerasError, match=r"of the 3 images can be read; the first is"):
        evaluate(lambda x: x, spec, images)


def test_invalid_logits_are_an_error():
    images = numbered_images([0, 1], 3)
    with pytest.raises(DecodingError, match=r"\(2, 3\).*shape=\(2, 4\)"):
        evaluate(lambda x: np.zeros((len(x), 4)), task_with(3), images)
    broken = np.array([[0, 0, 0], [0, np.nan, 0]])
    with pytest.raises(DecodingError, match="logits of image 1 are not finite"):
        evaluate(outputs(broken), task_with(3), images)


def test_classes_that_the_model_does_not_have_stop_it_before_any_work():
    images = open_images((np.zeros((2, 32, 32, 3), np.uint8), ["k1", "zebra"]))
    with pytest.raises(
        UnknownLabelsError, match="does not have 1 of the data's 2 classes: 'zebra'"
    ):
        evaluate(lambda x: pytest.fail("called"), task_with(3), images)


def test_the_document_is_stable_and_differs_only_in_throughput(made_up):
    logits, targets = made_up
    documents = [
        evaluate(outputs(logits), task_with(7), numbered_images(targets, 7)).to_json()
        for _ in range(2)
    ]
    throughputs = [document.pop("throughput") for document in documents]
    assert documents[0] == documents[1]
    assert all(value > 0 for throughput in throughputs for value in throughput.values())
    assert throughputs[0].keys() == {
        "seconds",
        "images_per_second",
        "network_images_per_second",
    }
    assert documents[0].keys() == {
        "images",
        "unreadable",
        "fingerprint",
        "top1",
        "top5",
        "loss",
        "real",
        "real_images",
        "classes",
        "confusion",
        "mistakes",
    }
    assert documents[0]["classes"][0].keys() == {
        "id",
        "label",
        "images",
        "correct",
        "accuracy",
        "mistaken_for",
        "mistaken",
    }
    assert documents[0]["mistakes"][0].keys() == {"image", "name", "label", "predicted", "score"}
    assert len(documents[0]["mistakes"]) == 24
