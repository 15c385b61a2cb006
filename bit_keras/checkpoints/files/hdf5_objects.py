"""The objects in an HDF5 file: groups, datasets and lists of names, without their values.

The HDF5 library (1.14.6) loops for ever, or takes all the memory there is, where some bits
of a file are wrong, and no caller can stop it. So this reader reads what Keras writes:
the layout that `h5py` uses unless told otherwise, that of HDF5 1.6. It follows the HDF5
File Format Specification, version 3.0, whose sections are named below.
"""

import dataclasses
import itertools
import struct
from collections.abc import Iterator
from typing import BinaryIO

from bit_keras.checkpoints.files.array_file import ForeignError, StoredArray
from bit_keras.registry import Shape

#: HDF5 may also begin further on; Keras never writes that.
SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: Twenty times what the metadata of the largest network take, with the state of its
#: optimizer. It bounds the work that a file can cause, whatever refers to whatever in it.
_METADATA_BYTES = 16_000_000

#: Types of messages in the header of an object (IV.A.2).
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT = 0x01, 0x03, 0x07, 0x08
_FILTERS, _ATTRIBUTE, _CONTINUATION, _SYMBOLS = 0x0B, 0x0C, 0x10, 0x11

#: Classes of datatypes, and how texts of any length are told from other sequences.
_STRING, _OPAQUE, _SEQUENCE, _TEXT = 3, 5, 9, 1

#: What an entry of a group keeps about a link to a path.
_SOFT_LINK = 2


def _foreign(what: str) -> ForeignError:
    return ForeignError(f"contains {what}; save the weights with Keras, which writes none of that.")


@dataclasses.dataclass(frozen=True)
class _Message:
    type: int
    shared: bool
    data: bytes


