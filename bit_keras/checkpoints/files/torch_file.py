"""What torch.save writes, read without PyTorch and without unpickling.

Since version 1.6 that is a zip of one pickle and a member per storage; before, it was a
stream of pickles, then the storages (`pytorch/pytorch`, `torch/serialization.py`,
`_save` and `_legacy_save`).
"""

import dataclasses
import io
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from bit_keras.archives import open_archive
from bit_keras.checkpoints.files.array_file import (
    ArrayFile,
    damage_explained,
    float32_of_bfloat16,
    require_file,
)
from bit_keras.checkpoints.files.pickle_program import (
    ADVICE,
    MOST_BYTES,
    PickleProgram,
    Storage,
    Tensor,
)
from bit_keras.errors import CheckpointError

#: What the first two pickles of a stream are.
_MAGIC_NUMBER, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001

#: What every pickle begins with, from the second protocol on.
_PROTO = b"\x80"

_ByteOrder = Literal["<", ">"]

_BYTE_ORDERS: dict[bytes, _ByteOrder] = {b"little": "<", b"big": ">"}

#: The one pickle in a zip.
_PICKLE = "data.pkl"

#: Names of weights are shorter; nesting makes longer ones.
_NAME_LENGTH = 250

#: The local header of a zip's member: its length without the name and the extra field, and
#: where their lengths are (PKWARE, APPNOTE.TXT, 4.3.7).
_HEADER_BYTES, _LENGTHS_AT = 30, 26

#: Where a tar has the word that marks it (POSIX, pax, "ustar Interchange Format").
_TAR_MARK_AT, _TAR_MARK = 257, b"ustar"


class TorchFile(ArrayFile):
    """The tensors in a file of torch.save, such as a state dict or a training checkpoint.

    Names are the keys on the way to a tensor, joined by `"/"`; what is not a tensor is
    passed over. The pickle in the file is read by a machine that knows only tensors, dicts,
    lists and numbers, and can run nothing. NumPy has no bfloat16: such a tensor is
    read as float32, which contains every value of it.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is not one of torch.save, is damaged, or contains anything
            but tensors, numbers and text in dicts and lists.

    Example:

    ```python
    import torch
    torch.save({"step": 3, "model": {"head.weight": torch.zeros(10, 64)}}, "bit.pth.tar")
    with bit_keras.checkpoints.files.TorchFile("bit.pth.tar") as arrays:
        print(arrays.shapes)  # {'model/head.weight': (10, 64)}
    ```
    """

    file_format = "PyTorch"

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        require_file(self.path, "a file of torch.save")
        self._tensors: dict[str, Tensor] = {}
        self._file = self.path.open("rb")
        try:
            with damage_explained(self.path):
                self._container = _container(self.path, self._file)
                self._add_all(self._container.program)
        except BaseException:
            self.close()
            raise

    def _add_all(self, program: PickleProgram) -> None:
        if not isinstance(program.result, dict | list | tuple):
            raise CheckpointError(f"{self.path} contains neither a dict nor a list. {ADVICE}")
        pending: list[tuple[str, Any]] = [("", program.result)]
        seen = 0
        while pending:
            name, value = pending.pop()
            if len(name) > _NAME_LENGTH:
                raise CheckpointError(
                    f"{self.path} has a name of {len(name) - 1:,} characters, {name[1:80]!r}..., "
                    f"and those of weights have fewer than {_NAME_LENGTH}. {ADVICE}"
                )
            if isinstance(value, Tensor):
                self._add(name[1:], value)
                continue
            # Each value takes a step to describe, and none to repeat: a list may be in many
            # others, and they in many others again.
            seen += len(value)
            if seen > program.steps:
                raise CheckpointError(f"{self.path} repeats its values too often. {ADVICE}")
            children = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [
                (f"{name}/{key}", child)
                for key, child in reversed(list(children))
                if isinstance(child, Tensor | dict | list | tuple)
            ]

    def _add(self, name: str, tensor: Tensor) -> None:
        if name in self._tensors:
            raise CheckpointError(f"{self.path} contains the array {name!r} twice.")
        with damage_explained(self.path, name):
            self._container.place(tensor.storage)
        # A stride of 0 repeats values without end.
        if math.prod(tensor.shape) * tensor.storage.stored.itemsize > _size(self._file):
            raise CheckpointError(
                f"{self.path} repeats a few values to the shape {tensor.shape} of {name!r}, which "
                "is larger than the whole file; save a copy of it (Tensor.contiguous)."
            )
        self._tensors[name] = tensor
        self.shapes[name], self.dtypes[name] = tensor.shape, tensor.storage.dtype

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        with damage_explained(self.path, name):
            values = self._read(tensor)
            if _is_contiguous(tensor):
                return values.reshape(tensor.shape)
            strides = [stride * values.itemsize for stride in tensor.strides]
            return np.lib.stride_tricks.as_strided(values, tensor.shape, strides).copy()

    def _read(self, tensor: Tensor) -> np.ndarray:
        """The values from the first of a tensor to its last, in the order of the storage."""
        storage, place = tensor.storage, self._container.place(tensor.storage)
        stored = storage.stored.newbyteorder(self._container.byte_order)
        self._file.seek(place.start + tensor.offset * stored.itemsize)
        values = np.empty(tensor.span, stored)
        if self._file.readinto(values.view(np.uint8).data) != values.nbytes:
            raise ValueError("it ends too early")
        if len(values) == storage.count and place.crc not in (None, zlib.crc32(values.data)):
            raise ValueError("Bad CRC-32")
        # Torch takes no array of the other byte order.
        values = values.astype(stored.newbyteorder("="), copy=False)
        return float32_of_bfloat16(values) if storage.dtype == "bfloat16" else values

    def verify(self) -> None:
        with damage_explained(self.path):
            self._container.verify()

    def close(self) -> None:
        self._file.close()


