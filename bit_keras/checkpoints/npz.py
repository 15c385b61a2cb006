"""Official npz files, read and written one array at a time, never unpickled."""

import contextlib
import io
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bit_keras.atomic import replaced_file
from bit_keras.checkpoints.names import without_numbers
from bit_keras.errors import CheckpointError
from bit_keras.registry import Shape

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

#: As much as NumPy reads of a header that it does not trust; a deflated one may promise 4 GB.
_HEADER_BYTES = 10_000

#: What zipfile, zlib and NumPy raise on damaged or hostile input.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    IndexError,
    KeyError,
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


class NpzCheckpoint(Mapping[str, np.ndarray]):
    """The arrays of an official npz file, by name, each read when it is asked for.

    Opening reads the headers only. Names lose the number that some files have
    after `standardized_conv2d`.

    Args:
        path: The file.

    Attributes:
        path: Path.
        shapes: dict from array name to shape, in the order of the file.

    Raises:
        CheckpointError: The file is not an npz, is damaged, or holds anything
            but arrays of floats; objects are refused, because unpickling them
            could run code.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.save_weights(model, "tiny.npz")
    arrays = bit_keras.checkpoints.NpzCheckpoint("tiny.npz")
    arrays["resnet/head/conv2d/kernel"].shape  # (1, 1, 1024, 10)
    arrays.close()
    ```
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        with _explained(self.path):
            self._zip = _open_zip(self.path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.shapes: dict[str, Shape] = {}
        try:
            for member in self._zip.infolist():
                self._add(member)
        except BaseException:
            self.close()
            raise

    def _add(self, member: zipfile.ZipInfo) -> None:
        if not member.filename.endswith(".npy"):
            raise CheckpointError(
                f"{self.path} holds {member.filename!r}, which is no array; "
                "an official npz holds arrays alone."
            )
        name = without_numbers(member.filename.removesuffix(".npy"))
        if name.startswith("/") or ".." in name.split("/"):
            raise CheckpointError(
                f"{self.path} holds {member.filename!r}, a name that leads out of the archive; "
                "get the file from a source you trust."
            )
        if name in self._members:
            raise CheckpointError(f"{self.path} holds the array {name!r} twice.")
        with _explained(self.path, name):
            self.shapes[name] = self._read_shape(member)
        self._members[name] = member

    def _read_shape(self, member: zipfile.ZipInfo) -> Shape:
        # zipfile takes what a wrong length makes of the entries that follow for a comment.
        if member.comment:
            raise ValueError("its entry in the index runs into the next one")
        with self._zip.open(member) as file:
            start = io.BytesIO(file.read(_HEADER_BYTES))
        version = np.lib.format.read_magic(start)
        if version not in _HEADER_READERS:
            raise ValueError(f"npy format {version} is unknown")
        shape, _, dtype = _HEADER_READERS[version](start)
        header = start.tell()
        if dtype.hasobject:
            raise CheckpointError(
                f"{self.path} holds Python objects in {member.filename!r}; reading them could "
                "run code, so they are refused. Save the arrays as float32."
            )
        if dtype.kind != "f" or dtype.itemsize > 8:
            raise CheckpointError(
                f"{self.path} holds {dtype} values in {member.filename!r}, and weights are "
                "floats of at most 64 bits. Save the arrays as float32."
            )
        # A header that promises more than its member holds would allocate it all.
        promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if any(side < 0 for side in shape) or header + promised != member.file_size:
            raise ValueError(f"its header says {shape}, and the data have another size")
        return shape

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        with _explained(self.path, name), self._zip.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # To the end, where zipfile compares the checksum.
        # Torch takes no array of the other byte order.
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def verify(self) -> None:
        """Reads every byte once and compares the checksums.

        Raises:
            CheckpointError: A checksum differs; the message names the array.
        """
        for name, member in self._members.items():
            with _explained(self.path, name), self._zip.open(member) as file:
                while file.read(1 << 20):
                    pass

    def close(self) -> None:
        self._zip.close()

    def __enter__(self) -> "NpzCheckpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_npz(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], dtype: str | None = None
) -> None:
    """Writes arrays in the byte layout of the official files.

    Members are sorted by name, stored without compression, and carry no time
    stamp: equal arrays give equal files, of the size that the published ones
    have. One array at a time is in memory. The file is whole or absent.

    Args:
        path: The file to create or to replace.
        arrays: Mapping from official name to array, float32 by custom.
        dtype: str. What to store them as: `"float16"` halves the file, and is read
            back as float32. Defaults to what they are.

    Raises:
        BitKerasError: The file cannot be written.
    """
    with replaced_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name], dtype)
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, np.lib.format.header_data_from_array_1_0(array)
            )
            member = zipfile.ZipInfo(f"{name}.npy")
            # Known beforehand, so that zipfile does without the zip64 fields
            # that the official files do not have either.
            member.file_size = header.tell() + array.nbytes
            with archive.open(member, "w") as file:
                file.write(header.getvalue())
                file.write(array.reshape(-1).view(np.uint8).data)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        with path.open("rb") as file:
            start = file.read(4)
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise CheckpointError(f"There is no file {path}.") from None
    except IsADirectoryError:
        raise CheckpointError(f"{path} is a folder; an npz file was expected.") from None
    except zipfile.BadZipFile as error:
        if start.startswith(b"PK"):
            raise CheckpointError(
                f"{path} is cut short or damaged: the index at its end cannot be read. "
                "Download it again."
            ) from error
        if not start:
            raise CheckpointError(f"{path} is empty; an npz file was expected.") from error
        raise CheckpointError(
            f"{path} is not an npz file: it begins with {start!r} and not with b'PK'."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from error


@contextlib.contextmanager
def _explained(path: Path, name: str | None = None) -> Iterator[None]:
    """Turns what a damaged file raises into one sentence that names the place."""
    try:
        yield
    except CheckpointError:
        raise
    except (*_DAMAGE, OSError) as error:
        place = f"{path}, array {name!r}," if name else f"{path}"
        reason = str(error) or "it ends too early"
        raise CheckpointError(f"{place} is damaged ({reason}). Download it again.") from error
