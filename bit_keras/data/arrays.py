"""Images that are in memory already."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bit_keras.data.images import Images
from bit_keras.errors import DataError


def array_images(data: tuple) -> Images:
    """The images of `(pixels, labels)` or `(pixels, labels, classes)`."""
    if len(data) not in (2, 3):
        raise DataError(
            "Arrays come as (pixels, labels) or (pixels, labels, classes); a tuple of "
            f"{len(data)} came."
        )
    pixels = _images(data[0])
    classes, targets = _labelled(data[1], data[2] if len(data) == 3 else None)
    return Images(
        classes,
        targets,
        [f"image {index}" for index in range(len(pixels))],
        np.array([image.nbytes for image in pixels]),
        lambda index: pixels[index],
        in_memory=True,
    )


def _images(pixels: Any) -> Sequence[np.ndarray]:
    """Every image as an array of its own; they may differ in size."""
    if len(pixels) == 0:
        raise DataError("The array or list of images is empty.")
    for index, image in enumerate(pixels):
        shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)):
            raise DataError(
                "Images in memory are uint8 with channels last, (images, height, width, 3), or "
                f"a list of such arrays (height, width, 3); image {index} came as {dtype}, {shape}."
            )
    return pixels


def _labelled(labels: Any, classes: Sequence[str] | None) -> tuple[Sequence[str], np.ndarray]:
    """The class names, and the number of each image's class."""
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        # What `keras.datasets` returns.
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        raise DataError(
            "Labels are one integer or one string for each image; an array of "
            f"{values.dtype}, {values.shape} came."
        )
    if values.dtype.kind == "U":
        return _named(values, classes)
    if values.size and values.min() < 0:
        raise DataError(f"Labels count from 0; got {values.min()}.")
    highest = int(values.max(initial=-1))
    if classes is None:
        classes = [f"class_{index}" for index in range(highest + 1)]
    if highest >= len(classes):
        raise DataError(
            f"The label {highest} has no name; {len(classes)} class names came, and labels count "
            "from 0."
        )
    return classes, values.astype(np.int64)


def _named(labels: np.ndarray, classes: Sequence[str] | None) -> tuple[Sequence[str], np.ndarray]:
    present = np.unique(labels).tolist()
    classes = present if classes is None else list(classes)
    unknown = set(present) - set(classes)
    if unknown:
        raise DataError(
            f"The label {min(unknown)!r} is none of the {len(classes)} class names that came."
        )
    number = {name: index for index, name in enumerate(classes)}
    return classes, np.array([number[label] for label in labels.tolist()], np.int64)
