"""The common interface of files of arrays, whatever their format."""

import abc
import contextlib
import dataclasses
import math
import os
import tokenize
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from bit_keras.archives import DAMAGE
from bit_keras.errors import CheckpointError, reason_of
from bit_keras.registry import Shape

#: What the readers of the standard library and NumPy raise on damaged or hostile input.
_DAMAGE = (*DAMAGE, zipfile.BadZipFile, SyntaxError, TypeError, tokenize.TokenError)

#: Values that are looked at together, so that they stay in the cache.
_PART = 1 << 16


class ForeignError(ValueError):
    """A file that is not damaged, but is not as the programs write it whose files are read.

    Its message follows the path of the file.
    """


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

    def verify(self) -> None:
        """Reads what has checksums once, and compares them; some formats have none.

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


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """Where the values of an array are in a file, one after the other.

    Attributes:
        shape: tuple of int.
        dtype: str. For example `"float32"`.
        offset: int. Bytes from where the values, or the format, begin in the file.
        byte_order: str. `"<"` or `">"`.
    """

    shape: Shape
    dtype: str
    offset: int
    byte_order: str = "<"

    @property
    def stored(self) -> np.dtype:
        """The dtype to read the values as: NumPy has no bfloat16."""
        dtype = "uint16" if self.dtype == "bfloat16" else self.dtype
        return np.dtype(dtype).newbyteorder(self.byte_order)  # type: ignore[arg-type]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.stored.itemsize


class BinaryFile(ArrayFile):
    """Arrays in one file, which stays open; a subclass reads where the arrays are.

    Args:
        path: The file.

    Attributes:
        expected: str. What the file should be, for example `"an npz file"`.
    """

    expected: ClassVar[str]

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        require_file(self.path, self.expected)
        self._stored: dict[str, StoredArray] = {}
        #: What their offsets count from.
        self._start = 0
        self._file = self.path.open("rb")
        try:
            with damage_explained(self.path):
                self._read_metadata()
        except BaseException:
            self.close()
            raise

    @abc.abstractmethod
    def _read_metadata(self) -> None:
        """Adds every array; what it raises on damage is explained."""

    def _add(self, name: str, array: StoredArray) -> None:
        if name in self.shapes:
            raise ForeignError(f"contains the array {name!r} twice.")
        self._stored[name] = array
        self.shapes[name], self.dtypes[name] = array.shape, array.dtype

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._stored[name]
        with damage_explained(self.path, name):
            return in_native_dtype(self._values(array), array.dtype)

    def _values(self, array: StoredArray) -> np.ndarray:
        """An array as it is in the file."""
        values = np.empty(array.shape, array.stored)
        self._file.seek(self._start + array.offset)
        if self._file.readinto(values.reshape(-1).view(np.uint8).data) != values.nbytes:
            raise EOFError
        return values

    def close(self) -> None:
        self._file.close()


class ArrayFileView(ArrayFile):
    """The arrays of an open file, changed by a subclass when they are requested.

    Args:
        arrays: ArrayFile. It is closed with this object.
    """

    def __init__(self, arrays: ArrayFile) -> None:
        super().__init__(arrays.path)
        self._arrays = arrays
        self.shapes, self.dtypes = dict(arrays.shapes), dict(arrays.dtypes)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def verify(self) -> None:
        self._arrays.verify()

    def close(self) -> None:
        self._arrays.close()


@contextlib.contextmanager
def damage_explained(path: Path, name: str | None = None) -> Iterator[None]:
    """Turns what a damaged or foreign file raises into one sentence that names the place."""
    try:
        yield
    except CheckpointError:
        raise
    except ForeignError as error:
        raise CheckpointError(f"{path} {error}") from error
    except _DAMAGE as error:
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


def in_native_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """The values of an array in a dtype and an order of bytes that NumPy computes with.

    Args:
        values: array. Of bfloat16, which NumPy has not, the bits: they are the upper halves
            of float32. Of any other dtype the values, in any order of bytes.
        dtype: str.
    """
    if dtype == "bfloat16":
        bits = values if values.dtype == np.dtype(">u2") else values.view("<u2")
        return (bits.astype("uint32") << 16).view("float32")
    return values.astype(values.dtype.newbyteorder("="), copy=False)