class Objects:
    """The objects of an HDF5 file.

    Args:
        file: A file in which HDF5 begins somewhere.
        start: int. Where.
        size: int. Its bytes.
        branch: tuple of the name of a member and of an attribute. Where the outermost group does
            not have the attribute, only this member of it is read. Defaults to `None`: all are.

    Attributes:
        datasets: dict from path to StoredArray.
        groups: dict from path to the attributes of the group. The outermost has the path `""`.

    Raises:
        ForeignError: An object is as Keras does not write it.
        ValueError: It is damaged.
    """

    def __init__(
        self, file: BinaryIO, start: int, size: int, branch: tuple[str, str] | None = None
    ) -> None:
        self._file, self._start, self._size, self._branch = file, start, size, branch
        self._left = _METADATA_BYTES
        self._heaps: dict[int, dict[int, bytes]] = {}
        self.datasets: dict[str, StoredArray] = {}
        self.groups: dict[str, dict[str, tuple[bytes, bytes, bytes]]] = {}
        self._read_below(self._root())
        _require_separate(self.datasets, size)

    def has_names(self, group: str, attribute: str) -> bool:
        return not {attribute, f"{attribute}0"}.isdisjoint(self.groups.get(group, {}))

    def names(self, group: str, attribute: str) -> list[str]:
        """A list of names, which Keras splits where it is longer than the 64 kB of a header."""
        if group not in self.groups:
            raise ValueError(f"it has no group {group!r}")
        if not self.has_names(group, attribute):
            raise ValueError(f"the group {group!r} has no attribute {attribute!r}")
        if attribute in self.groups[group]:
            return self._texts(group, attribute)
        parts = (f"{attribute}{number}" for number in itertools.count())
        found = itertools.takewhile(self.groups[group].__contains__, parts)
        return [text for part in found for text in self._texts(group, part)]

    def _texts(self, group: str, name: str) -> list[str]:
        datatype, dataspace, data = self.groups[group][name]
        shape = _shape(dataspace)
        # A list without entries has no texts to take its type from, and is one of numbers.
        if shape == (0,):
            return []
        type_class, detail, size = struct.unpack_from("<BB2xI", datatype)
        varying = type_class & 15 == _SEQUENCE and detail & 15 == _TEXT
        if shape is None or len(shape) != 1 or not (varying or type_class & 15 == _STRING):
            raise ValueError(f"the attribute {name!r} of {group!r} is not a list of names")
        if not 0 < size * shape[0] <= len(data):
            raise ValueError(f"the attribute {name!r} of {group!r} has another size")
        items = [data[at : at + size] for at in range(0, size * shape[0], size)]
        if not varying:
            return [item.rstrip(b"\0").decode() for item in items]
        return [self._text(*struct.unpack("<IQI", item)) for item in items]

    def _root(self) -> int:
        """The header of the outermost group, which the superblock names (II.A)."""
        block = self._read(0, 96)
        if block[:8] != SIGNATURE:
            raise ValueError("it does not begin like HDF5")
        if block[8]:
            raise _foreign("its objects in HDF5's newer layout")
        base, end, header = struct.unpack_from("<24xQ8xQ16xQ", block)
        if block[13:15] != b"\x08\x08" or base or end > self._size:
            raise ValueError(f"it should have {end} bytes and has {self._size}")
        return header

    def _read_below(self, root: int) -> None:
        pending, seen = [("", root)], {root}
        while pending:
            path, header = pending.pop()
            messages = self._messages(header)
            by_type = {each.type: each for each in reversed(messages)}
            if path and _LAYOUT in by_type:
                self.datasets[path] = _dataset(by_type, path)
                continue
            if _SYMBOLS not in by_type:
                raise _foreign(
                    f"the group {path!r} in HDF5's newer layout, which has links into other files"
                )
            attributes = [_attribute(each) for each in messages if each.type == _ATTRIBUTE]
            self.groups[path] = dict(attributes)
            prefix = f"{path}/" if path else ""
            members = self._members(by_type[_SYMBOLS], prefix)
            if not path and self._branch and not self.has_names("", self._branch[1]):
                members = {name: at for name, at in members.items() if name == self._branch[0]}
            for name, member in reversed(members.items()):
                # A path repeats the names of all groups around it.
                self._spend(len(prefix) + len(name))
                if member in seen:
                    raise ValueError(f"{prefix + name!r} is there under another name as well")
                seen.add(member)
                pending.append((prefix + name, member))

    def _messages(self, header: int) -> list[_Message]:
        """What the header of an object says (IV.A.1.a)."""
        version, size = struct.unpack("<B7xI4x", self._read(header, 16))
        if version != 1:
            raise _foreign("an object in HDF5's newer layout")
        blocks, messages = [(header + 16, size)], []
        for block in blocks:
            data, begin = self._read(*block), 0
            while begin + 8 <= len(data):
                message_type, size, flags = struct.unpack_from("<HHB", data, begin)
                begin += 8 + size
                message = _Message(message_type, bool(flags & 2), data[begin - size : begin])
                if message_type == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", message.data))
                    if blocks[-1] in blocks[:-1]:
                        raise ValueError("the header of an object leads into itself")
                messages.append(message)
        return messages

    def _members(self, symbols: _Message, prefix: str) -> dict[str, int]:
        """Names and headers of what is in a group (III.A.1, III.C, III.D)."""
        tree, heap = struct.unpack_from("<QQ", symbols.data)
        size, address = self._fields(heap, b"HEAP", "4xQ8xQ")
        names, found = self._read(address, size), {}
        for at, header, cache_type in self._entries(tree, None):
            name = names[at : names.index(b"\0", at)].decode()
            if not name.isprintable() or "/" in name or name in ("", "."):
                raise ValueError(f"{prefix[:-1]!r} contains {name!r}, which no name can be")
            if name in found:
                raise ValueError(f"{prefix[:-1]!r} contains {name!r} twice")
            if cache_type == _SOFT_LINK:
                raise _foreign(f"{prefix + name!r}, a link to somewhere else")
            found[name] = header
        return found

    def _entries(self, address: int, level: int | None) -> Iterator[tuple[int, ...]]:
        node_type, height, count = self._fields(address, b"TREE", "BBH")
        if node_type or level not in (None, height):
            raise ValueError("what is in a group is not where it says")
        keys_and_children = self._read(address + 24, 16 * count)
        for child in struct.unpack(f"<{2 * count}Q", keys_and_children)[1::2]:
            if height:
                yield from self._entries(child, height - 1)
            else:
                (entries,) = self._fields(child, b"SNOD", "xxH")
                yield from struct.iter_unpack("<QQI20x", self._read(child + 8, 40 * entries))

    def _text(self, length: int, address: int, index: int) -> str:
        """A text of any length, by its place in a heap."""
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        text = self._heaps[address].get(index, b"")
        self._spend(len(text))
        if len(text) != length:
            raise ValueError(f"a name of {length} bytes has {len(text)}")
        return text.decode()

    def _heap(self, address: int) -> dict[int, bytes]:
        """Texts of any length (III.E)."""
        (size,) = self._fields(address, b"GCOL", "4xQ")
        if size < 16:
            raise ValueError(f"its names take {size} bytes")
        heap, texts, begin = self._read(address + 16, size - 16), {}, 0
        while begin + 16 <= len(heap):
            index, length = struct.unpack_from("<H6xQ", heap, begin)
            if index == 0:  # The free space, which is the end.
                break
            begin += 16
            texts[index] = heap[begin : begin + length]
            begin += _padded(length)
        return texts

    def _fields(self, address: int, signature: bytes, layout: str) -> tuple[int, ...]:
        """The numbers at the beginning of a block, after its signature."""
        block = struct.Struct(f"<4s{layout}")
        found, *fields = block.unpack(self._read(address, block.size))
        if found != signature:
            raise ValueError(f"its block {signature.decode()} is not where it says")
        return tuple(fields)

    def _read(self, address: int, size: int) -> bytes:
        if address + size > self._size:
            raise ValueError("a part of it would be after its end")
        self._spend(size)
        self._file.seek(self._start + address)
        return self._file.read(size)

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"its metadata take more than {_METADATA_BYTES} bytes")


