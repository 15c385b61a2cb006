"""Labelled images in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bit_keras.data.images import Images
from bit_keras.errors import DataError


def array_images(data: tuple) -> Images:
    """Returns the images of `(pixels, labels)` or `(pixels, labels, classes)`."""
    if len(data) not in (2, 3):
        raise DataError(
            "Data in memory must be a tuple (pixels, labels) or (pixels, labels, classes). "
            f"Received: a tuple of length {len(data)}"
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
    """Checks every image; they may differ in size."""
    if len(pixels) == 0:
        raise DataError("`pixels` must contain at least one image. Received: an empty sequence")
    for index, image in enumerate(pixels):
        shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (1,), (3,), (4,)):
            raise DataError(
                "`pixels` must be uint8 with channels last, (images, height, width, 3), or a list "
                f"of arrays (height, width, 3). Received: image {index} with dtype={dtype}, "
                f"shape={shape}"
            )
    return pixels


def _labelled(labels: Any, classes: Sequence[str] | None) -> tuple[Sequence[str], np.ndarray]:
    """Returns the class names, and the class index of each image."""
    values = np.asarray(labels)
    if values.ndim == 2 and values.shape[1] == 1:
        # The shape of the labels of `keras.datasets`.
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        raise DataError(
            "`labels` must be one integer or one string for each image. "
            f"Received: dtype={values.dtype}, shape={values.shape}"
        )
    if values.dtype.kind == "U":
        return _named(values, classes)
    if values.size and values.min() < 0:
        raise DataError(f"Integer labels must be at least 0. Received: {values.min()}")
    highest = int(values.max(initial=-1))
    if classes is None:
        classes = [f"class_{index}" for index in range(highest + 1)]
    if highest >= len(classes):
        raise DataError(
            f"Integer labels must be less than the number of class names, {len(classes)}. "
            f"Received: {highest}"
        )
    return classes, values.astype(np.int64)


def _named(labels: np.ndarray, classes: Sequence[str] | None) -> tuple[Sequence[str], np.ndarray]:
    present = np.unique(labels).tolist()
    classes = present if classes is None else list(classes)
    unknown = set(present) - set(classes)
    if unknown:
        raise DataError(
            f"String labels must be among the {len(classes)} class names. "
            f"Received: {min(unknown)!r}"
        )
    number = {name: index for index, name in enumerate(classes)}
    return classes, np.array([number[label] for label in labels.tolist()], np.int64)