def is_torch_file(path: Path) -> bool:
    """Whether a file is a zip as torch.save writes it, or begins with a pickle."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"PK"):
        try:
            with open_archive(path) as archive:
                return any(name.endswith(f"/{_PICKLE}") for name in archive.namelist())
        except zipfile.BadZipFile:
            return False
    # A safetensors may begin so too, with the length of its header in eight bytes.
    return start.startswith(_PROTO) and start[4:] != bytes(4)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the values of a storage begin in the file, and their checksum."""

    start: int
    crc: int | None = None


class _Stream:
    """What PyTorch wrote before version 1.6: pickles, then the storages."""

    #: On every machine (`pytorch/pytorch`, `torch/csrc/serialization.cpp`).
    byte_order: _ByteOrder = "<"

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        if PickleProgram(file, path).result != _MAGIC_NUMBER:
            raise CheckpointError(f"{path} is a pickle, but not one of torch.save. {ADVICE}")
        if PickleProgram(file, path).result != _STREAM_VERSION:
            raise ValueError(f"its version is not {_STREAM_VERSION}")
        PickleProgram(file, path)  # The machine that wrote it, which nothing depends on.
        self.program = PickleProgram(file, path)
        keys = PickleProgram(file, path).result
        self._places = _places_after(file, keys, self.program.storages)

    def place(self, storage: Storage) -> _Place:
        return self._places[storage.key]

    def verify(self) -> None:
        """Does nothing: the format has no checksums."""


