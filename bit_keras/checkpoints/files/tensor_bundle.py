"""The index of TensorFlow's checkpoints, checked before TensorFlow reads it.

TensorFlow 2.21 does not compare the checksums of the index, believes what it says, and ends
the process where that is wrong: with a segmentation fault, or by `CHECK`. The index is
a table of LevelDB (`google/leveldb`, doc/table_format.md; `tensorflow/tensorflow`,
core/lib/io/format.cc) from names to `BundleEntryProto`
(core/protobuf/tensor_bundle.proto). The values stay with TensorFlow, which compares
their checksums.
"""

import dataclasses
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bit_keras.registry import Shape

if TYPE_CHECKING:
    import tensorflow as tf

#: Fifty times what the largest network of the registry takes.
_INDEX_BYTES = 4_000_000

#: Two places of blocks and a mark end the table; five bytes end each block.
_FOOTER_BYTES, _TRAILER_BYTES = 48, 5
_MAGIC = 0xDB4775248B80FB57

#: What is added to checksums that are stored (core/lib/hash/crc32c.h).
_MASK = 0xA282EAD8

#: Dimensions that a tensor may have (core/framework/tensor_shape.h, `MaxDimensions`).
_MOST_DIMENSIONS = 254

#: The key of what is true of all files of values.
_HEADER = b""


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the index says of an array.

    Attributes:
        shape: tuple of int.
        dtype: tf.DType.
        bytes: int. In the file of values.
    """

    shape: Shape
    dtype: "tf.DType"
    bytes: int


def checked_index(prefix: Path) -> dict[str, Entry]:
    """Reads the index of a checkpoint and compares it with the files of values.

    Args:
        prefix: The path of the index without `.index`.

    Returns:
        dict from key to Entry, in the order of the index. TensorFlow can read each.

    Raises:
        ValueError: Something is damaged, or is not as TensorFlow writes it.
        OSError: A file is missing or cannot be read.
    """
    from tensorflow.core.protobuf import tensor_bundle_pb2

    items = dict(_items(_content(prefix.with_name(f"{prefix.name}.index"))))
    if _HEADER not in items:
        raise ValueError("its index has no header")
    header = tensor_bundle_pb2.BundleHeaderProto.FromString(items.pop(_HEADER))
    if header.endianness != header.LITTLE or not 1 <= header.num_shards <= 99_999:
        raise ValueError("its index is of another byte order, or names no file of values")
    entries = {}
    for key, value in items.items():
        entry = tensor_bundle_pb2.BundleEntryProto.FromString(value)
        if not 0 <= entry.shard_id < header.num_shards:
            raise ValueError(f"its index names file {entry.shard_id} of {header.num_shards}")
        name = f"{prefix.name}.data-{entry.shard_id:05d}-of-{header.num_shards:05d}"
        values = prefix.with_name(name)
        _require_ordinary(values)
        entries[key.decode()] = _entry(entry, values, key.decode()[:80])
    return entries


def _require_ordinary(path: Path) -> None:
    if path.exists() and not path.is_file():  # A pipe would be waited for.
        raise ValueError(f"its {path.name} is not an ordinary file")


def _entry(entry: Any, values: Path, name: str) -> Entry:
    """An entry of the index, after it was compared with the file of its values."""
    import tensorflow as tf

    sides = tuple(side.size for side in entry.shape.dim)
    if entry.shape.unknown_rank or min(sides, default=0) < 0 or len(sides) > _MOST_DIMENSIONS:
        raise ValueError(f"{name!r} has the shape {sides[:8]}")
    if entry.slices:
        raise ValueError(f"{name!r} is stored in slices; save the variable as a whole")
    try:
        dtype = tf.dtypes.as_dtype(entry.dtype)
    except TypeError:
        raise ValueError(f"{name!r} has a dtype that is unknown ({entry.dtype})") from None
    if min(entry.offset, entry.size) < 0 or entry.offset + entry.size > values.stat().st_size:
        raise ValueError(f"the values of {name!r} reach beyond the end of their file")
    count = math.prod(sides)
    numeric = dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype.is_complex
    if dtype == tf.string:
        _require_texts(values, entry, count, name)
    elif not numeric or count * dtype.size != entry.size:
        raise ValueError(f"the values of {name!r} have another size than {sides} of {dtype.name}")
    return Entry(sides, dtype, entry.size)


def _require_texts(values: Path, entry: Any, count: int, name: str) -> None:
    """Texts are their lengths, the checksum of these, and the texts (tensor_bundle.cc)."""
    if count > entry.size:
        raise ValueError(f"{name!r} promises {count} texts in {entry.size} bytes")
    with values.open("rb") as file:
        file.seek(entry.offset)
        # A length takes at most ten bytes.
        start, at, total = file.read(min(entry.size, 10 * count)), 0, 0
    for _ in range(count):
        length, at = _varint(start, at)
        total += length
    if at + 4 + total != entry.size:
        raise ValueError(f"the texts of {name!r} have another size than their lengths say")


def _content(path: Path) -> bytes:
    _require_ordinary(path)
    with path.open("rb") as file:
        content = file.read(_INDEX_BYTES + 1)
    if len(content) > _INDEX_BYTES:
        raise ValueError(f"its index has more than {_INDEX_BYTES:,} bytes, the most that are read")
    return content


def _items(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table, in their order."""
    footer = table[-_FOOTER_BYTES:]
    if len(footer) < _FOOTER_BYTES or struct.unpack_from("<Q", footer, 40) != (_MAGIC,):
        raise ValueError("its index is cut short, or no table")
    meta_place, at = _place(footer, 0)
    index_place, _ = _place(footer, at)
    for _ in _block(table, *meta_place):
        raise ValueError("its index has filters, which TensorFlow does not write")
    before: bytes | None = None
    for last, place in _block(table, *index_place):
        for key, value in _block(table, *_place(place, 0)[0]):
            if before is not None and key <= before:
                raise ValueError("the names in its index are not in order")
            before = key
            yield key, value
        if before is None or last < before:
            raise ValueError("the blocks of its index are not in order")


def _block(table: bytes, start: int, length: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of a block, after its checksum was compared."""
    end = start + length
    if length < 4 or end + _TRAILER_BYTES > len(table):
        raise ValueError("a block of its index reaches beyond its end")
    compression, checksum = struct.unpack_from("<BL", table, end)
    if compression:
        raise ValueError(f"its index is compressed ({compression}), which TensorFlow does not do")
    if _masked(_crc32c(table[start : end + 1])) != checksum:
        raise ValueError("a checksum in its index is wrong")
    block = table[start:end]
    (count,) = struct.unpack_from("<L", block, length - 4)
    if not 1 <= count <= (length - 4) // 4:
        raise ValueError("a block of its index promises more than it has")
    entries_end = length - 4 - 4 * count
    restarts = set(struct.unpack_from(f"<{count}L", block, entries_end))
    at, key, whole = 0, b"", set()
    while at < entries_end:
        place = at
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(key) or at + own + size > entries_end:
            raise ValueError("an entry of its index reaches beyond its block")
        if shared == 0:
            whole.add(place)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + size]
        at += own + size
    # An empty block has one restart, of nothing.
    if not restarts <= (whole or {0}):
        raise ValueError("a block of its index begins again where no entry does")


def _place(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise ValueError("a number in its index has no end")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # Castagnoli's polynomial.
        table.append(byte)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
