"""Class folders: what the paths of a folder or of an archive say about splits and classes."""

import dataclasses
import functools
import logging
import posixpath
from collections.abc import Sequence

from PIL import Image

from bit_keras.errors import DataError

#: Folders above the class folders that are taken for splits.
SPLIT_NAMES = ("train", "val", "validation", "valid", "test")

_EXPECTED = "pictures lie in one folder per class, <class>/<picture>, or <split>/<class>/<picture>"

_logger = logging.getLogger("bit_keras")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which of the files are pictures, of which split and class.

    Attributes:
        splits: tuple of str. The folders above the class folders, or `()`.
        classes: tuple of str. Class names, sorted; the same for all splits.
        pictures: tuple of str. The paths of all pictures, as given.
    """

    splits: tuple[str, ...]
    classes: tuple[str, ...]
    pictures: tuple[str, ...]

    def part(self, split: str | None) -> tuple[list[str], list[int]]:
        """The paths and the targets of the pictures of a split."""
        depth = 1 if self.splits else 0
        number = {name: index for index, name in enumerate(self.classes)}
        paths = [path for path in self.pictures if not self.splits or _folder(path, 0) == split]
        return paths, [number[_folder(path, depth)] for path in paths]


def layout_of(paths: Sequence[str], where: str) -> Layout:
    """Finds splits, classes and pictures.

    Folders are splits only where all of them are called so and hold folders
    themselves: `train` may also be a class.

    Args:
        paths: All files, relative, with `/`. Hidden ones are ignored, and those
            that are no pictures by their extension, which one line of log says.
        where: What messages call the folder or the archive.

    Raises:
        DataError: There are no pictures, or some lie outside class folders.
    """
    paths = [path for path in paths if not any(part.startswith(".") for part in path.split("/"))]
    if not paths:
        raise DataError(f"{where} is empty; {_EXPECTED}.")
    pictures = [path for path in paths if is_picture(path)]
    if not pictures:
        raise DataError(
            f"{where} holds {len(paths)} files and no picture (the first is {paths[0]}); "
            f"{_EXPECTED}, with an extension such as .jpg or .png."
        )
    splits = _splits(pictures)
    depth = 1 if splits else 0
    loose = [path for path in pictures if path.count("/") <= depth]
    if loose:
        raise DataError(
            f"{where} holds {len(loose)} pictures outside of class folders, such as {loose[0]}; "
            f"{_EXPECTED}."
        )
    if len(pictures) < len(paths):
        ignored = len(paths) - len(pictures)
        _logger.info("%s: %d files that are no pictures are ignored.", where, ignored)
    classes = tuple(sorted({_folder(path, depth) for path in pictures}))
    return Layout(splits, classes, tuple(pictures))


def require_split(split: str | None, splits: Sequence[str], where: str) -> None:
    """Raises unless `split` is one of the splits, or None where there are none."""
    if splits and split not in splits:
        came = "none was named" if split is None else f"{split!r} came"
        raise DataError(
            f"{where} has the splits {', '.join(splits)}, and {came}; name one of them."
        )
    if split is not None and not splits:
        raise DataError(
            f"{where} has no splits, and {split!r} was asked for; leave the split away, or arrange "
            "the data as <split>/<class>/<picture>."
        )


def is_picture(path: str) -> bool:
    """Whether a file is a picture by its name: not hidden, with an extension that Pillow reads."""
    name = posixpath.basename(path)
    return not name.startswith(".") and posixpath.splitext(name)[1].lower() in _extensions()


def _splits(pictures: Sequence[str]) -> tuple[str, ...]:
    tops = {_folder(path, 0) for path in pictures}
    named = all(top.lower() in SPLIT_NAMES for top in tops)
    if not named or any(path.count("/") < 2 for path in pictures):
        return ()
    return tuple(sorted(tops, key=lambda top: SPLIT_NAMES.index(top.lower())))


def _folder(path: str, depth: int) -> str:
    return path.split("/", depth + 1)[depth]


@functools.cache
def _extensions() -> frozenset[str]:
    """The extensions of the formats that Pillow reads; some others it only writes."""
    # First the common formats: Pillow tries them in the order of their registration.
    Image.preinit()
    known = Image.registered_extensions()
    return frozenset(extension for extension, kind in known.items() if kind in Image.OPEN)
