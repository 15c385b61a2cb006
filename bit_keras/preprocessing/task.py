"""What a classifier was trained for: its classes, and how pictures are brought to it."""

import dataclasses
from typing import Any, Literal

from bit_keras.errors import BitKerasError
from bit_keras.preprocessing.evaluation import EvalTransform, eval_transform
from bit_keras.preprocessing.labels import LISTS, Labels, load_labels
from bit_keras.registry import Checkpoint, Resizing, model_info


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
    activation: Literal["softmax", "sigmoid"] = "softmax"

    def to_json(self) -> dict[str, Any]:
        """A document that `from_json` reads; packaged class lists are only named."""
        labels: dict[str, Any] = {"name": self.labels.name}
        if self.labels.name not in LISTS:
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
            labels, transform = document["labels"], document["transform"]
            return cls(
                load_labels(labels["name"])
                if labels["name"] in LISTS
                else Labels(labels["name"], tuple(labels["ids"]), tuple(labels["names"])),
                EvalTransform(transform["size"], Resizing(**transform["resizing"])),
                document["activation"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BitKerasError(
                "The description of a classifier's labels and transform cannot be read "
                f"({type(error).__name__}: {error}); it was written by another version of bit_keras."
            ) from error


def task_of(name: str, size: int | None = None) -> Task:
    """The task of a model of the registry.

    Args:
        name: str. A model name or an alias.
        size: int. Side of the images where it is not the published one.

    Returns:
        Task. Classes without a published list are called `"class_0"`, `"class_1"`, ...

    Raises:
        UnknownModelError: No model has that name.
        SizeError: `size` is below 32, or neither given nor published.
        BitKerasError: No source states how many classes the model has.

    Example:

    ```python
    bit_keras.preprocessing.task_of("bit_r50x1.in21k").activation  # 'sigmoid'
    ```
    """
    checkpoint = model_info(name)
    return Task(_labels(checkpoint), eval_transform(name, size), checkpoint.activation)


def _labels(checkpoint: Checkpoint) -> Labels:
    if checkpoint.labels is not None:
        return load_labels(checkpoint.labels)
    if checkpoint.classes is None:
        raise BitKerasError(f"No source states how many classes {checkpoint.name} has.")
    return numbered_labels(checkpoint.name, checkpoint.classes)


def numbered_labels(name: str, classes: int) -> Labels:
    """Labels `class_0`, `class_1`, ... for a head whose classes nobody has named."""
    numbered = tuple(f"class_{index}" for index in range(classes))
    return Labels(name, numbered, numbered)
