"""The one way in: whatever holds the pictures, by what it is."""

import os
from pathlib import Path

from bit_keras.data.arrays import array_images
from bit_keras.data.folder import folder_images, folder_splits
from bit_keras.data.images import Images
from bit_keras.data.layout import require_split
from bit_keras.data.tar import tar_images, tar_splits
from bit_keras.data.tfds import PREFIX, tfds_images, tfds_splits
from bit_keras.errors import DataError

Data = str | os.PathLike | tuple


def open_images(data: Data, split: str | None = None) -> Images:
    """Finds labelled pictures; reads and decodes none of them yet.

    Folders hold one folder per class, or one per split with those inside:
    `<class>/**/<picture>` or `<split>/<class>/**/<picture>`, with splits called
    `train`, `val`, `validation`, `valid` or `test`. The names of the class folders,
    sorted, are the classes, the same for all splits. Hidden files are ignored,
    and files that are no pictures by their extension.

    Args:
        data: What holds the pictures:

            - str or os.PathLike: a folder, or an uncompressed tar of such
              folders, which is read where it lies and never unpacked;
            - `"tfds:name"`, `"tfds:name/config"` or `"tfds:name/config:version"`: a
              data set of TensorFlow Datasets that is prepared on this machine,
              in `TFDS_DATA_DIR` or `~/tensorflow_datasets`; nothing is downloaded;
            - tuple `(pixels, labels)` or `(pixels, labels, classes)`: uint8
              pixels `(n, height, width, 3)` or a list of arrays of any sizes;
              labels as integers from 0 or as strings; the names of the classes.
        split: str. Which split, where there are some. Defaults to `None`.

    Returns:
        Images.

    Raises:
        DataError: There is no such path, data set or split; no picture is
            in it; pictures lie outside of class folders; the archive is
            compressed or damaged; arrays and labels do not fit.

    Example:

    ```python
    pixels = np.zeros((4, 40, 50, 3), "uint8")
    images = bit_keras.data.open_images((pixels, [0, 1, 1, 0], ["cat", "dog"]))
    images.classes, images[3].shape  # (('cat', 'dog'), (40, 50, 3))
    ```
    """
    if isinstance(data, tuple):
        require_split(split, (), "A pair of arrays")
        return array_images(data)
    if _is_tfds(data):
        return tfds_images(os.fspath(data), split)
    path = _existing(data)
    return folder_images(path, split) if path.is_dir() else tar_images(path, split)


def splits_of(data: Data) -> tuple[str, ...]:
    """The names of the splits of the data, or `()` where it has none.

    Args:
        data: What `open_images` takes.

    Returns:
        tuple of str.

    Raises:
        DataError: As `open_images`, of which only the split is not needed.

    Example:

    ```python
    bit_keras.data.splits_of((np.zeros((2, 40, 50, 3), "uint8"), [0, 1]))  # ()
    ```
    """
    if isinstance(data, tuple):
        return ()
    if _is_tfds(data):
        return tfds_splits(os.fspath(data))
    path = _existing(data)
    return folder_splits(path) if path.is_dir() else tar_splits(path)


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
            f"An object of type {type(data).__name__} holds no pictures; pass the path of a folder "
            "or of a tar, 'tfds:name', or a tuple (pixels, labels)."
        )
    path = Path(data)
    if not path.exists():
        raise DataError(
            f"There is no folder or archive {path}; for TensorFlow Datasets, write "
            f"{PREFIX}{path.name}."
        )
    return path
