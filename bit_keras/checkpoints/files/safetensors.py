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
    Arrays,
    BinaryFile,
    StoredArray,
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


class SafetensorsFile(BinaryFile):
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

    file_format, expected = "safetensors", "a safetensors file"

    def _read_metadata(self) -> None:
        header = self._read_header()
        header.pop("__metadata__", None)
        size = self.path.stat().st_size - self._start
        end = 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            shape, (start, stop) = entry["shape"], entry["data_offsets"]
            if entry["dtype"] not in _DTYPES:
                raise ValueError(f"{name!r} has the dtype {entry['dtype']!r}, which is unknown")
            if any(type(each) is not int or each < 0 for each in (*shape, start, stop)):
                raise ValueError(f"{name!r} has the shape {shape} at {start} to {stop}")
            array = StoredArray(tuple(shape), _DTYPES[entry["dtype"]], start)
            if stop - start != array.bytes:
                raise ValueError(f"the values of {name!r} have another size than {shape}")
            if start != end:
                raise ValueError(f"the values of {name!r} do not begin where others end")
            self._add(name, array)
            end = stop
        if size != end:
            raise ValueError(f"its header promises {end} bytes of values, and it has {size}")

    def _read_header(self) -> dict[str, Any]:
        length = int.from_bytes(self._file.read(8), "little")
        self._start = 8 + length
        if length > min(MOST_BYTES, self.path.stat().st_size - 8):
            raise ValueError(
                f"its header should have {length:,} bytes; at most {MOST_BYTES:,} are read"
            )
        return parsed(self._file.read(length), dict[str, Any], _without_repetition)


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


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its header names an array twice")
    return found
