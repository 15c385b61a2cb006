"""The one way in: whatever contains the images, by what it is."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bit_keras.data.arrays import array_images
from bit_keras.data.folder import folder_listing
from bit_keras.data.images import Images
from bit_keras.data.layout import Lost, layout_of
from bit_keras.data.listing import Listing, shown
from bit_keras.data.readable import with_readable_classes
from bit_keras.data.splits import Role, in_order, require_split, split_for
from bit_keras.data.tar import tar_listing
from bit_keras.data.tfds import PREFIX, TfdsData
from bit_keras.errors import DataError, reason_of

Data = str | os.PathLike | tuple


class Source:
    """Labelled images and their splits: found once, opened by split.

    Args:
        where: str. What messages call it.
        splits: tuple of str.
        part: callable from a split, or None where there are none, to its Images.
        lost: dict from a split to its class folders without an image.
        readable: bool. Whether every image is known to be readable.
    """

    def __init__(
        self,
        where: str,
        splits: Sequence[str],
        part: Callable[[str | None], Images],
        lost: Mapping[str | None, Sequence[Lost]],
        *,
        readable: bool = False,
    ) -> None:
        self.where = where
        self.splits = tuple(splits)
        self._part, self._lost, self._readable = part, lost, readable

    def split_for(self, role: Role) -> str | None:
        """The split to train with, to validate with or to test with; None where there is none.

        Raises:
            DataError: There are several.
        """
        return split_for(role, self.splits, self.where)

    def unlabelled(self, split: str | None = None) -> Images:
        """The images of a split, where it does not matter if a class has none to be read."""
        return self._part(require_split(split, self.splits, self.where))

    def images(self, split: str | None = None, *, skip_unreadable_classes: bool = False) -> Images:
        """The images of a split; see `open_images`."""
        split = require_split(split, self.splits, self.where)
        images = self._part(split)
        if self._readable:
            return images
        where = self.where if split is None else f"{self.where}, split {shown(split)}"
        lost = self._lost.get(split, ())
        return with_readable_classes(images, lost, where, skip=skip_unreadable_classes)


def open_source(data: Data) -> Source:
    """Finds labelled images and their splits.

    Args:
        data: What `open_images` takes.

    Raises:
        DataError: As `open_images`.
    """
    if isinstance(data, tuple):
        images = array_images(data)
        return Source("A pair of arrays", (), lambda _: images, {}, readable=True)
    if _is_tfds(data):
        tfds = TfdsData(os.fspath(data))
        return Source(os.fspath(data), in_order(tfds.splits), tfds.images, {})
    path = _existing(data)
    return _listed(folder_listing(path) if path.is_dir() else tar_listing(path))


def _listed(listing: Listing) -> Source:
    layout = layout_of(listing)

    def part(split: str | None) -> Images:
        entries = layout.images.get(split, ())
        return Images(
            layout.classes,
            np.array([target for _, target in entries]),
            [shown(file.path) for file, _ in entries],
            np.array([file.size for file, _ in entries]),
            # Not more than was listed: some files of a system have no end.
            lambda index: listing.read(*entries[index][0][:2]),
        )

    return Source(listing.where, layout.splits, part, layout.lost)


def open_images(
    data: Data, split: str | None = None, *, skip_unreadable_classes: bool = False
) -> Images:
    """Finds labelled images, and decodes one of each class.

    Folders contain one folder per class, or one per split with those inside:
    `<class>/**/<image>` or `<split>/<class>/**/<image>`. Splits have one of the usual names,
    whatever their case: `train`, `training`, `val`, `valid`, `validation`, `dev`, `test`,
    `testing`, `eval` and some more. The names of the class folders, sorted, are the classes,
    the same for all splits.

    Files are images by their extension, or else by their content; HEIC is read where
    pillow-heif is installed. Each file counts once per split, whatever links lead to it. What
    is left out (other files, links that lead nowhere or in a circle, named pipes, devices) is
    counted in the log of `bit_keras`, with a reason; hidden files are ignored.

    Args:
        data: What contains the images:

            - str or os.PathLike: a folder, or an uncompressed tar of such
              folders, which is read where it is stored and never unpacked;
            - `"tfds:name"`, `"tfds:name/config"` or `"tfds:name/config:version"`: a
              data set of TensorFlow Datasets that is prepared on this machine,
              in `TFDS_DATA_DIR` or `~/tensorflow_datasets`; nothing is downloaded;
            - tuple `(pixels, labels)` or `(pixels, labels, classes)`: uint8
              pixels `(n, height, width, 3)` or a list of arrays of any sizes;
              labels as integers from 0 or as strings; the names of the classes.
        split: str. Which split, where there are some: its name, or another name of
            the same use (`"validation"` finds a folder `Val`). Defaults to `None`.
        skip_unreadable_classes: bool. Whether classes without a readable image are
            left out, with a warning, instead of an error. Defaults to `False`.

    Returns:
        Images.

    Raises:
        DataError: There is no such path, data set or split; no image is
            in it; images are stored outside of class folders; folders may be splits as well
            as classes; a class has no image that can be read; the archive is
            compressed or damaged; arrays and labels do not fit.

    Example:

    ```python
    pixels = np.zeros((4, 40, 50, 3), "uint8")
    images = bit_keras.data.open_images((pixels, [0, 1, 1, 0], ["cat", "dog"]))
    images.classes, images[3].shape  # (('cat', 'dog'), (40, 50, 3))
    ```
    """
    return open_source(data).images(split, skip_unreadable_classes=skip_unreadable_classes)


def splits_of(data: Data) -> tuple[str, ...]:
    """The names of the splits of the data, or `()` where it has none.

    Args:
        data: What `open_images` takes.

    Returns:
        tuple of str, splits to train with first.

    Raises:
        DataError: As `open_images`, of which only the split is not needed.

    Example:

    ```python
    bit_keras.data.splits_of((np.zeros((2, 40, 50, 3), "uint8"), [0, 1]))  # ()
    ```
    """
    return open_source(data).splits


def _is_tfds(data: str | os.PathLike) -> bool:
    return isinstance(data, str) and data.startswith(PREFIX)


def existing_folder(data: Data) -> Path | None:
    """The folder that the data are, or None for data of another kind.

    Raises:
        DataError: There is no such path.
    """
    if isinstance(data, tuple) or _is_tfds(data):
        return None
    path = _existing(data)
    return path if path.is_dir() else None


def _existing(data: str | os.PathLike) -> Path:
    if not isinstance(data, str | os.PathLike):
        raise DataError(
            f"An object of type {type(data).__name__} does not contain images; pass the path of a "
            "folder or of a tar, 'tfds:name', or a tuple (pixels, labels)."
        )
    path = Path(data)
    try:
        if path.is_dir() or path.is_file():
            return path
        if path.exists():
            raise DataError(f"{shown(str(path))} is neither a folder nor an ordinary file.")
    # A folder on the way may be closed to this user; a name may contain what no path does.
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shown(str(path))} cannot be read ({reason_of(error)}).") from error
    raise DataError(
        f"There is no folder or archive {shown(str(path))}; for TensorFlow Datasets, write "
        f"{PREFIX}{shown(path.name)}."
    )
