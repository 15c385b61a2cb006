"""NumPy's npz archives, read and written one array at a time, never unpickled."""

import io
import os
import zipfile
from collections.abc import Mapping

import numpy as np

from bit_keras.archives import open_archive, verify_member
from bit_keras.atomic import replaced_file
from bit_keras.checkpoints.files.array_file import (
    BinaryFile,
    ForeignError,
    damage_explained,
    in_native_dtype,
)

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

#: As much as NumPy reads of a header that it does not trust; a deflated one may promise 4 GB.
_HEADER_BYTES = 10_000

#: How NumPy stores JAX's bfloat16 (`google-research/big_vision`, `utils.py`, `recover_dtype`).
_BFLOAT16 = np.dtype("V2")


class NpzFile(BinaryFile):
    """The arrays of an npz file.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is not an npz, is damaged, or contains anything but
            arrays of numbers; objects are refused, because unpickling them could run
            code.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.save_weights(model, "tiny.npz")
    with bit_keras.checkpoints.files.NpzFile("tiny.npz") as arrays:
        print(arrays.shapes["resnet/head/conv2d/kernel"])  # (1, 1, 1024, 10)
    ```
    """

    file_format, expected = "npz", "an npz file"

    def _read_metadata(self) -> None:
        start = self._file.read(4)
        if not start.startswith(b"PK"):
            raise ForeignError(f"is not an npz file: it begins with {start!r} and not with b'PK'.")
        self._zip = open_archive(self._file)
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in self._zip.infolist():
            self._add_member(member)

    def _add_member(self, member: zipfile.ZipInfo) -> None:
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise ForeignError(
                f"contains {name!r}, which is not an array; an npz contains only arrays."
            )
        if name.startswith("/") or ".." in name.split("/"):
            raise ForeignError(
                f"contains {member.filename!r}, a name that leads out of the archive; get the file "
                "from a source you trust."
            )
        with damage_explained(self.path, name):
            self._read_header(name, member)
        self._members[name] = member

    def _read_header(self, name: str, member: zipfile.ZipInfo) -> None:
        with self._zip.open(member) as file:
            start = io.BytesIO(file.read(_HEADER_BYTES))
        version = np.lib.format.read_magic(start)
        if version not in _HEADER_READERS:
            raise ValueError(f"npy format {version} is unknown")
        shape, _, dtype = _HEADER_READERS[version](start)
        header = start.tell()
        if dtype.hasobject:
            raise ForeignError(
                f"contains Python objects in {member.filename!r}; reading them could run code, so "
                "they are refused. Save the arrays as float32."
            )
        # A header that promises more than its member contains would allocate it all.
        promised = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if any(side < 0 for side in shape) or header + promised != member.file_size:
            raise ValueError(f"its header says {shape}, and the data have another size")
        self.shapes[name] = shape
        self.dtypes[name] = "bfloat16" if dtype == _BFLOAT16 else dtype.name

    def __getitem__(self, name: str) -> np.ndarray:
        member = self._members[name]
        with damage_explained(self.path, name), self._zip.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()  # To the end, where zipfile compares the checksum.
        return in_native_dtype(array, self.dtypes[name])

    def verify(self) -> None:
        for name, member in self._members.items():
            with damage_explained(self.path, name):
                verify_member(self._zip, member)


def write_npz(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray], dtype: str | None = None
) -> None:
    """Writes arrays in the byte layout of the official files.

    Members are sorted by name, stored without compression, and carry no time
    stamp: equal arrays give equal files, of the size that the published ones
    have. One array at a time is in memory. The file is atomic.

    Args:
        path: The file to create or to replace.
        arrays: Mapping from name to array, float32 by custom.
        dtype: str. What to store them as: `"float16"` halves the file, and is read
            back as float32. Defaults to what they are.

    Raises:
        BitKerasError: The file cannot be written.

    Example:

    ```python
    bit_keras.checkpoints.files.write_npz("one.npz", {"kernel": np.zeros((1, 1, 3, 8), "float32")})
    np.load("one.npz")["kernel"].shape  # (1, 1, 3, 8)
    ```
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
