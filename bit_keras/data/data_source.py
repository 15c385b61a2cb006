"""Labelled images with their splits, and the classes among them without a readable image."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from bit_keras.data.images import Images
from bit_keras.data.listing import shown
from bit_keras.data.splits import Role, role_of
from bit_keras.errors import DataError, ImageError
from bit_keras.preprocessing import load_image

_logger = logging.getLogger("bit_keras")

#: Maximum number of classes that a message describes.
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class UnreadableClass:
    """A class without a readable image, which training would silently ignore.

    Attributes:
        name: str. Name of the class.
        count: int. Number of its files.
        example: str. The first file.
        reason: str. Why the first file cannot be read.
    """

    name: str
    count: int
    example: str
    reason: str


@dataclasses.dataclass(frozen=True)
class DataSource:
    """Labelled images with their splits. The data is listed once, for all splits.

    Attributes:
        where: str. Name of the data, for messages.
        splits: tuple of str. Empty if the data has no splits.
        part: callable from a split, or None without splits, to its Images.
        unreadable: dict from a split to its class folders without an image.
        skip_unreadable_classes: bool. Whether `images` skips classes without a readable image,
            with a warning, instead of raising an error.
    """

    where: str
    splits: tuple[str, ...]
    part: Callable[[str | None], Images]
    unreadable: Mapping[str | None, Sequence[UnreadableClass]]
    skip_unreadable_classes: bool = False

    def split_for(self, role: Role) -> str | None:
        """Returns the split for training, validation or testing, or None.

        Raises:
            DataError: There are several such splits.
        """
        found = [name for name in self.splits if role_of(name) == role]
        if len(found) > 1 and role not in found:
            raise DataError(
                f"{self.where} has {len(found)} splits for {role}: {', '.join(found)}; rename one "
                f"of them to {role}, merge them, or pass the name of one to the command."
            )
        return role if role in found else next(iter(found), None)

    def unchecked_images(self, split: str | None = None) -> Images:
        """Returns the images of a split without checking its classes for readable images."""
        return self.part(self._matching(split))

    def images(self, split: str | None = None) -> Images:
        """Returns the images of a split; see `bit_keras.data.open_images`."""
        split = self._matching(split)
        images = self.part(split)
        unreadable = _unreadable(images)
        classes = [*self.unreadable.get(split, ()), *unreadable.values()]
        if not classes:
            return images
        where = self.where if split is None else f"{self.where}, split {shown(split)}"
        message = f"{where}: {_described(classes)}"
        if not self.skip_unreadable_classes:
            raise DataError(
                f"{message} Repair or convert the files, or remove the folders; "
                "--skip-unreadable-classes (skip_unreadable_classes=True in Python) continues "
                "without these classes."
            )
        _logger.warning("%s The others are used.", message)
        return images.select(np.flatnonzero(~np.isin(images.targets, list(unreadable))))

    def _matching(self, split: str | None) -> str | None:
        """Returns the split with this name, ignoring case, or with the same role.

        Raises:
            DataError: There is no such split, or the data has splits and none is given.
        """
        where = self.where
        if not self.splits:
            if split is None:
                return None
            raise DataError(
                f"{where} has no splits; omit the split, or arrange the data as "
                f"<split>/<class>/<image>. Received: split={split!r}"
            )
        if split in self.splits:
            return split
        if split is not None:
            role = role_of(split)
            same = [name for name in self.splits if name.casefold() == split.casefold()]
            found = same or [name for name in self.splits if role and role_of(name) == role]
            if len(found) == 1:
                return found[0]
        raise DataError(
            f"{where} has the splits {', '.join(self.splits)}; choose one of them. "
            f"Received: split={split!r}"
        )


def _described(classes: Sequence[UnreadableClass]) -> str:
    described = [
        f"{each.name!r} ({each.count:,} {'file' if each.count == 1 else 'files'}, such as "
        f"{each.example}: {each.reason.rstrip('.')})"
        for each in sorted(classes, key=lambda each: each.name)[:_SHOWN]
    ]
    if len(classes) > _SHOWN:
        described.append(f"and {len(classes) - _SHOWN} more")
    have = "class has" if len(classes) == 1 else "classes have"
    return f"{len(classes)} {have} no image that can be read: {'; '.join(described)}."


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
