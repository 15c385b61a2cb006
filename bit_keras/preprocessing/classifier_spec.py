"""What a classifier was trained for: its classes, and how images are brought to it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from bit_keras.documents import typed
from bit_keras.errors import BitKerasError, SizeError, UnknownModelError
from bit_keras.preprocessing.evaluation import EvalTransform, eval_transform
from bit_keras.preprocessing.labels import LISTS, Labels, labels_of, load_labels
from bit_keras.registry import RGB, model_info

Activation = Literal["softmax", "sigmoid"]


@dataclasses.dataclass(frozen=True)
class ClassifierSpec:
    """The classes of a head and the transform that its images go through.

    A checkpoint of the registry has one (`spec_of`); a network fine-tuned on
    one's own images has another, which travels with its weights.

    Args:
        labels: Labels. In the order of the logits.
        transform: EvalTransform. From an image to float32 in [-1, 1].
        activation: `"softmax"` or `"sigmoid"`: what turns logits into scores.
            Defaults to `"softmax"`.

    Example:

    ```python
    spec = bit_keras.preprocessing.spec_of("bit_r50x1.distilled_in1k_224")
    len(spec.labels), spec.transform.size  # (1000, 224)
    ```
    """

    labels: Labels
    transform: EvalTransform
    activation: Activation = "softmax"

    def at_size(self, size: int) -> "ClassifierSpec":
        """The same spec with images of another size, resized to the same multiple of the crop.

        Raises:
            SizeError: `size` is below 32.
        """
        return dataclasses.replace(self, transform=self.transform.at_size(size))

    def to_json(self) -> dict[str, Any]:
        """A document that `from_json` reads; packaged class lists are only named."""
        labels: dict[str, Any] = {"name": self.labels.name}
        # Others may have the name of a packaged list.
        if self.labels.name not in LISTS or self.labels != load_labels(self.labels.name):
            labels |= {"ids": list(self.labels.ids), "names": list(self.labels.names)}
        return {
            "labels": labels,
            "transform": dataclasses.asdict(self.transform),
            "activation": self.activation,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ClassifierSpec":
        """Reads what `to_json` wrote.

        Raises:
            BitKerasError: The document is something else.
        """
        try:
            stored = typed(document, _Stored)
            labels = stored.labels
            return cls(
                load_labels(labels.name)
                if labels.ids is None
                else Labels(labels.name, labels.ids, labels.names or ()),
                stored.transform,
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
class _Stored:
    """What `to_json` writes."""

    labels: _StoredLabels
    transform: EvalTransform
    activation: Activation


def spec_of(
    name: str, size: int | None = None, classes: int | Sequence[str] | None = None
) -> ClassifierSpec:
    """The spec of a model of the registry.

    Args:
        name: str. A model name or an alias.
        size: int. Side of the images where it is not the published one.
        classes: int or sequence of str. Width of the head where it was replaced, or
            the ids that it was cut down to, as `create_classifier` takes them.
            Defaults to all of the checkpoint.

    Returns:
        ClassifierSpec. Classes without a published list are called `"class_0"`, `"class_1"`,
        ..., and scored with softmax where the head is not the published one.

    Raises:
        UnknownModelError: No model has that name.
        SizeError: `size` is below 32, or neither given nor published.
        UnknownLabelsError: The classes have no ids to select by.
        BitKerasError: There is no id, one comes twice, or is not in the class list.

    Example:

    ```python
    bit_keras.preprocessing.spec_of("bit_r50x1.in21k").activation  # 'sigmoid'
    ```
    """
    checkpoint = model_info(name)
    selected = isinstance(classes, Sequence)
    replaced = not selected and classes not in (None, checkpoint.classes)
    return ClassifierSpec(
        labels_of(checkpoint, classes),
        eval_transform(name, size),
        "softmax" if replaced else checkpoint.activation,
    )


def spec_for(
    name: str, spec: ClassifierSpec | None, classes: int, side: int | None, size: int | None
) -> ClassifierSpec:
    """The spec of a classifier at the size that is requested.

    Args:
        name: str. The name of the network.
        spec: ClassifierSpec or None. What is stored with it.
        classes: int. Width of its head.
        side: int or None. The only side of images that it takes.
        size: int or None. The side that the user requests.

    Raises:
        SizeError: The two sides differ, or none is given and none is known.
        BitKerasError: Nothing is stored, and the registry does not know the name.
    """
    size = size_for(name, side, size)
    if spec is None:
        return spec_of(known_name(name), size, classes)
    return spec if size is None else spec.at_size(size)


def size_for(name: str, side: int | None, size: int | None) -> int | None:
    """The side of images that is requested, or the only one that a network takes.

    Raises:
        SizeError: The two differ.
    """
    if side is not None and size not in (None, side):
        raise SizeError(f"{name} takes only images of {side} pixels. Received: size={size}.")
    return side or size


def network_side(input_shape: Sequence[int | None]) -> int | None:
    """The fixed side of the images that a network takes, if it is fixed.

    Raises:
        BitKerasError: They are not the RGB squares that the evaluation transform gives.
    """
    height, width, channels = input_shape[1:]
    if channels != RGB:
        raise BitKerasError(
            f"The network takes in_channels={channels}, and images are read as RGB; call it with "
            "arrays of your own, from Python or from an export with the target hub or keras."
        )
    if height != width:
        raise BitKerasError(
            f"The network takes images of {height}x{width} pixels, and the evaluation transform "
            "gives squares; build it with a square input_shape, or with (None, None, 3)."
        )
    return height


def known_name(name: str) -> str:
    try:
        return model_info(name).name
    except UnknownModelError:
        raise BitKerasError(
            f"The network calls itself {name!r}, which is not a checkpoint of the registry, so the "
            "size of its images and its labels are unknown; build it by a model name "
            "(`bit-keras list`) with weights=PATH and save that."
        ) from None
