"""Labelled images with random access, wherever they are; nothing is decoded here."""

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

#: Classes that a description lists before it only counts the rest.
_SHOWN = 20


class Images:
    """Labelled images of any source, by index.

    `bit_keras.data.open_images` makes them. Nothing is decoded and no file stays
    open; reading is safe from several threads at once.

    Args:
        classes: sequence of str. The class names, in the order of the targets.
        targets: integers `(n,)`. The class of each image.
        names: sequence of str. What messages call each image.
        sizes: integers `(n,)`. Bytes of each image, a part of the fingerprint.
        read: callable from an index to an encoded file (bytes), or to uint8
            pixels as `bit_keras.preprocessing.load_image` takes them.
        in_memory: bool. Whether `read` gives arrays, which have no names to know
            them by; the fingerprint is then also over their pixels.

    Attributes:
        classes: tuple of str.
        targets: np.ndarray, int64, `(n,)`.
        names: sequence of str.
        unreadable: dict from the name of an image that could not be decoded to
            the reason. Pipelines fill it as they meet such images; the parts
            that `select` gives share it.

    Raises:
        DataError: There are no images, or targets and names differ in number.

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
            raise DataError("There are no images in this part of the data.")
        if not len(targets) == len(names) == len(sizes):
            raise DataError(
                f"Every image has one label; {len(names)} images came with {len(targets)} labels."
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
        """The image as it is there: an encoded file, or uint8 pixels."""
        return self._read(index)

    def __repr__(self) -> str:
        return f"Images({len(self)} images of {len(self.classes)} classes)"

    def select(self, indices: Sequence[int] | np.ndarray) -> "Images":
        """A part of the images, in the order of `indices`, with all classes."""
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
        """The images of the other classes, whose targets are counted anew.

        Args:
            names: collection of str. Classes to remove.

        Returns:
            Images.

        Raises:
            DataError: No images are left.
        """
        kept = [index for index, name in enumerate(self.classes) if name not in set(names)]
        renumbered = np.full(len(self.classes), -1)
        renumbered[kept] = np.arange(len(kept))
        part = self.select(np.flatnonzero(renumbered[self.targets] >= 0))
        part.classes = tuple(self.classes[index] for index in kept)
        part.targets = renumbered[part.targets]
        return part

    def counts(self) -> dict[str, int]:
        """The number of images of each class, in the order of the classes.

        Example:

        ```python
        images = bit_keras.data.open_images((np.zeros((3, 40, 50, 3), "uint8"), ["b", "a", "b"]))
        images.counts()  # {'a': 1, 'b': 2}
        ```
        """
        counts = np.bincount(self.targets, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    def describe(self) -> str:
        """The classes with their numbers of images, for a person; bounded for many classes.

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
        """sha256 over names, sizes and targets, in hexadecimal: equal for the same data."""
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
        """Names an image in `unreadable` and, the first time, in the log."""
        name = self.names[index]
        with _noting:
            known = name in self.unreadable
            self.unreadable[name] = reason
        if not known:
            _logger.warning("%s is left out: %s", name, reason)


def read_part(path: Path, offset: int, size: int) -> bytes:
    """A part of a file; each call opens it anew, so threads do not share a position."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def hold_out(images: Images, fraction: float, seed: int) -> tuple[Images, Images]:
    """Splits images at random into a part to train with and one to validate with.

    The split is stratified: each class gives the same fraction, rounded, but at least one
    image, and keeps at least one to train with. So few images per class give more than the
    fraction; a class with a single one gives none.

    Args:
        images: Images.
        fraction: float. The share of the validation part, between 0 and 1.
        seed: int, not negative. The same seed gives the same split.

    Returns:
        Two Images, `(train, validation)`, each in the order of `images`.

    Raises:
        DataError: Every class has a single image, or `fraction` is not
            between 0 and 1.

    Example:

    ```python
    pixels, labels = np.zeros((10, 40, 40, 3), "uint8"), [0] * 5 + [1] * 5
    train, validation = bit_keras.data.hold_out(
        bit_keras.data.open_images((pixels, labels)), fraction=0.2, seed=0
    )
    len(train), len(validation), sorted(validation.targets.tolist())  # (8, 2, [0, 1])
    ```
    """
    if not 0 < fraction < 1:
        raise DataError(f"The fraction to hold out is between 0 and 1; got {fraction!r}.")
    generator = np.random.default_rng(seed)
    held_out = np.zeros(len(images), bool)
    for target in np.unique(images.targets):
        members = np.flatnonzero(images.targets == target)
        if len(members) > 1:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held_out[generator.permutation(members)[:count]] = True
    if not held_out.any():
        raise DataError(
            f"Every class has a single image ({images.describe()}), so none can be held out for "
            "validation; add images, keep a separate validation split, or train without "
            "validation (--validation 0)."
        )
    return images.select(np.flatnonzero(~held_out)), images.select(np.flatnonzero(held_out))