class _Zip:
    """What PyTorch writes since version 1.6: a zip with a member for every storage."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._file = file
        try:
            self._zip = open_archive(file)
        except zipfile.BadZipFile as error:
            raise CheckpointError(f"{path} is damaged ({error}). Download it again.") from error
        self._members = _members(path, self._zip)
        self._places: dict[str, _Place] = {}
        pickle = self._zip.read(self._members[_PICKLE])
        self.program = PickleProgram(io.BytesIO(pickle), path)
        self.byte_order = self._read_byte_order()

    def _read_byte_order(self) -> _ByteOrder:
        if "byteorder" not in self._members:
            return "<"
        with self._zip.open(self._members["byteorder"]) as file:
            word = file.read(10)
        if word not in _BYTE_ORDERS:
            raise ValueError(f"its byte order is {word!r}")
        return _BYTE_ORDERS[word]

    def place(self, storage: Storage) -> _Place:
        if storage.key not in self._places:
            self._places[storage.key] = self._find(storage)
        return self._places[storage.key]

    def _find(self, storage: Storage) -> _Place:
        member = self._members.get(f"data/{storage.key}")
        if member is None or member.file_size != storage.bytes:
            raise ValueError(f"storage {storage.key[:80]!r} is missing or has another size")
        self._zip.open(member).close()  # Compares the two headers.
        self._file.seek(member.header_offset + _LENGTHS_AT)
        start = member.header_offset + _HEADER_BYTES
        start += sum(struct.unpack("<HH", self._file.read(4)))
        if start + storage.bytes > _size(self._file):
            raise ValueError(f"storage {storage.key[:80]!r} reaches beyond the end")
        return _Place(start, member.CRC)

    def verify(self) -> None:
        for member in self._members.values():
            with self._zip.open(member) as file:
                while file.read(1 << 20):
                    pass


def _container(path: Path, file: IO[bytes]) -> _Zip | _Stream:
    start = file.read(_TAR_MARK_AT + len(_TAR_MARK))
    file.seek(0)
    if start.startswith(b"PK"):
        return _Zip(path, file)
    if start.startswith(_PROTO):
        return _Stream(path, file)
    if start.endswith(_TAR_MARK):
        raise CheckpointError(
            f"{path} is a tar, as the first versions of PyTorch wrote it. Load it there, and save "
            "it again with a newer one."
        )
    raise CheckpointError(
        f"{path} is not a file of torch.save: it begins with {start[:8]!r}, and neither with "
        f"b'PK' nor with {_PROTO!r}."
    )


def _places_after(file: IO[bytes], keys: object, storages: dict[str, Storage]) -> dict[str, _Place]:
    """Where the storages of a stream are, each after the number of its values."""
    if not isinstance(keys, list) or keys != sorted(storages):
        raise ValueError("the storages after its pickles are not those that the tensors view")
    places, end = {}, file.tell()
    for key in keys:
        file.seek(end)
        if file.read(8) != storages[key].count.to_bytes(8, "little"):
            raise ValueError(f"storage {key[:80]!r} has another size than its tensors say")
        places[key] = _Place(end + 8)
        end += 8 + storages[key].bytes
    if end != _size(file):
        raise ValueError(f"it has {_size(file)} bytes and not {end}")
    return places


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names within the one folder of a zip."""
    members: dict[str, zipfile.ZipInfo] = {}
    folders = {member.filename.partition("/")[0] for member in archive.infolist()}
    for member in archive.infolist():
        name = member.filename.partition("/")[2]
        if len(folders) > 1:
            raise CheckpointError(
                f"{path} has more than one folder; torch.save "
                "writes one. Get the file from a source you trust."
            )
        if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
            raise CheckpointError(
                f"{path} has {name[:80]!r} compressed, and torch.save compresses nothing. {ADVICE}"
            )
        members[name] = member
    _require_weights(path, members)
    return members


def _require_weights(path: Path, members: dict[str, zipfile.ZipInfo]) -> None:
    if _PICKLE not in members:
        raise CheckpointError(f"{path} is a zip, but not one of torch.save: it has no {_PICKLE}.")
    if "constants.pkl" in members:
        raise CheckpointError(f"{path} is a program of TorchScript (torch.jit.save). {ADVICE}")
    if members[_PICKLE].file_size > MOST_BYTES:
        raise CheckpointError(
            f"{path} has a pickle of {members[_PICKLE].file_size:,} bytes, and that of weights has "
            f"at most {MOST_BYTES:,}. {ADVICE}"
        )
    if not members[_PICKLE].CRC:
        raise CheckpointError(
            f"{path} was written without checksums. Load it with PyTorch, and save it again after "
            "torch.serialization.set_crc32_options(True)."
        )


def _is_contiguous(tensor: Tensor) -> bool:
    expected = 1
    for side, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if side != 1 and stride != expected:
            return tensor.span == 0
        expected *= side
    return True


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size