def _attribute(message: _Message) -> tuple[str, tuple[bytes, bytes, bytes]]:
    """The name of an attribute, and its datatype, dataspace and data (IV.A.2.m)."""
    version, flags, *sizes = struct.unpack_from("<BBHHH", message.data)
    if message.shared or (version > 1 and flags):
        raise _foreign("attributes that share their types")
    parts, begin = [], 9 if version == 3 else 8
    for size in sizes:
        parts.append(message.data[begin : begin + size])
        begin += _padded(size) if version == 1 else size
    name, datatype, dataspace = parts
    return name.rstrip(b"\0").decode(), (datatype, dataspace, message.data[begin:])


def _dataset(messages: dict[int, _Message], path: str) -> StoredArray:
    layout = messages[_LAYOUT].data
    version, layout_class = layout[:2]
    if version not in (3, 4) or layout_class != 1 or {_EXTERNAL, _FILTERS} & messages.keys():
        raise _foreign(f"the values of {path!r} compressed, in chunks or in another file")
    if not {_DATATYPE, _DATASPACE} <= messages.keys():
        raise ValueError(f"{path!r} has no type or no shape")
    offset, size = struct.unpack_from("<QQ", layout, 2)
    number = _number(messages[_DATATYPE])
    shape = None if messages[_DATASPACE].shared else _shape(messages[_DATASPACE].data)
    if number is None or shape is None:
        raise _foreign(f"values in {path!r} that are not numbers of a common type")
    byte_order, dtype = number
    dataset = StoredArray(shape, dtype, offset if size else 0, byte_order)  # Nothing has no place.
    if dataset.bytes != size:
        raise ValueError(f"the values of {path!r} have another size than {shape}")
    return dataset


def _shape(dataspace: bytes) -> Shape | None:
    """The sides in a dataspace, None in one without values (IV.A.2.b)."""
    version, rank, _, space_type = dataspace[:4]
    if version not in (1, 2):
        raise ValueError(f"a shape has version {version}")
    if version == 2 and space_type == 2:
        return None
    return struct.unpack_from(f"<{rank}Q", dataspace, 8 if version == 1 else 4)


def _numbers() -> Iterator[tuple[bytes, tuple[str, str]]]:
    """How HDF5 describes the numbers that NumPy has as well (IV.A.2.d): byte order and dtype."""
    for order, code in enumerate("<>"):
        for size in (1, 2, 4, 8):
            for name, sign in (("uint", 0), ("int", 8)):
                description = struct.pack("<4BIHH", 0, order | sign, 0, 0, size, 0, 8 * size)
                yield description, (code, f"{name}{8 * size}")
        for size, exponent, mantissa in ((2, 5, 10), (4, 8, 23), (8, 11, 52)):
            bits, bias = 8 * size, 2 ** (exponent - 1) - 1
            places = (mantissa, exponent, 0, mantissa, bias)
            header = (1, 0x20 | order, bits - 1, 0, size, 0, bits)
            yield struct.pack("<4BIHH4BI", *header, *places), (code, f"float{bits}")


_NUMBERS = dict(_numbers())


def _number(message: _Message) -> tuple[str, str] | None:
    """The byte order and the dtype of a datatype, None for anything but a common number."""
    if message.shared:
        return None
    type_class = message.data[0] & 15
    # The version, in the upper half, changes nothing for numbers.
    description = bytes([type_class]) + message.data[1:]
    if type_class == _OPAQUE and description[4:8] == b"\2\0\0\0":
        return "<", "bfloat16"  # Which HDF5 has not; Keras stores two bytes without a meaning.
    return _NUMBERS.get(description[:12], _NUMBERS.get(description[:20]))


def _require_separate(datasets: dict[str, StoredArray], size: int) -> None:
    end = 0
    for path, dataset in sorted(datasets.items(), key=lambda item: item[1].offset):
        if not dataset.bytes:
            continue
        if not end <= dataset.offset <= size - dataset.bytes:
            raise ValueError(f"the values of {path!r} overlap others, or are after the end")
        end = dataset.offset + dataset.bytes


def _padded(size: int) -> int:
    return -(-size // 8) * 8
