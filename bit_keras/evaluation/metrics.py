"""Accuracy, class by class, with every readable picture counted exactly once."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bit_keras.data import Images, eval_pipeline
from bit_keras.errors import BitKerasError, DecodingError
from bit_keras.evaluation.classes import match_classes
from bit_keras.evaluation.real import real_labels_of
from bit_keras.preprocessing import Labels, Task
from bit_keras.preprocessing.decoding import scores_of

#: Top-5 accuracy says little below: of five classes it is always 1.
_FEWEST_CLASSES_FOR_TOP5 = 6

#: Wrong answers that are kept, the most confident ones.
_MISTAKES = 24


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """What became of the pictures of one class.

    Attributes:
        id: str. The model's id of the class.
        label: str.
        pictures: int. How many could be read.
        correct: int.
        mistaken_for: str or None. Label of the most frequent wrong answer, the
            first in the order of the classes of several; `None` without mistakes.
        mistaken: int. How often it was given.
    """

    id: str
    label: str
    pictures: int
    correct: int
    mistaken_for: str | None
    mistaken: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.pictures


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        picture: int. Index into the pictures.
        name: str. What the picture is called.
        label: str. The right class.
        predicted: str. The class that the network gave.
        score: float. Its score.
    """

    picture: int
    name: str
    label: str
    predicted: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        labels: Labels. The model's classes.
        pictures: int. How many pictures were read, each counted once.
        unreadable: dict from the name of every other picture to the reason.
        fingerprint: str. Of the data; equal for the same data.
        top1: float. Share of the pictures whose class has the largest logit.
        top5: float or None. Share whose class is among the five largest; `None`
            where the model has fewer than 6 classes.
        loss: float or None. Mean cross-entropy; `None` for multi-label heads.
        real: float or None. ImageNet ReaL accuracy, where it was asked for.
        real_pictures: int. How many pictures have ReaL labels.
        classes: tuple of ClassResult. Those that have pictures, in the model's order.
        confusion: int64 array `(len(classes), len(labels))`, true x predicted.
        mistakes: tuple of Mistake. The most confident ones, at most 24.
        seconds: float. For everything, reading included.
        pictures_per_second: float. Over `seconds`.
        network_pictures_per_second: float. Of the network alone, without the first
            of several batches, in which frameworks compile.
    """

    labels: Labels
    pictures: int
    unreadable: dict[str, str]
    fingerprint: str
    top1: float
    top5: float | None
    loss: float | None
    real: float | None
    real_pictures: int
    classes: tuple[ClassResult, ...]
    confusion: np.ndarray
    mistakes: tuple[Mistake, ...]
    seconds: float
    pictures_per_second: float
    network_pictures_per_second: float

    def to_json(self) -> dict[str, Any]:
        """All of it as a document; only `throughput` differs from run to run.

        `confusion` lists what is not zero: id of the true class, id of the
        predicted one, number of pictures.
        """
        true, predicted = np.nonzero(self.confusion)
        return {
            "pictures": self.pictures,
            "unreadable": self.unreadable,
            "fingerprint": self.fingerprint,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "real": self.real,
            "real_pictures": self.real_pictures,
            "classes": [
                dataclasses.asdict(result) | {"accuracy": result.accuracy}
                for result in self.classes
            ],
            "confusion": [
                [self.classes[row].id, self.labels.ids[column], int(self.confusion[row, column])]
                for row, column in zip(true, predicted, strict=True)
            ],
            "mistakes": [dataclasses.asdict(mistake) for mistake in self.mistakes],
            "throughput": {
                "seconds": self.seconds,
                "pictures_per_second": self.pictures_per_second,
                "network_pictures_per_second": self.network_pictures_per_second,
            },
        }


@dataclasses.dataclass(frozen=True)
class _Answers:
    """What the network said to each picture that could be read, in their order."""

    pictures: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    losses: np.ndarray


def evaluate(
    network: Callable[[np.ndarray], np.ndarray],
    task: Task,
    images: Images,
    batch: int = 32,
    real: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measures a classifier on labelled pictures.

    Every picture that can be read counts exactly once. Of equal logits the first
    class wins, as in `decode_predictions`. The data's classes are matched to the
    model's by id or label (`match_classes`); data may have some of them only.

    Args:
        network: callable from float32 images `(n, size, size, 3)` in [-1, 1] to
            logits `(n, classes)`, NumPy arrays both; `Predictor.network` is one.
        task: Task. The network's classes and transform.
        images: Images, from `bit_keras.data.open_images`.
        batch: int. Images that go through the network at once. Defaults to `32`.
        real: bool. Also ImageNet ReaL accuracy: an answer is right that is one of
            several reassessed labels; pictures without any are left out.
        progress: callable, which gets the number of pictures after each batch.

    Returns:
        Evaluation.

    Raises:
        UnknownLabelsError: The data has classes that the model does not have.
        BitKerasError: No picture can be read, the logits are not finite or of
            another width, or ReaL labels do not apply.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    images = bit_keras.data.open_images((np.zeros((3, 40, 40, 3), "uint8"), ["cat", "dog", "cat"]))
    task = bit_keras.preprocessing.task_of("bit_tiny.cifar10")
    bit_keras.evaluation.evaluate(model.predict_on_batch, task, images).pictures  # 3
    ```

    Reference:
        ReaL: [Beyer et al., 2020](https://arxiv.org/abs/2006.07159).
    """
    targets = _targets(images, task.labels)
    real_labels = real_labels_of(images.names, task.labels) if real else None
    start = time.perf_counter()
    answers, speed = _run(network, task, images, targets, batch, progress)
    seconds = time.perf_counter() - start

    results, confusion = _by_class(answers, task.labels)
    hits = _real_hits(answers, real_labels) if real_labels is not None else np.zeros(0, bool)
    has_top5 = len(task.labels) >= _FEWEST_CLASSES_FOR_TOP5
    return Evaluation(
        labels=task.labels,
        pictures=len(answers.pictures),
        unreadable={n: images.unreadable[n] for n in images.names if n in images.unreadable},
        fingerprint=images.fingerprint,
        top1=float((answers.ranks == 0).mean()),
        top5=float((answers.ranks < 5).mean()) if has_top5 else None,
        loss=float(answers.losses.mean()) if task.activation == "softmax" else None,
        real=float(hits.mean()) if hits.size else None,
        real_pictures=hits.size,
        classes=results,
        confusion=confusion,
        mistakes=_worst(answers, images, task.labels),
        seconds=seconds,
        pictures_per_second=len(answers.pictures) / seconds,
        network_pictures_per_second=speed,
    )


