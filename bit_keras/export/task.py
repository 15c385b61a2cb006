"""The labels and the transform that travel with an exported classifier."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bit_keras.errors import BitKerasError, ExportError, SizeError, UnknownModelError
from bit_keras.preprocessing import EvalTransform, Task, eval_transform, task_of
from bit_keras.preprocessing.labels import numbered_labels
from bit_keras.registry import RGB, checkpoint_of, model_info

if TYPE_CHECKING:
    import keras


def checked_task(model: "keras.Model", task: Task | None = None) -> Task | None:
    """The task to store with a model: the given one, or what the registry knows of its name.

    Args:
        model: A network of this package.
        task: Task or None.

    Returns:
        Task, or None for a network without a head, and where the registry does not
        know the name or no source states the size of the images.

    Raises:
        ExportError: The network has another number of classes than the given task.
    """
    classes = _classes(model)
    if classes is None:
        return None
    if task is not None:
        if classes != len(task.labels):
            raise ExportError(
                f"{model.name} has {classes} classes and the labels of its task are "
                f"{len(task.labels)}."
            )
        return task
    height, width = model.input_shape[1:3]
    if height == width:
        with contextlib.suppress(UnknownModelError, SizeError):
            return task_of(checkpoint_of(model), height, classes)
    return None


def as_built(model: "keras.Model", task: Task | None) -> "tuple[keras.Model, Task | None]":
    """A model of one's own around a network, as what the builders return.

    Args:
        model: keras.Model. Of this package, which stays what it is, or with one inside.
        task: Task or None. What is known of it.

    Returns:
        tuple of keras.Model and Task. Classes of a head of one's own that nobody has named are
        `"class_0"`, `"class_1"`, ...; images go through the transform of the network's checkpoint.

    Raises:
        BitKerasError: As `bit_keras.models.with_own_head`; or no source states the transform.
    """
    from bit_keras.models import with_own_head

    if any(layer.name == "stem_conv" for layer in model.layers):
        return model, task
    classifier, activation = with_own_head(model)
    if task is None:
        name = _known(checkpoint_of(classifier))
        labels = numbered_labels(name, classifier.output_shape[-1])
        transform = eval_transform(name, network_side(model.input_shape))
        task = Task(labels, transform, activation)
    return classifier, task


def transform_and_task(
    model: "keras.Model", size: int | None, task: Task | None
) -> tuple[EvalTransform, Task | None]:
    """What encoded pictures go through, and the task of a classifier, both at one size.

    Args:
        model: A network of this package.
        size: int or None. The side of images that is asked for.
        task: Task or None. Of an extractor, only the transform is used.

    Raises:
        SizeError: The network takes another size, or none is given and none is known.
        BitKerasError: It takes other images than RGB squares.
    """
    side, classes = network_side(model.input_shape), _classes(model)
    if classes is not None:
        task = task_for(checkpoint_of(model), task, classes, side, size)
        return task.transform, task
    size = size_for(checkpoint_of(model), side, size)
    if task is None:
        return eval_transform(checkpoint_of(model), size), None
    return (task if size is None else task.at_size(size)).transform, None


def _classes(model: "keras.Model") -> int | None:
    """Width of the head, whatever follows it."""
    heads = [layer for layer in model.layers if layer.name == "head"]
    return heads[0].output.shape[-1] if heads else None


def task_for(
    name: str, task: Task | None, classes: int, side: int | None, size: int | None
) -> Task:
    """The task of a classifier at the size that is asked for.

    Args:
        name: str. What the network calls itself.
        task: Task or None. What is stored with it.
        classes: int. Width of its head.
        side: int or None. The only side of images that it takes.
        size: int or None. The side that the user asks for.

    Raises:
        SizeError: The two sides differ, or none is given and none is known.
        BitKerasError: Nothing is stored, and the registry does not know the name.
    """
    size = size_for(name, side, size)
    if task is None:
        return task_of(_known(name), size, classes)
    return task if size is None else task.at_size(size)


def size_for(name: str, side: int | None, size: int | None) -> int | None:
    """The side of images that is asked for, or the only one that a network takes.

    Raises:
        SizeError: The two differ.
    """
    if side is not None and size not in (None, side):
        raise SizeError(f"{name} takes images of {side} pixels alone, and {size} were asked for.")
    return side or size


def network_side(input_shape: Sequence[int | None]) -> int | None:
    """The fixed side of the images that a network takes, if it is fixed.

    Raises:
        BitKerasError: They are not the RGB squares that the evaluation transform gives.
    """
    height, width, channels = input_shape[1:]
    if channels != RGB:
        raise BitKerasError(
            f"The network takes in_channels={channels}, and pictures are read as RGB; call it with "
            "arrays of your own, from Python or from an export with the target hub or keras."
        )
    if height != width:
        raise BitKerasError(
            f"The network takes images of {height}x{width} pixels, and the evaluation transform "
            "gives squares; build it with a square input_shape, or with (None, None, 3)."
        )
    return height


def _known(name: str) -> str:
    try:
        return model_info(name).name
    except UnknownModelError:
        raise BitKerasError(
            f"The network calls itself {name!r}, which is no checkpoint of the registry, so the "
            "size of its images and its labels are unknown; build it by a model name "
            "(`bit-keras list`) with weights=PATH and save that."
        ) from None
