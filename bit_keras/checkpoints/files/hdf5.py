"""HDF5 files with the weights of tf.keras (Keras 2), and datasets in HDF5 as such.

The names in such files are not to be relied on. They come from the scopes in which the
variables were made, and those differ by version of TensorFlow: the same network gives
`block1/unit01/a/group_norm/gamma:0` or `group_norm/gamma:0`. What does not differ is
the order, which the file keeps in attributes.

HDF5 of this kind has no checksums. What contradicts itself or the size of the file is
refused; a changed value, or a place that was moved to where nothing else lies, cannot
be seen.
"""

import dataclasses
import io
import itertools
import math
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from bit_keras.checkpoints.files.array_file import (
    ArrayFile,
    damage_explained,
    float32_of_bfloat16,
    require_file,
)
from bit_keras.errors import CheckpointError
from bit_keras.registry import Shape

#: HDF5 may also begin further on; Keras never writes that.
_SIGNATURE = b"\x89HDF\r\n\x1a\n"

#: The layers' names, in a file with nothing but weights and in one with a whole model
#: (`keras-team/tf-keras`, saving/legacy/hdf5_format.py).
_LAYERS, _WHOLE_MODEL = "layer_names", "model_weights"

#: The weights that a model has besides those of its layers.
_OWN_WEIGHTS = "top_level_model_weights"

#: Messages in the header of a group: an attribute, and where more messages are.
_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10

#: Keras removes no names, and so leaves one gap in a heap: the space at its end.
_GAPS = 100