def _targets(images: Images, labels: Labels) -> np.ndarray:
    """The model's class of every picture."""
    # A split may lack pictures of some classes, which then need no counterpart.
    used, positions = np.unique(images.targets, return_inverse=True)
    return match_classes([images.classes[index] for index in used], labels)[positions]


def _run(
    network: Callable[[np.ndarray], np.ndarray],
    task: Task,
    images: Images,
    targets: np.ndarray,
    batch: int,
    progress: Callable[[int], None] | None,
) -> tuple[_Answers, float]:
    """The answers to all pictures, and how many of them the network gives per second."""
    parts, times = [], []
    for inputs, indices in eval_pipeline(images, task.transform, batch).as_numpy_iterator():
        start = time.perf_counter()
        logits = np.asarray(network(inputs))
        times.append((len(indices), time.perf_counter() - start))
        parts.append(_answers(logits, indices, targets[indices], task, images))
        if progress is not None:
            progress(len(indices))
    if not parts:
        name, reason = next(iter(images.unreadable.items()))
        raise BitKerasError(
            f"None of the {len(images)} pictures can be read; the first is {name}: {reason}"
        )
    fields = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    counts, seconds = np.sum(times[1:] or times, axis=0)
    return _Answers(*fields), float(counts / seconds)


def _answers(
    logits: np.ndarray, indices: np.ndarray, targets: np.ndarray, task: Task, images: Images
) -> tuple[np.ndarray, ...]:
    """The fields of `_Answers` for one batch."""
    if logits.shape != (len(indices), len(task.labels)):
        raise DecodingError(
            f"The network gave an array {logits.shape} for {len(indices)} images of a task with "
            f"{len(task.labels)} classes; it must give logits, (images, classes)."
        )
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        raise DecodingError(
            f"The logits of {images.names[indices[broken[0]]]} are not finite; the weights are "
            "damaged, or the network overflows in its precision."
        )
    logits = logits.astype(np.float64)
    rows = np.arange(len(logits))
    own = logits[rows, targets][:, None]
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    ranks = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    predicted = logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, targets]
    scores = scores_of(logits, task.activation)[rows, predicted]
    return indices, targets, predicted, ranks, scores, losses


def _by_class(answers: _Answers, labels: Labels) -> tuple[tuple[ClassResult, ...], np.ndarray]:
    present, rows = np.unique(answers.targets, return_inverse=True)
    confusion = np.zeros((len(present), len(labels)), np.int64)
    np.add.at(confusion, (rows, answers.predicted), 1)
    results = []
    for index, counts in zip(present, confusion, strict=True):
        wrong = counts.copy()
        wrong[index] = 0
        worst = int(wrong.argmax())
        results.append(
            ClassResult(
                id=labels.ids[index],
                label=labels.names[index],
                pictures=int(counts.sum()),
                correct=int(counts[index]),
                mistaken_for=labels.names[worst] if wrong[worst] else None,
                mistaken=int(wrong[worst]),
            )
        )
    return tuple(results), confusion


def _real_hits(answers: _Answers, real_labels: list[tuple[int, ...]]) -> np.ndarray:
    """Whether the answer is a right one, for each picture that has ReaL labels."""
    return np.array(
        [
            predicted in real_labels[picture]
            for picture, predicted in zip(answers.pictures, answers.predicted, strict=True)
            if real_labels[picture]
        ],
        bool,
    )


def _worst(answers: _Answers, images: Images, labels: Labels) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(answers.ranks > 0)
    wrong = wrong[np.argsort(-answers.scores[wrong], kind="stable")][:_MISTAKES]
    return tuple(
        Mistake(
            picture=int(answers.pictures[position]),
            name=images.names[answers.pictures[position]],
            label=labels.names[answers.targets[position]],
            predicted=labels.names[answers.predicted[position]],
            score=float(answers.scores[position]),
        )
        for position in wrong
    )
