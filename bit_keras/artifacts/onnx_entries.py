"""The files of an artifact in an ONNX file: entries of the model's metadata, which are text."""

import base64
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

#: Fields of a ModelProto and of a StringStringEntryProto (`onnx/onnx.proto`).
_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2

#: Wire types of protobuf, and the bytes of a value of those with a fixed size
#: (https://protobuf.dev/programming-guides/encoding).
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED = {1: 8, 5: 4}

#: A file of this package has about twenty.
_MOST_FIELDS = 10_000


def entries_of(members: Mapping[str, bytes]) -> dict[str, str]:
    """The entries for some files: text as it is, `.npz` in base64."""
    return {
        name: base64.b64encode(content).decode() if name.endswith(".npz") else content.decode()
        for name, content in members.items()
    }


def read_entry(path: Path, name: str, most_bytes: int) -> bytes | None:
    """Reads one of these files from its entry, without the graph and its weights.

    Args:
        path: Path. An ONNX file.
        name: str. The key of the entry.
        most_bytes: int. Of the file. A larger one is cut, or damaged.

    Returns:
        bytes, or None where there is no such entry.

    Raises:
        OSError: The ONNX file cannot be read.
        ValueError: It is damaged; with the reason.
    """
    most_text = 2 * most_bytes  # Base64 has four bytes for three.
    found = None
    with path.open("rb") as file:
        for number, size in _fields(file, 0, file.seek(0, os.SEEK_END)):
            if number == _METADATA_PROPS:
                fields = itertools.islice(_fields(file, file.tell(), size), 2)
                entry = {part: file.read(min(length, most_text)) for part, length in fields}
                if entry.get(_KEY) == name.encode():
                    found = entry.get(_VALUE, b"")
    if found is not None and name.endswith(".npz"):
        return base64.b64decode(found, validate=True)
    return found


def _fields(file: BinaryIO, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The number and the size of each field of a protobuf message, with the file at its value."""
    place, end = start, start + size
    for _ in range(_MOST_FIELDS):
        if place == end:
            return
        file.seek(place)
        number, wire_type = divmod(_varint(file), 8)
        if wire_type == _VARINT:
            _varint(file)
            length = 0
        elif wire_type == _LENGTH_DELIMITED:
            length = _varint(file)
        elif wire_type in _FIXED:
            length = _FIXED[wire_type]
        else:
            raise ValueError(f"it is not an ONNX file: a field has the wire type {wire_type}")
        place = file.tell() + length
        if place > end:
            raise ValueError("it is damaged: a field continues after its end")
        yield number, length
    raise ValueError(f"it has more than {_MOST_FIELDS:,} fields")


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it is damaged: it ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it is not an ONNX file: a number has more than 64 bits")
