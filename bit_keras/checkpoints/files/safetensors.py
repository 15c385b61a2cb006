"""Hugging Face's safetensors, read and written one array at a time.

A file is the length of a header in eight bytes, the header in JSON, and the values
without gaps (`huggingface/safetensors`, README, "Format"). It has no checksums.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from bit_keras.atomic import replaced_file
from bit_keras.checkpoints.files.array_file import (
    ArrayFile,
    Arrays,
    damage_explained,
    float32_of_bfloat16,
    require_file,
)
from bit_keras.documents import MOST_BYTES, parsed

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class SafetensorsFile(ArrayFile):
    """The arrays of a safetensors file.

    NumPy has no bfloat16: such an array is read as float32, which contains every value
    of it.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is not a safetensors, or its header contradicts itself
            or the size of the file.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.save_weights(model, "tiny.safetensors", format="timm")
    with bit_keras.checkpoints.files.SafetensorsFile("tiny.safetensors") as arrays:
        print(arrays.shapes["head.fc.weight"])  # (10, 1024, 1, 1)
    ```
    """

    file_format = "safetensors"

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        require_file(self.path, "a safetensors file")
        #: Where the values of an array begin in the file.
        self._starts: dict[str, int] = {}
        with damage_explained(self.path):
            header, values_at = _read_header(self.path)
            self._add_all(header, values_at)
        self._file = self.path.open("rb")

    def _add_all(self, header: dict[str, Any], values_at: int) -> None:
        header.pop("__metadata__", None)
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            shape, (start, stop) = entry["shape"], entry["data_offsets"]
            if entry["dtype"] not in _DTYPES:
                raise ValueError(f"{name!r} has the dtype {entry['dtype']!r}, which is unknown")
            dtype = _DTYPES[entry["dtype"]]
            sizes = [*shape, start, stop]
            if any(type(size) is not int or size < 0 for size in sizes):
                raise ValueError(f"{name!r} has the shape {shape} at {start} to {stop}")
            if stop - start != math.prod(shape) * _item_size(dtype):
                raise ValueError(f"the values of {name!r} have another size than {shape}")
            if start != end:
                raise ValueError(f"the values of {name!r} do not begin where others end")
            end = stop
            self.shapes[name], self.dtypes[name] = tuple(shape), dtype
            self._starts[name] = values_at + start
        if self.path.stat().st_size != values_at + end:
            raise ValueError(f"its header promises {values_at + end} bytes, and it has others")

    def __getitem__(self, name: str) -> np.ndarray:
        shape, dtype = self.shapes[name], self.dtypes[name]
        stored = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")
        with damage_explained(self.path, name):
            array = np.empty(shape, stored)
            self._file.seek(self._starts[name])
            if self._file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise ValueError("it ends too early")
        if dtype == "bfloat16":
            return float32_of_bfloat16(array)
        return array.astype(stored.newbyteorder("="), copy=False)

    def verify(self) -> None:
        """Does nothing: the format has no checksums, and opening has compared all sizes."""

    def close(self) -> None:
        self._file.close()


def is_safetensors(path: Path) -> bool:
    """Whether a file begins like a safetensors: with a plausible length, and JSON."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= MOST_BYTES


def write_safetensors(
    path: str | os.PathLike,
    arrays: Arrays,
    dtype: str = "float32",
) -> None:
    """Writes arrays as a safetensors file.

    One array at a time is in memory. The file is atomic.

    Args:
        path: The file to create or to replace.
        arrays: Arrays.
        dtype: str. What to store them as: `"float32"` or `"float16"`. Defaults to
            `"float32"`.

    Raises:
        BitKerasError: The file cannot be written.
    """
    item, end = np.dtype(dtype).newbyteorder("<"), 0
    # What PyTorch's users mark their files with (transformers warns where it is missing).
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name in sorted(arrays):
        start, end = end, end + math.prod(arrays.shapes[name]) * item.itemsize
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(arrays.shapes[name]),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # The reference implementation aligns the values to eight bytes with spaces.
    text += b" " * (-len(text) % 8)
    with replaced_file(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in sorted(arrays):
            file.write(np.ascontiguousarray(arrays[name], item).data)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header, and where the values begin."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_BYTES, path.stat().st_size - 8):
            raise ValueError(
                f"its header should have {length:,} bytes; at most {MOST_BYTES:,} are read"
            )
        header = parsed(file.read(length), dict[str, Any], _without_repetition)
    return header, 8 + length


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names an array twice")
    return found


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
