"""The labels and the transform that travel with an exported classifier."""

import contextlib

import keras

from bit_keras.errors import ExportError, SizeError, UnknownModelError
from bit_keras.preprocessing import Task, task_of


def checked_task(model: keras.Model, task: Task | None = None) -> Task | None:
    """The task to store with a model: the given one, or what the registry knows of its name.

    Args:
        model: A network of this package.
        task: Task or None.

    Returns:
        Task, or None for a network without a head, and where the registry does not
        know the name or no source states the size of the images.

    Raises:
        ExportError: The network has another number of classes than the given task,
            or none.
    """
    classes = _classes(model)
    if task is not None:
        if classes != len(task.labels):
            raise ExportError(
                f"{model.name} has {classes or 'no'} classes and the labels of its task are "
                f"{len(task.labels)}."
            )
        return task
    height, width = model.input_shape[1:3]
    if classes is not None and height == width:
        with contextlib.suppress(UnknownModelError, SizeError):
            return task_of(model.name, height, classes)
    return None


def _classes(model: keras.Model) -> int | None:
    """Width of the head, whatever follows it."""
    heads = [layer for layer in model.layers if layer.name == "head"]
    return heads[0].output.shape[-1] if heads else None
