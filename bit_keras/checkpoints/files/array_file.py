"""The common interface of files of arrays, whatever their format."""

import abc
import contextlib
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from bit_keras.errors import CheckpointError, reason_of
from bit_keras.registry import Shape

#: What the readers of the standard library, NumPy and h5py raise on damaged or hostile input.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
)

#: Values that are looked at together, so that they stay in the cache.
_PART = 1 << 16


class Arrays(Mapping[str, np.ndarray]):
    """Named arrays, each made or read when it is requested.

    Attributes:
        shapes: dict from name to shape, in the order of the arrays.
    """

    shapes: dict[str, Shape]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class ArrayFile(Arrays, abc.ABC):
    """Named arrays in a file, each read when it is requested.

    Opening reads no values. Names, shapes and the place of every byte are checked against
    each other, so that a file is refused as damaged or each array is read as it was written.

    Args:
        path: The file, or the folder.

    Attributes:
        file_format: str. For example `"npz"`.
        path: Path.
        shapes: dict from the name in the file to the shape, in the order of the file.
        dtypes: dict from the name in the file to the dtype, for example `"float32"`.

    Raises:
        CheckpointError: It is damaged, or of another format.
    """

    file_format: ClassVar[str]

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.shapes = {}
        self.dtypes: dict[str, str] = {}

    @abc.abstractmethod
    def __getitem__(self, name: str) -> np.ndarray:
        """The array of a name, in the shape and dtype of the file."""

    @abc.abstractmethod
    def verify(self) -> None:
        """Reads what has checksums once, and compares them.

        Raises:
            CheckpointError: A checksum differs.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def damage_explained(path: Path, name: str | None = None) -> Iterator[None]:
    """Turns what a damaged file raises into one sentence that names the place."""
    try:
        yield
    except CheckpointError:
        raise
    except (*_DAMAGE, OSError) as error:
        place = f"{path}, array {name!r}," if name else f"{path}"
        reason = str(error) or "it ends too early"
        raise CheckpointError(f"{place} is damaged ({reason}). Download it again.") from error


def require_file(path: Path, expected: str) -> None:
    """Raises unless `path` is a file with something in it.

    Args:
        path: Path.
        expected: str. For example `"an npz file"`.

    Raises:
        CheckpointError: It is missing, a folder, empty or not readable.
    """
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder; {expected} was expected.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason_of(error)}).") from error
    if empty:
        raise CheckpointError(f"{path} is empty; {expected} was expected.")


def require_finite(path: Path, name: str, array: np.ndarray) -> None:
    """Raises where an array contains infinite values or NaN.

    Raises:
        CheckpointError: With the name, and how many values these are.
    """
    flat = array.reshape(-1)
    # In parts: the result for all of a large array would take a quarter of its memory.
    bad = sum(
        part.size - np.count_nonzero(np.isfinite(part))
        for part in (flat[at : at + _PART] for at in range(0, flat.size, _PART))
    )
    if bad:
        raise CheckpointError(
            f"{path} contains {bad:,} values that are not finite (NaN or infinite) in the "
            f"{array.size:,} of {name!r}, so its outputs would not be numbers. The file is damaged "
            "or its training has diverged. To take it as it is: --allow-nonfinite, in Python "
            "allow_nonfinite=True."
        )


def float32_of_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The values of bfloat16, which NumPy has not: the upper halves of float32.

    Args:
        bits: array of uint16.
    """
    return (bits.astype("uint32") << 16).view("float32")
