"""Accuracy and per-class results of a classifier on labelled images."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bit_keras.data import Images
from bit_keras.data.pipeline import eval_pipeline
from bit_keras.errors import BitKerasError, DecodingError
from bit_keras.evaluation.classes import match_classes
from bit_keras.evaluation.real import real_labels_of
from bit_keras.preprocessing import ClassifierSpec, Labels
from bit_keras.preprocessing.decoding import scores_of

#: Minimum number of classes for top-5 accuracy: for five classes it is always 1.
_FEWEST_CLASSES_FOR_TOP5 = 6

#: Maximum number of mistakes in the result, the most confident ones.
_MISTAKES = 24


@dataclasses.dataclass(frozen=True)
class ClassResult:
    """The results of one class.

    Attributes:
        id: str. The model's id of the class.
        label: str. The model's label of the class.
        images: int. Number of readable images.
        correct: int. Number of correct predictions.
        mistaken_for: str or None. Label of the most frequent wrong prediction; `None`
            without mistakes.
        mistaken: int. Number of these predictions.
    """

    id: str
    label: str
    images: int
    correct: int
    mistaken_for: str | None
    mistaken: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.images


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong prediction.

    Attributes:
        image: int. Index of the image.
        name: str. Name of the image.
        label: str. The true class.
        predicted: str. The predicted class.
        score: float. Score of the predicted class.
    """

    image: int
    name: str
    label: str
    predicted: str
    score: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        labels: Labels. The model's classes.
        images: int. Number of readable images; each counts once.
        unreadable: dict from the name of an unreadable image to the reason.
        fingerprint: str. Fingerprint of the data; equal for equal data.
        top1: float. Fraction of images whose class has the largest logit.
        top5: float or None. Fraction of images whose class is among the five largest
            logits; `None` if the model has fewer than 6 classes.
        loss: float or None. Mean cross-entropy; `None` for multi-label heads.
        real: float or None. ImageNet ReaL accuracy, if requested.
        real_images: int. Number of images with ReaL labels.
        classes: tuple of results for each class with images, in the model's order, with
            the attributes `id`, `label`, `images`, `correct`, `accuracy`, `mistaken_for`
            and `mistaken`.
        confusion: int64 array `(len(classes), len(labels))`, true x predicted.
        mistakes: tuple of the most confident wrong predictions, at most 24, with the
            attributes `image` (index), `name`, `label`, `predicted` and `score`.
        seconds: float. Total duration, including reading.
        images_per_second: float. Number of images divided by `seconds`.
        network_images_per_second: float. Speed of the network only, without the first
            of several batches, which includes compilation.
    """

    labels: Labels
    images: int
    unreadable: dict[str, str]
    fingerprint: str
    top1: float
    top5: float | None
    loss: float | None
    real: float | None
    real_images: int
    classes: tuple[ClassResult, ...]
    confusion: np.ndarray
    mistakes: tuple[Mistake, ...]
    seconds: float
    images_per_second: float
    network_images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Returns the results as a JSON document; only `throughput` differs between runs.

        `confusion` lists the entries that are not zero: id of the true class, id of the
        predicted class, number of images.
        """
        true, predicted = np.nonzero(self.confusion)
        return {
            "images": self.images,
            "unreadable": self.unreadable,
            "fingerprint": self.fingerprint,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "real": self.real,
            "real_images": self.real_images,
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
                "images_per_second": self.images_per_second,
                "network_images_per_second": self.network_images_per_second,
            },
        }


class _Predictions(NamedTuple):
    """The predictions for readable images, in order."""

    images: np.ndarray
    targets: np.ndarray
    predicted: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    losses: np.ndarray


