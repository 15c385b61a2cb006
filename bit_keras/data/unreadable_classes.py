"""Detects classes without a readable image, which training would silently ignore."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bit_keras.data.images import Images
from bit_keras.data.layout import UnreadableClass
from bit_keras.errors import DataError, ImageError
from bit_keras.preprocessing import load_image

_logger = logging.getLogger("bit_keras")

#: Maximum number of classes that a message describes.
_SHOWN = 5


def with_readable_classes(
    images: Images, folders: Sequence[UnreadableClass], where: str, *, skip: bool
) -> Images:
    """Returns the images of the classes with at least one image that can be decoded.

    Args:
        images: Images.
        folders: sequence of UnreadableClass. Class folders that do not contain images.
        where: str. Name of the data, for messages.
        skip: bool. Whether to skip the other classes with a warning, instead of an error.

    Raises:
        DataError: A class has no image that can be decoded, and `skip` is `False`.
    """
    unreadable = _unreadable(images)
    everything = sorted([*folders, *unreadable.values()], key=lambda each: each.name)
    if not everything:
        return images
    described = "; ".join(
        f"{each.name!r} ({each.count:,} {'file' if each.count == 1 else 'files'}, such as "
        f"{each.example}: {each.reason.rstrip('.')})"
        for each in everything[:_SHOWN]
    )
    if len(everything) > _SHOWN:
        described += f"; and {len(everything) - _SHOWN} more"
    classes = "class has" if len(everything) == 1 else "classes have"
    message = f"{where}: {len(everything)} {classes} no image that can be read: {described}."
    if not skip:
        raise DataError(
            f"{message} Repair or convert the files, or remove the folders; "
            "--skip-unreadable-classes (skip_unreadable_classes=True in Python) continues without "
            "these classes."
        )
    _logger.warning("%s The others are used.", message)
    kept = np.flatnonzero(~np.isin(images.targets, list(unreadable)))
    return images.select(kept) if len(kept) < len(images) else images


def _unreadable(images: Images) -> dict[int, UnreadableClass]:
    """Returns the classes without an image that can be decoded, by target."""
    order = np.argsort(images.targets, kind="stable")
    present, starts = np.unique(images.targets[order], return_index=True)
    members = np.split(order, starts[1:])
    with ThreadPoolExecutor() as pool:
        reasons = list(pool.map(lambda indices: _why_unreadable(images, indices), members))
    return {
        int(target): UnreadableClass(
            images.classes[target], len(indices), images.names[indices[0]], reason
        )
        for target, indices, reason in zip(present, members, reasons, strict=True)
        if reason is not None
    }


def _why_unreadable(images: Images, indices: np.ndarray) -> str | None:
    """Returns why the first of some images cannot be decoded, or None if one of them can."""
    first = None
    for index in indices.tolist():
        try:
            load_image(images[index])
        except (ImageError, OSError, MemoryError) as error:
            first = first or str(error) or type(error).__name__
        else:
            return None
    return first
