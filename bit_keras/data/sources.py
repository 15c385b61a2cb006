"""Opens labelled images from folders, archives, TensorFlow Datasets or arrays."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bit_keras.data.arrays import array_images
from bit_keras.data.folder import folder_listing
from bit_keras.data.images import Images
from bit_keras.data.layout import UnreadableClass, layout_of
from bit_keras.data.listing import Listing, shown
from bit_keras.data.splits import Role, in_order, require_split, split_for
from bit_keras.data.tar import tar_listing
from bit_keras.data.tfds import PREFIX, TfdsData
from bit_keras.data.unreadable_classes import with_readable_classes
from bit_keras.errors import DataError, reason_of

Data = str | os.PathLike | tuple


class Source:
    """Labelled images with their splits. The data is listed once, for all splits.

    Args:
        where: str. Name of the data, for messages.
        splits: tuple of str.
        part: callable from a split, or None without splits, to its Images.
        unreadable: dict from a split to its class folders without an image.
        readable: bool. Whether all images are known to be readable.
    """

    def __init__(
        self,
        where: str,
        splits: Sequence[str],
        part: Callable[[str | None], Images],
        unreadable: Mapping[str | None, Sequence[UnreadableClass]],
        *,
        readable: bool = False,
    ) -> None:
        self.where = where
        self.splits = tuple(splits)
        self._part, self._unreadable, self._readable = part, unreadable, readable

    def split_for(self, role: Role) -> str | None:
        """Returns the split for training, validation or testing, or None.

        Raises:
            DataError: There are several such splits.
        """
        return split_for(role, self.splits, self.where)

    def unchecked_images(self, split: str | None = None) -> Images:
        """Returns the images of a split without checking its classes for readable images."""
        return self._part(require_split(split, self.splits, self.where))

    def images(self, split: str | None = None, *, skip_unreadable_classes: bool = False) -> Images:
        """Returns the images of a split; see `open_images`."""
        split = require_split(split, self.splits, self.where)
        images = self._part(split)
        if self._readable:
            return images
        where = self.where if split is None else f"{self.where}, split {shown(split)}"
        unreadable = self._unreadable.get(split, ())
        return with_readable_classes(images, unreadable, where, skip=skip_unreadable_classes)


def open_source(data: Data) -> Source:
    """Lists labelled images and their splits.

    Args:
        data: See `open_images`.

    Raises:
        DataError: See `open_images`.
    """
    if isinstance(data, tuple):
        images = array_images(data)
        return Source("The tuple of arrays", (), lambda _: images, {}, readable=True)
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
            # At most the listed size, because some system files are endless.
            lambda index: listing.read(*entries[index][0][:2]),
        )

    return Source(listing.where, layout.splits, part, layout.unreadable)


def open_images(
    data: Data, split: str | None = None, *, skip_unreadable_classes: bool = False
) -> Images:
    """Opens labelled images, and decodes one image of each class to check it.

    A folder contains one folder per class, or one folder per split with class folders
    inside: `<class>/**/<image>` or `<split>/<class>/**/<image>`. Splits are recognised by
    their usual names in any case, such as `train`, `training`, `val`, `valid`,
    `validation`, `dev`, `test`, `testing` and `eval`. The classes are the sorted names of
    the class folders, the same for all splits.

    Image files are recognised by their extension or else by their content; HEIC needs
    pillow-heif. Links are followed, and each file counts once per split. Other files,
    broken or cyclic links, named pipes and devices are skipped; the log of `bit_keras`
    states their number and the reason. Hidden files are ignored.

    Args:
        data: One of:

            - str or os.PathLike: a folder, or an uncompressed tar of such a folder,
              which is read without unpacking it;
            - `"tfds:name"`, `"tfds:name/config"` or `"tfds:name/config:version"`: a
              data set of TensorFlow Datasets that is prepared on this machine,
              in `TFDS_DATA_DIR` or `~/tensorflow_datasets`; nothing is downloaded;
            - tuple `(pixels, labels)` or `(pixels, labels, classes)`: uint8
              pixels `(n, height, width, 3)` or a list of arrays of any sizes;
              labels as integers from 0 or as strings; names of the classes.
        split: str. Name of a split, if the data has splits, or another name with the
            same meaning (`"validation"` finds a folder `Val`). Defaults to `None`.
        skip_unreadable_classes: bool. Whether to skip classes without a readable image,
            with a warning, instead of raising an error. Defaults to `False`.

    Returns:
        Images.

    Raises:
        DataError: The path, data set or split does not exist, or contains no images;
            images are outside class folders; folders may be splits or classes; a class
            has no readable image; the archive is compressed or damaged; arrays and
            labels do not fit.

    Example:

    ```python
    pixels = np.zeros((4, 40, 50, 3), "uint8")
    images = bit_keras.data.open_images((pixels, [0, 1, 1, 0], ["cat", "dog"]))
    images.classes, images[3].shape  # (('cat', 'dog'), (40, 50, 3))
    ```
    """
    return open_source(data).images(split, skip_unreadable_classes=skip_unreadable_classes)


def _is_tfds(data: str | os.PathLike) -> bool:
    return isinstance(data, str) and data.startswith(PREFIX)


def existing_folder(data: Data) -> Path | None:
    """Returns the folder of the data, or None for data of another type.

    Raises:
        DataError: The path does not exist.
    """
    if isinstance(data, tuple) or _is_tfds(data):
        return None
    path = _existing(data)
    return path if path.is_dir() else None


def _existing(data: str | os.PathLike) -> Path:
    if not isinstance(data, str | os.PathLike):
        raise DataError(
            "`data` must be the path of a folder or a tar, 'tfds:name', or a tuple (pixels, "
            f"labels). Received: an object of type {type(data).__name__}"
        )
    path = Path(data)
    try:
        if path.is_dir() or path.is_file():
            return path
        if path.exists():
            raise DataError(f"{shown(str(path))} is neither a folder nor an ordinary file.")
    # A parent folder may not be accessible, and a name may be invalid as a path.
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shown(str(path))} cannot be read ({reason_of(error)}).") from error
    raise DataError(
        f"There is no folder or archive {shown(str(path))}; for a data set of TensorFlow Datasets, "
        f"use {PREFIX}{shown(path.name)}."
    )
