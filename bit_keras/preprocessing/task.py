"""What a classifier was trained for: its classes, and how pictures are brought to it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from bit_keras.documents import typed
from bit_keras.errors import BitKerasError
from bit_keras.preprocessing.evaluation import EvalTransform, eval_transform
from bit_keras.preprocessing.labels import LISTS, Labels, labels_of, load_labels
from bit_keras.registry import Resizing, model_info

Activation = Literal["softmax", "sigmoid"]


@dataclasses.dataclass(frozen=True)
class Task:
    """The classes of a head and the transform that its pictures go through.

    A checkpoint of the registry has one (`task_of`); a network fine-tuned on
    one's own pictures has another, which travels with its weights.

    Args:
        labels: Labels. In the order of the logits.
        transform: EvalTransform. From a picture to float32 in [-1, 1].
        activation: `"softmax"` or `"sigmoid"`: what turns logits into scores.
            Defaults to `"softmax"`.

    Example:

    ```python
    task = bit_keras.preprocessing.task_of("bit_r50x1.distilled_in1k_224")
    len(task.labels), task.transform.size  # (1000, 224)
    ```
    """

    labels: Labels
    transform: EvalTransform
    activation: Activation = "softmax"

    def at_size(self, size: int) -> "Task":
        """The same task with images of another size, resized to the same multiple of the crop.

        Raises:
            SizeError: `size` is below 32.
        """
        before = self.transform
        if size == before.size:
            return self
        resizing = dataclasses.replace(
            before.resizing,
            side=max(size, round(size * before.resizing.side / before.size)),
            source=f"{before.resizing.source}, scaled from {before.size} pixels",
        )
        return dataclasses.replace(self, transform=EvalTransform(size, resizing))

    def to_json(self) -> dict[str, Any]:
        """A document that `from_json` reads; packaged class lists are only named."""
        labels: dict[str, Any] = {"name": self.labels.name}
        # Others may bear the name of a packaged list.
        if self.labels.name not in LISTS or self.labels != load_labels(self.labels.name):
            labels |= {"ids": list(self.labels.ids), "names": list(self.labels.names)}
        return {
            "labels": labels,
            "transform": dataclasses.asdict(self.transform),
            "activation": self.activation,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Task":
        """Reads what `to_json` wrote.

        Raises:
            BitKerasError: The document is something else.
        """
        try:
            stored = typed(document, _Stored)
            labels, transform = stored.labels, stored.transform
            return cls(
                load_labels(labels.name)
                if labels.ids is None
                else Labels(labels.name, labels.ids, labels.names or ()),
                EvalTransform(transform.size, transform.resizing),
                stored.activation,
            )
        except ValueError as error:
            raise BitKerasError(
                f"The labels and the transform of a classifier cannot be read ({error}); they are "
                "damaged, or were written by another version of bit_keras."
            ) from error


@dataclasses.dataclass(frozen=True)
class _StoredLabels:
    name: str
    ids: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True)
class _StoredTransform:
    size: int
    resizing: Resizing


@dataclasses.dataclass(frozen=True)
class _Stored:
    """What `to_json` writes."""

    labels: _StoredLabels
    transform: _StoredTransform
    activation: Activation


def task_of(name: str, size: int | None = None, classes: int | Sequence[str] | None = None) -> Task:
    """The task of a model of the registry.

    Args:
        name: str. A model name or an alias.
        size: int. Side of the images where it is not the published one.
        classes: int or sequence of str. Width of the head where it was replaced, or
            the ids that it was cut down to, as `create_classifier` takes them.
            Defaults to all of the checkpoint.

    Returns:
        Task. Classes without a published list are called `"class_0"`, `"class_1"`,
        ..., and scored with softmax where the head is not the published one.

    Raises:
        UnknownModelError: No model has that name.
        SizeError: `size` is below 32, or neither given nor published.
        UnknownLabelsError: The classes have no ids to select by.
        BitKerasError: There is no id, one comes twice, or is not in the class list.

    Example:

    ```python
    bit_keras.preprocessing.task_of("bit_r50x1.in21k").activation  # 'sigmoid'
    ```
    """
    checkpoint = model_info(name)
    selected = isinstance(classes, Sequence)
    replaced = not selected and classes not in (None, checkpoint.classes)
    return Task(
        labels_of(checkpoint, classes),
        eval_transform(name, size),
        "softmax" if replaced else checkpoint.activation,
    )