#: Far more than the names of the largest network take: bytes of one, and of all of them
#: with what lies between them.
_NAME_BYTES, _HEAP_BYTES = 4_096, 16_000_000


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Where the values of an array lie in HDF5, one behind the other.

    Attributes:
        shape: tuple of int.
        dtype: str. For example `"float32"`.
        stored: np.dtype. As what the values are read.
        offset: int. Bytes from where HDF5 begins.
    """

    shape: Shape
    dtype: str
    stored: np.dtype
    offset: int

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.stored.itemsize


class DatasetFile(ArrayFile):
    """Arrays that lie as HDF5 datasets in a file; their values are read without HDF5.

    Args:
        path: The file.
        expected: str. What it should be, for example `"an HDF5 file"`.
    """

    def __init__(self, path: str | os.PathLike, expected: str) -> None:
        super().__init__(path)
        require_file(self.path, expected)
        self._datasets: dict[str, Dataset] = {}
        self._file = self.path.open("rb")
        #: Where HDF5 begins in the file, and its bytes.
        self._start, self._size = 0, self.path.stat().st_size

    def _hdf5(self) -> h5py.File:
        """The metadata, to be closed by the caller."""
        # The library could not begin inside a file, and would lock one that it opens.
        return h5py.File(_Part(self._file, self._start, self._size), "r")

    def _datasets_below(self, root: h5py.Group) -> dict[str, Dataset]:
        """Every dataset below a group, by its path there; links are refused."""
        found, groups, seen = {}, [("", root)], {_address(root)}
        while groups:
            prefix, group = groups.pop()
            for name in group:
                path = prefix + name
                item = self._child(group, name, path)
                if _address(item) in seen:
                    raise ValueError(f"{path!r} is there under another name as well")
                seen.add(_address(item))
                if isinstance(item, h5py.Dataset):
                    found[path] = self._described(path, item)
                else:
                    groups.append((f"{path}/", item))
        _require_separate(found, self._size)
        return found

    def _child(self, group: h5py.Group, name: str, path: str) -> h5py.Group | h5py.Dataset:
        # A slash or a dot would be looked up somewhere else.
        if name in ("", ".") or "/" in name or not name.isprintable():
            raise ValueError(f"it has an entry {path!r}, which no name can be")
        if name not in group:
            raise ValueError(f"it has no entry {path!r}")
        if group.get(name, getclass=True, getlink=True) is not h5py.HardLink:
            raise CheckpointError(
                f"{self.path} holds {path!r}, which is a link to somewhere else; get the file "
                "from a source you trust."
            )
        item = group[name]
        if not isinstance(item, h5py.Group | h5py.Dataset):
            raise ValueError(f"{path!r} is neither a group nor a dataset")
        return item

    def _described(self, path: str, dataset: h5py.Dataset) -> Dataset:
        creation = dataset.id.get_create_plist()
        if creation.get_layout() != h5py.h5d.CONTIGUOUS or creation.get_external_count():
            raise CheckpointError(
                f"{self.path} holds the values of {path!r} compressed, in chunks or in another "
                "file; save the weights with Keras, which writes them in one piece."
            )
        stored, shape = dataset.dtype, dataset.shape
        # What HDF5 has no number for, Keras stores as two bytes without a meaning.
        bfloat16 = stored == np.dtype("V2")
        # Equal, not of equal size: HDF5 also describes numbers that no other library has.
        same = dataset.id.get_type().equal(h5py.h5t.py_create(stored, logical=True))
        if not (bfloat16 or stored.kind in "fiub") or not same or shape is None:
            raise CheckpointError(
                f"{self.path} holds values in {path!r} that are no numbers of a common type; "
                "save the weights as float32."
            )
        described = Dataset(
            shape=shape,
            dtype="bfloat16" if bfloat16 else stored.name,
            stored=np.dtype("<u2") if bfloat16 else stored,
            offset=dataset.id.get_offset() or 0,
        )
        if dataset.id.get_storage_size() != described.bytes:
            raise ValueError(f"the values of {path!r} have another size than {shape}")
        return described

    def _add(self, name: str, dataset: Dataset) -> None:
        if name in self._datasets:
            raise CheckpointError(f"{self.path} holds the array {name!r} twice.")
        self._datasets[name] = dataset
        self.shapes[name], self.dtypes[name] = dataset.shape, dataset.dtype

    def __getitem__(self, name: str) -> np.ndarray:
        dataset = self._datasets[name]
        with damage_explained(self.path, name):
            array = np.empty(dataset.shape, dataset.stored)
            self._file.seek(self._start + dataset.offset)
            if self._file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise EOFError
        if dataset.dtype == "bfloat16":
            return float32_of_bfloat16(array)
        return array.astype(dataset.stored.newbyteorder("="), copy=False)

    def close(self) -> None:
        self._file.close()


class Hdf5File(DatasetFile):
    """The weights in an HDF5 file of tf.keras, in the order in which it saved them.

    Files of `save_weights` are read, and those of whole models. A name is the path of
    the dataset below the weights: that of the layer, then that of the weight.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is no HDF5, is damaged, holds no weights of tf.keras
            or more than its attributes name, or holds values in another way than
            Keras writes them.
    """

    kind = "tf.keras h5"

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path, "an HDF5 file")
        try:
            with damage_explained(self.path):
                self._read_metadata()
        except BaseException:
            self.close()
            raise

    def _read_metadata(self) -> None:
        if not is_hdf5(self.path):
            raise CheckpointError(f"{self.path} is not an HDF5 file.")
        with self._hdf5() as root:
            self._heaps = _HeapTexts(_Part(self._file, self._start, self._size))
            if not _has_names(root, _LAYERS) and _WHOLE_MODEL in root:
                root = self._group(root, _WHOLE_MODEL)
            if not _has_names(root, _LAYERS):
                raise CheckpointError(
                    f"{self.path} is an HDF5 file without the attribute {_LAYERS!r}, so it holds "
                    "no weights of tf.keras; give a file that its `save_weights` wrote."
                )
            found = self._datasets_below(root)
            for name in self._names_in_order(root):
                if name not in found:
                    raise ValueError(f"it names a weight {name!r} that is not there")
                self._add(name, found[name])
        unnamed = found.keys() - self._datasets.keys()
        if unnamed:
            raise CheckpointError(
                f"{self.path} holds {min(unnamed)!r}, which its attributes do not name; only "
                "files as tf.keras writes them are read."
            )

    def _names_in_order(self, root: h5py.Group) -> Iterator[str]:
        layers = self._names(root, _LAYERS)
        if _OWN_WEIGHTS in root and _OWN_WEIGHTS not in layers:
            layers.append(_OWN_WEIGHTS)
        for layer in layers:
            for weight in self._names(self._group(root, layer), "weight_names"):
                yield f"{layer}/{weight}"

    def _group(self, root: h5py.Group, path: str) -> h5py.Group:
        group = root
        for name in path.split("/"):
            group = self._child(group, name, path)
            if not isinstance(group, h5py.Group):
                raise ValueError(f"{path!r} is no group")
        return group

    def _names(self, group: h5py.Group, attribute: str) -> list[str]:
        """A list of names, which Keras splits where it is longer than the 64 kB of a header."""
        if attribute in group.attrs:
            return self._texts(group, attribute)
        texts = self._texts(group, f"{attribute}0")
        for part in itertools.count(1):
            if f"{attribute}{part}" not in group.attrs:
                break
            texts += self._texts(group, f"{attribute}{part}")
        return texts

    def _texts(self, group: h5py.Group, attribute: str) -> list[str]:
        identifier = group.attrs.get_id(attribute)
        # A list without entries has no texts to take its type from, and is one of numbers.
        if identifier.shape == (0,):
            return []
        text = h5py.check_string_dtype(identifier.dtype)
        if len(identifier.shape or ()) != 1 or text is None:
            raise ValueError(f"the attribute {attribute!r} of {group.name!r} is no list of names")
        if text.length is None:
            return self._heaps.of(_address(group), attribute, identifier.shape[0])
        return [name.decode() for name in group.attrs[attribute]]

    def verify(self) -> None:
        """Does nothing: such files have no checksums, and opening has compared all places."""


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by its content."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE


class _Part(io.RawIOBase):
    """A part of a file, as a file of its own in which the HDF5 library reads.

    The library takes all the memory there is where the list of gaps in a heap of names
    leads into itself, so that list is looked at before (HDF5 File Format Specification,
    version 3.0, III.D; the library reads each heap by itself).
    """

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = origins[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._bytes(self._position, len(buffer))
        if data.startswith(b"HEAP"):
            self._require_sound_heap(*struct.unpack_from("<8xQQQ", data))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _bytes(self, begin: int, count: int) -> bytes:
        self._file.seek(self._start + min(begin, self._size))
        return self._file.read(max(0, min(count, self._size - begin)))

    def _require_sound_heap(self, size: int, gap: int, address: int) -> None:
        for _ in range(_GAPS):
            if gap == 1:  # The end of the list.
                return
            if gap + 16 > size:
                break
            gap = int.from_bytes(self._bytes(address + gap, 8), "little")
        raise ValueError("the gaps in a heap of names lead nowhere")


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _require_separate(datasets: Mapping[str, Dataset], size: int) -> None:
    end = 0
    for path, dataset in sorted(datasets.items(), key=lambda item: item[1].offset):
        if not dataset.bytes:
            continue
        if not end <= dataset.offset <= size - dataset.bytes:
            raise ValueError(f"the values of {path!r} lie where others do, or behind the end")
        end = dataset.offset + dataset.bytes


def _has_names(group: h5py.Group, attribute: str) -> bool:
    return attribute in group.attrs or f"{attribute}0" in group.attrs


class _HeapTexts:
    """Texts of any length in attributes, read without the HDF5 library.

    One wrong bit makes the library (HDF5 1.14.6) run for ever or take gigabytes.
    The layout is that of the HDF5 File Format Specification, version 3.0: object
    headers of version 1 (IV.A.1.a), attributes (IV.A.2.m), global heaps (III.E).

    Args:
        file: An HDF5 file.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self._heaps: dict[int, dict[int, bytes]] = {}
        self._left = _HEAP_BYTES

    def of(self, header: int, attribute: str, count: int) -> list[str]:
        """The texts in an attribute of the object with a header."""
        data = self._attribute(header, attribute.encode())
        if len(data) < 16 * count:
            raise ValueError(f"the attribute {attribute!r} ends too early")
        return [self._text(*struct.unpack_from("<IQI", data, 16 * at)) for at in range(count)]

    def _read(self, address: int, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"its names take more than {_HEAP_BYTES} bytes")
        self._file.seek(address)
        data = self._file.read(size) or b""
        if len(data) < size:
            raise EOFError
        return data

    def _attribute(self, header: int, name: bytes) -> bytes:
        version, size = struct.unpack("<B7xI4x", self._read(header, 16))
        if version != 1:
            raise ValueError(f"a header has version {version}, which tf.keras does not write")
        blocks = [(header + 16, size)]
        for block in blocks:
            for kind, message in _messages(self._read(*block)):
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", message))
                elif kind == _ATTRIBUTE:
                    found, data = _named_data(message)
                    if found == name:
                        return data
        raise ValueError(f"the attribute {name.decode()!r} has no values")

    def _text(self, length: int, address: int, index: int) -> str:
        if address not in self._heaps:
            self._heaps[address] = self._heap(address)
        data = self._heaps[address].get(index, b"")
        if len(data) != length or length > _NAME_BYTES:
            raise ValueError(f"a name of {length} bytes has {len(data)}")
        return data.decode()

    def _heap(self, address: int) -> dict[int, bytes]:
        signature, size = struct.unpack("<4s4xQ", self._read(address, 16))
        if signature != b"GCOL" or size < 16:
            raise ValueError("its names are not where its attributes say")
        heap, texts, begin = self._read(address + 16, size - 16), {}, 0
        while begin + 16 <= len(heap):
            index, length = struct.unpack_from("<H6xQ", heap, begin)
            if index == 0:  # The free space, which is the end.
                break
            begin += 16
            texts[index] = heap[begin : begin + length]
            begin += _padded(length)
        return texts


def _messages(block: bytes) -> Iterator[tuple[int, bytes]]:
    begin = 0
    while begin + 8 <= len(block):
        kind, size = struct.unpack_from("<HH", block, begin)
        begin += 8
        yield kind, block[begin : begin + size]
        begin += size


def _named_data(message: bytes) -> tuple[bytes, bytes]:
    """The name and the data of an attribute, which stand in front of and behind its type."""
    version, *sizes = struct.unpack_from("<BxHHH", message)
    begin = 9 if version == 3 else 8
    name = message[begin : begin + sizes[0]].rstrip(b"\0")
    return name, message[begin + sum(map(_padded, sizes) if version == 1 else sizes) :]


def _padded(size: int) -> int:
    return -(-size // 8) * 8