def evaluate(
    network: Callable[[np.ndarray], np.ndarray],
    spec: ClassifierSpec,
    images: Images,
    batch: int = 32,
    real: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Evaluates a classifier on labelled images.

    Every readable image counts exactly once. If logits are equal, the first class is
    predicted, as in `decode_predictions`. The data's classes are matched with the
    model's by id or label; the data may contain only some of them.

    Args:
        network: callable from float32 images `(n, size, size, 3)` in [-1, 1] to
            logits `(n, classes)`, both NumPy arrays, such as `Predictor.network`.
        spec: ClassifierSpec. The network's classes and transform.
        images: Images, from `bit_keras.data.open_images`.
        batch: int. Images per batch. Defaults to `32`.
        real: bool. Whether to compute ImageNet ReaL accuracy: a prediction is correct
            if it is one of the reassessed labels; images without such labels are
            skipped. Defaults to `False`.
        progress: callable, called with the number of images after each batch.

    Returns:
        Evaluation.

    Raises:
        UnknownLabelsError: The data has classes that the model does not have.
        BitKerasError: No image can be read, the logits are not finite or have
            another shape, or ReaL labels do not apply.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    images = bit_keras.data.open_images((np.zeros((3, 40, 40, 3), "uint8"), ["cat", "dog", "cat"]))
    spec = bit_keras.preprocessing.spec_of("bit_tiny.cifar10")
    bit_keras.evaluation.evaluate(model.predict_on_batch, spec, images).images  # 3
    ```

    Reference:
        ReaL: [Beyer et al., 2020](https://arxiv.org/abs/2006.07159).
    """
    # Only classes with images in this split have to match.
    used, positions = np.unique(images.targets, return_inverse=True)
    targets = match_classes([images.classes[index] for index in used], spec.labels)[positions]
    real_labels = real_labels_of(images.names, spec.labels) if real else None
    start = time.perf_counter()
    outputs, speed = _run(network, spec, images, targets, batch, progress)
    seconds = time.perf_counter() - start

    results, confusion = _by_class(outputs, spec.labels)
    hits = _real_hits(outputs, real_labels) if real_labels is not None else np.zeros(0, bool)
    has_top5 = len(spec.labels) >= _FEWEST_CLASSES_FOR_TOP5
    return Evaluation(
        labels=spec.labels,
        images=len(outputs.images),
        unreadable={n: images.unreadable[n] for n in images.names if n in images.unreadable},
        fingerprint=images.fingerprint,
        top1=float((outputs.ranks == 0).mean()),
        top5=float((outputs.ranks < 5).mean()) if has_top5 else None,
        loss=float(outputs.losses.mean()) if spec.activation == "softmax" else None,
        real=float(hits.mean()) if hits.size else None,
        real_images=hits.size,
        classes=results,
        confusion=confusion,
        mistakes=_worst(outputs, images, spec.labels),
        seconds=seconds,
        images_per_second=len(outputs.images) / seconds,
        network_images_per_second=speed,
    )


def _run(
    network: Callable[[np.ndarray], np.ndarray],
    spec: ClassifierSpec,
    images: Images,
    targets: np.ndarray,
    batch: int,
    progress: Callable[[int], None],
) -> tuple[_Predictions, float]:
    """Returns the predictions for all images, and the images per second of the network."""
    parts, times = [], []
    for inputs, indices in eval_pipeline(images, spec.transform, batch).as_numpy_iterator():
        start = time.perf_counter()
        logits = np.asarray(network(inputs))
        times.append((len(indices), time.perf_counter() - start))
        parts.append(_predictions(logits, indices, targets[indices], spec, images))
        progress(len(indices))
    if not parts:
        name, reason = next(iter(images.unreadable.items()))
        raise BitKerasError(
            f"0 of the {len(images)} images can be read; the first is {name}: {reason}"
        )
    counts, seconds = np.sum(times[1:] or times, axis=0)
    return _Predictions(*map(np.concatenate, zip(*parts, strict=True))), float(counts / seconds)


def _predictions(
    logits: np.ndarray,
    indices: np.ndarray,
    targets: np.ndarray,
    spec: ClassifierSpec,
    images: Images,
) -> _Predictions:
    """Returns the predictions for one batch."""
    if logits.shape != (len(indices), len(spec.labels)):
        raise DecodingError(
            f"The network must return logits of shape ({len(indices)}, {len(spec.labels)}), "
            f"(images, classes). Received: shape={logits.shape}"
        )
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if broken.size:
        raise DecodingError(
            f"The logits of {images.names[indices[broken[0]]]} are not finite; the weights are "
            "damaged, or values overflow in the precision of the network."
        )
    logits = logits.astype(np.float64)
    rows = np.arange(len(logits))
    own = logits[rows, targets][:, None]
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    ranks = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    predicted = logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, targets]
    scores = scores_of(logits, spec.activation)[rows, predicted]
    return _Predictions(indices, targets, predicted, ranks, scores, losses)


def _by_class(outputs: _Predictions, labels: Labels) -> tuple[tuple[ClassResult, ...], np.ndarray]:
    present, rows = np.unique(outputs.targets, return_inverse=True)
    confusion = np.zeros((len(present), len(labels)), np.int64)
    np.add.at(confusion, (rows, outputs.predicted), 1)
    results = []
    for index, counts in zip(present, confusion, strict=True):
        wrong = counts.copy()
        wrong[index] = 0
        worst = int(wrong.argmax())
        results.append(
            ClassResult(
                id=labels.ids[index],
                label=labels.names[index],
                images=int(counts.sum()),
                correct=int(counts[index]),
                mistaken_for=labels.names[worst] if wrong[worst] else None,
                mistaken=int(wrong[worst]),
            )
        )
    return tuple(results), confusion


def _real_hits(outputs: _Predictions, real_labels: list[tuple[int, ...]]) -> np.ndarray:
    """Returns whether the prediction is correct, for each image with ReaL labels."""
    return np.array(
        [
            predicted in real_labels[image]
            for image, predicted in zip(outputs.images, outputs.predicted, strict=True)
            if real_labels[image]
        ],
        bool,
    )


def _worst(outputs: _Predictions, images: Images, labels: Labels) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(outputs.ranks > 0)
    wrong = wrong[np.argsort(-outputs.scores[wrong], kind="stable")][:_MISTAKES]
    return tuple(
        Mistake(
            image=int(outputs.images[position]),
            name=images.names[outputs.images[position]],
            label=labels.names[outputs.targets[position]],
            predicted=labels.names[outputs.predicted[position]],
            score=float(outputs.scores[position]),
        )
        for position in wrong
    )
