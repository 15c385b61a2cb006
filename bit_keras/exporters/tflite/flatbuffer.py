"""A TFLite model with another root, or other numbers in place.

What is added stands before the bytes that were there.

A flatbuffer refers forwards only, so a new root in front can name every part of the old
bytes where it is. They are copied once and keep their alignment; a model of a gigabyte
takes no longer than that. What only the old root referred to stays in the file, some
kilobytes that nothing reads.

Reference:
    [FlatBuffers' format](https://flatbuffers.dev/internals/), and `schema.fbs` of TFLite
    (`tensorflow/tensorflow`, `tensorflow/compiler/mlir/lite/schema/schema.fbs`).
"""

from collections.abc import Mapping, Sequence

import flatbuffers
import numpy as np
from flatbuffers import encode, packer
from flatbuffers.number_types import SOffsetTFlags, Uint32Flags, UOffsetTFlags, VOffsetTFlags
from flatbuffers.table import Table

#: Of TFLite models, and of their weights (`force_align` of `Buffer.data` in `schema.fbs`).
IDENTIFIER = b"TFL3"
ALIGNMENT = 16

#: The dtype of the numbers of tensors and of the sides of shapes.
INTEGER = np.dtype("<i4")

#: The fields of the table `Model`, in the order of `schema.fbs`.
VERSION, _, SUBGRAPHS, _, BUFFERS, _, METADATA, SIGNATURE_DEFS = range(8)


def root_table(model: bytes) -> Table:
    """The table `Model`."""
    return Table(model, encode.Get(packer.uoffset, model, 0))


def slot(field: int) -> int:
    """Where the table of a table's fields has a field."""
    return 4 + 2 * field


def tables(table: Table, field: int) -> list[Table]:
    """The tables in the vector that a field of a table refers to; none where it is absent."""
    offset = table.Offset(slot(field))
    if not offset:
        return []
    first = table.Vector(offset)
    places = range(first, first + 4 * table.VectorLen(offset), 4)
    return [Table(table.Bytes, table.Indirect(place)) for place in places]


def integers(table: Table, field: int) -> tuple[int, np.ndarray]:
    """Where the vector of a field has its integers, and these; none where it is absent."""
    offset = table.Offset(slot(field))
    if not offset:
        return 0, np.empty(0, INTEGER)
    first = table.Vector(offset)
    return first, np.frombuffer(table.Bytes, INTEGER, table.VectorLen(offset), first)


def patched(model: bytes, patches: Mapping[int, bytes]) -> bytes:
    """A model with other bytes at some positions. It is copied once, however large."""
    rest, end = memoryview(model), 0
    parts: list[bytes | memoryview] = []
    for position, content in sorted(patches.items()):
        parts += [rest[end:position], content]
        end = position + len(content)
    return b"".join([*parts, rest[end:]])


def offset_vector(builder: flatbuffers.Builder, offsets: Sequence[int]) -> int:
    """Writes a vector of what is at some offsets, and returns its own."""
    builder.StartVector(UOffsetTFlags.bytewidth, len(offsets), UOffsetTFlags.bytewidth)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


class NewRoot:
    """The bytes of a new root table, to be put before those of a model.

    `builder` writes what is new; `replace` has the root refer to it; all other fields
    refer to what they referred to before.

    Args:
        model: bytes. A TFLite model.
    """

    def __init__(self, model: bytes) -> None:
        self.builder = flatbuffers.Builder()
        self._root = root_table(model)
        self._fields: dict[int, int] = {}

    def replace(self, field: int, offset: int) -> None:
        """Has a field of the root refer to what the builder wrote at an offset."""
        self._fields[field] = offset

    def extended(self, field: int, offsets: Sequence[int]) -> int:
        """Adds tables to the vector that a field refers to, and returns its new length."""
        # Counted as in `_referred`.
        known = [-table.Pos for table in tables(self._root, field)]
        elements = [*known, *offsets]
        self.replace(field, offset_vector(self.builder, elements))
        return len(elements)

    def bytes(self) -> bytes:
        """What goes before the model; it fills whole units of its alignment."""
        vtable = self._root.Pos - self._root.Get(SOffsetTFlags, self._root.Pos)
        size = (self._root.Get(VOffsetTFlags, vtable) - slot(0)) // 2
        version = self._root.Get(Uint32Flags, self._position(VERSION))
        self.builder.StartObject(size)
        for field in range(1, size):
            offset = self._fields.get(field, self._referred(field))
            self.builder.PrependUOffsetTRelativeSlot(field, offset, 0)
        self.builder.PrependUint32Slot(VERSION, version, 0)
        root = self.builder.EndObject()
        self.builder.minalign = max(self.builder.minalign, ALIGNMENT)
        self.builder.Finish(root, IDENTIFIER)
        return bytes(self.builder.Output())

    def _position(self, field: int) -> int:
        """Where a field is in the model, or 0."""
        offset = self._root.Offset(slot(field))
        return self._root.Pos + offset if offset else 0

    def _referred(self, field: int) -> int:
        """What a field refers to, as an offset from the end of the builder's bytes, or 0.

        The builder counts backwards from the end of its bytes; what comes after that
        end has a negative offset.
        """
        position = self._position(field)
        return -self._root.Indirect(position) if position else 0
