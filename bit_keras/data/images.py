"""Labelled images with random access. They are not decoded here."""

import functools
import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from bit_keras.errors import DataError

_logger = logging.getLogger("bit_keras")
_noting = threading.Lock()

#: Maximum number of classes that a description lists.
_SHOWN = 20


class Images:
    """Labelled images, read by index.

    `bit_keras.data.open_images` creates them. Images are not decoded and files do not
    stay open. Several threads can read at the same time.

    Args:
        classes: sequence of str. Class names, in the order of the targets.
        targets: integers `(n,)`. Class index of each image.
        names: sequence of str. Name of each image, for messages.
        sizes: integers `(n,)`. Size of each image in bytes, for the fingerprint.
        read: callable from an index to an encoded file (bytes), or to uint8
            pixels as accepted by `bit_keras.preprocessing.load_image`.
        in_memory: bool. Whether `read` returns arrays. They do not have file names, so
            the fingerprint includes their pixels.

    Attributes:
        classes: tuple of str.
        targets: np.ndarray, int64, `(n,)`.
        names: sequence of str.
        unreadable: dict from the name of an image that could not be decoded to
            the reason. Pipelines add entries when they read such images. Results of
            `select` share it.

    Raises:
        DataError: There are no images, or the numbers of targets and names differ.

    Example:

    ```python
    images = bit_keras.data.open_images((np.zeros((3, 40, 50, 3), "uint8"), ["cat", "dog", "cat"]))
    len(images), images.classes, images.targets.tolist()  # (3, ('cat', 'dog'), [0, 1, 0])
    ```
    """

    def __init__(
        self,
        classes: Sequence[str],
        targets: np.ndarray,
        names: Sequence[str],
        sizes: np.ndarray,
        read: Callable[[int], bytes | np.ndarray],
        *,
        in_memory: bool = False,
    ) -> None:
        if len(names) == 0:
            raise DataError("The data, or this part of it, contains 0 images; add some.")
        if not len(targets) == len(names) == len(sizes):
            raise DataError(
                "Every image must have exactly one label. "
                f"Received: {len(names)} images, {len(targets)} labels"
            )
        self.classes = tuple(classes)
        self.targets = np.asarray(targets, np.int64)
        self.names = names
        self.unreadable: dict[str, str] = {}
        self._sizes = np.asarray(sizes, np.int64)
        self._read = read
        self._in_memory = in_memory

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> bytes | np.ndarray:
        """Returns an image that is not decoded: the bytes of a file, or uint8 pixels."""
        return self._read(index)

    def __repr__(self) -> str:
        return f"Images({len(self)} images of {len(self.classes)} classes)"

    def select(self, indices: Sequence[int] | np.ndarray) -> "Images":
        """Returns the images with these indices, in this order, with all classes."""
        chosen = np.asarray(indices, np.int64)
        read = self._read
        part = Images(
            self.classes,
            self.targets[chosen],
            [self.names[index] for index in chosen],
            self._sizes[chosen],
            lambda index: read(int(chosen[index])),
            in_memory=self._in_memory,
        )
        part.unreadable = self.unreadable
        return part

    def drop_classes(self, names: Collection[str]) -> "Images":
        """Returns the images of the other classes, with renumbered targets.

        Args:
            names: collection of str. Classes to remove.

        Returns:
            Images.

        Raises:
            DataError: All images belong to these classes.
        """
        kept = [index for index, name in enumerate(self.classes) if name not in set(names)]
        renumbered = np.full(len(self.classes), -1)
        renumbered[kept] = np.arange(len(kept))
        part = self.select(np.flatnonzero(renumbered[self.targets] >= 0))
        part.classes = tuple(self.classes[index] for index in kept)
        part.targets = renumbered[part.targets]
        return part

    def counts(self) -> dict[str, int]:
        """Returns the number of images of each class, in the order of the classes.

        Example:

        ```python
        images = bit_keras.data.open_images((np.zeros((3, 40, 50, 3), "uint8"), ["b", "a", "b"]))
        images.counts()  # {'a': 1, 'b': 2}
        ```
        """
        counts = np.bincount(self.targets, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    def describe(self) -> str:
        """Returns a readable summary: the classes with their numbers of images.

        Example:

        ```python
        images = bit_keras.data.open_images((np.zeros((3, 40, 50, 3), "uint8"), ["b", "a", "b"]))
        images.describe()  # '3 images of 2 classes: a (1), b (2)'
        ```
        """
        counts = {name: count for name, count in self.counts().items() if count}
        listed = ", ".join(f"{name} ({count:,})" for name, count in [*counts.items()][:_SHOWN])
        rest = [*counts.values()][_SHOWN:]
        if rest:
            listed += f" and {len(rest):,} more with {min(rest):,} to {max(rest):,} images each"
        images = "image" if len(self) == 1 else "images"
        classes = "class" if len(counts) == 1 else "classes"
        return f"{len(self):,} {images} of {len(counts):,} {classes}: {listed}"

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 over names, sizes and targets, in hexadecimal; identifies the data."""
        digest = hashlib.sha256()
        for text in (*self.classes, "", *self.names):
            digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(self._sizes.astype("<i8").tobytes())
        digest.update(self.targets.astype("<i8").tobytes())
        if self._in_memory:
            for index in range(len(self)):
                digest.update(np.asarray(self[index]).tobytes())
        return digest.hexdigest()

    def note_unreadable(self, index: int, reason: str) -> None:
        """Adds an image to `unreadable`, and logs it the first time."""
        name = self.names[index]
        with _noting:
            known = name in self.unreadable
            self.unreadable[name] = reason
        if not known:
            _logger.warning("%s is skipped: %s", name, reason)


def read_part(path: Path, offset: int, size: int | None) -> bytes:
    """Reads `size` bytes of a file, or all after `offset` for None.

    The file is opened in each call: threads do not share a position.
    """
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def hold_out(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Splits images randomly into a training part and a validation part.

    The split is stratified: the same fraction of each class is held out, rounded, but at
    least one image, and at least one image stays in the training part. For classes with
    few images, the validation part is therefore larger than the fraction. Of a class with a
    single image, nothing is held out.

    Args:
        images: Images.
        fraction: float. Fraction to hold out, between 0 and 1.
        seed: int, not negative. The same seed gives the same split.

    Returns:
        tuple `(train, validation)` of Images, each in the order of `images`.

    Raises:
        DataError: Every class has a single image, or `fraction` is not
            between 0 and 1.

    Example:

    ```python
    from bit_keras.data.images import hold_out

    pixels, labels = np.zeros((10, 40, 40, 3), "uint8"), [0] * 5 + [1] * 5
    images = bit_keras.data.open_images((pixels, labels))
    train, validation = hold_out(images, fraction=0.2, seed=0)
    len(train), len(validation), sorted(validation.targets.tolist())  # (8, 2, [0, 1])
    ```
    """
    if not 0 < fraction < 1:
        raise DataError(f"`fraction` must be between 0 and 1. Received: fraction={fraction!r}")
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(images), bool)
    for target in np.unique(images.targets):
        members = np.flatnonzero(images.targets == target)
        if len(members) > 1:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held_out[generator.permutation(members)[:count]] = True
    if not held_out.any():
        raise DataError(
            f"Images can be held out for validation only if a class has several. Received: "
            f"{images.describe()}. Add images, add a validation split, or train without validation "
            "(--validation 0)."
        )
    return images.select(np.flatnonzero(~held_out)), images.select(np.flatnonzero(held_out))
