"""What torch.save writes, read without PyTorch and without unpickling.

Since version 1.6 that is a zip of one pickle and a member per storage; before, it was a
stream of pickles, then the storages (`pytorch/pytorch`, `torch/serialization.py`,
`_save` and `_legacy_save`).
"""

import dataclasses
import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from bit_keras.archives import content_start, open_archive, verify_member
from bit_keras.checkpoints.files.array_file import (
    BinaryFile,
    ForeignError,
    StoredArray,
    damage_explained,
    in_native_dtype,
)
from bit_keras.checkpoints.files.pickle_program import (
    ADVICE,
    MOST_BYTES,
    PickleProgram,
    Storage,
    Tensor,
)

#: What the first two pickles of a stream are.
_MAGIC_NUMBER, _STREAM_VERSION = 0x1950A86A20F9469CFC6C, 1001

#: What every pickle begins with, from the second protocol on.
_PROTO = b"\x80"

_BYTE_ORDERS = {b"little": "<", b"big": ">"}

#: Where a tar has the word that marks it (POSIX, pax, "ustar Interchange Format").
_TAR_MARK_AT, _TAR_MARK = 257, b"ustar"

#: The one pickle in a zip.
_PICKLE = "data.pkl"

#: Names of weights are shorter; nesting makes longer ones.
_NAME_LENGTH = 250


class TorchFile(BinaryFile):
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

    file_format, expected = "PyTorch", "a file of torch.save"

    def _read_metadata(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._storages: dict[str, StoredArray] = {}
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._byte_order = "<"  # Of a stream, on every machine (`torch/csrc/serialization.cpp`).
        self._size = self.path.stat().st_size
        start = self._file.read(_TAR_MARK_AT + len(_TAR_MARK))
        self._file.seek(0)
        if start.startswith(b"PK"):
            program = self._read_zip()
        elif start.startswith(_PROTO):
            program = self._read_stream()
        elif start.endswith(_TAR_MARK):
            raise ForeignError(
                "is a tar, as the first versions of PyTorch wrote it. Load it there, and save it "
                "again with a newer one."
            )
        else:
            raise ForeignError(
                f"is not a file of torch.save: it begins with {start[:8]!r}, and neither with "
                f"b'PK' nor with {_PROTO!r}."
            )
        self._add_all(program)

    def _read_zip(self) -> PickleProgram:
        self._zip = open_archive(self._file)
        self._members = _members(self._zip)
        program = PickleProgram(io.BytesIO(self._zip.read(self._members[_PICKLE])))
        if "byteorder" in self._members:
            with self._zip.open(self._members["byteorder"]) as file:
                word = file.read(10)
            if word not in _BYTE_ORDERS:
                raise ValueError(f"its byte order is {word!r}")
            self._byte_order = _BYTE_ORDERS[word]
        for key, storage in program.storages.items():
            if f"data/{key}" not in self._members:
                raise ValueError(f"storage {key[:80]!r} is missing")
            member = self._members[f"data/{key}"]
            self._storages[key] = self._stored_at(content_start(self._zip, member), storage)
            if member.file_size != self._storages[key].bytes:
                raise ValueError(f"storage {key[:80]!r} has another size than its tensors say")
        return program

    def _read_stream(self) -> PickleProgram:
        if PickleProgram(self._file).result != _MAGIC_NUMBER:
            raise ForeignError(f"is a pickle, but not one of torch.save. {ADVICE}")
        if PickleProgram(self._file).result != _STREAM_VERSION:
            raise ValueError(f"its version is not {_STREAM_VERSION}")
        PickleProgram(self._file)  # The machine that wrote it, which nothing depends on.
        program = PickleProgram(self._file)
        keys = PickleProgram(self._file).result
        if not isinstance(keys, list) or keys != sorted(program.storages):
            raise ValueError("the storages after its pickles are not those that the tensors view")
        end = self._file.tell()
        for key in keys:
            storage = program.storages[key]
            self._file.seek(end)
            if self._file.read(8) != storage.count.to_bytes(8, "little"):
                raise ValueError(f"storage {key[:80]!r} has another size than its tensors say")
            self._storages[key] = self._stored_at(end + 8, storage)
            end += 8 + self._storages[key].bytes
        if end != self._size:
            raise ValueError(f"it has {self._size} bytes and not {end}")
        return program

    def _stored_at(self, offset: int, storage: Storage) -> StoredArray:
        return StoredArray((storage.count,), storage.dtype, offset, self._byte_order)

    def _add_all(self, program: PickleProgram) -> None:
        if not isinstance(program.result, dict | list | tuple):
            raise ForeignError(f"contains neither a dict nor a list. {ADVICE}")
        pending: list[tuple[str, Any]] = [("", program.result)]
        seen = 0
        while pending:
            name, value = pending.pop()
            if len(name) > _NAME_LENGTH:
                raise ForeignError(
                    f"has a name of {len(name) - 1:,} characters, {name[1:80]!r}..., and those of "
                    f"weights have fewer than {_NAME_LENGTH}. {ADVICE}"
                )
            if isinstance(value, Tensor):
                self._add_tensor(name[1:], value)
                continue
            # Each value takes a step to describe, and none to repeat: a list may be in many
            # others, and they in many others again.
            seen += len(value)
            if seen > program.steps:
                raise ForeignError(f"repeats its values too often. {ADVICE}")
            children = value.items() if isinstance(value, dict) else enumerate(value)
            pending += [
                (f"{name}/{key}", child)
                for key, child in reversed(list(children))
                if isinstance(child, Tensor | dict | list | tuple)
            ]

    def _add_tensor(self, name: str, tensor: Tensor) -> None:
        storage = self._storages[tensor.storage.key]
        begin = storage.offset + tensor.offset * storage.stored.itemsize
        array = dataclasses.replace(storage, shape=tensor.shape, offset=begin)
        # A stride of 0 repeats values without end.
        if array.bytes > self._size:
            raise ForeignError(
                f"repeats a few values to the shape {tensor.shape} of {name!r}, which is larger "
                "than the whole file; save a copy of it (Tensor.contiguous)."
            )
        self._add(name, array)
        self._tensors[name] = tensor

    def __getitem__(self, name: str) -> np.ndarray:
        tensor, stored = self._tensors[name], self._stored[name]
        with damage_explained(self.path, name):
            # From the first of the tensor to its last, in the order of the storage.
            values = self._values(dataclasses.replace(stored, shape=(tensor.span,)))
            member = self._members.get(f"data/{tensor.storage.key}")
            if (
                member
                and values.nbytes == member.file_size
                and zlib.crc32(values.data) != member.CRC
            ):
                raise ValueError("Bad CRC-32")
            values = in_native_dtype(values, stored.dtype)
            strides = [stride * values.itemsize for stride in tensor.strides]
            view = np.lib.stride_tricks.as_strided(values, tensor.shape, strides)
            return np.asarray(view, order="C")

    def verify(self) -> None:
        with damage_explained(self.path):
            for member in self._members.values():
                verify_member(self._zip, member)


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


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by their names within the one folder of a zip."""
    if len({member.filename.partition("/")[0] for member in archive.infolist()}) > 1:
        raise ForeignError(
            "has more than one folder; torch.save writes one. Get the file from a source you trust."
        )
    members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
    for name, member in members.items():
        if member.compress_type != zipfile.ZIP_STORED:
            raise ForeignError(
                f"has {name[:80]!r} compressed, and torch.save compresses nothing. {ADVICE}"
            )
    if _PICKLE not in members:
        raise ForeignError(f"is a zip, but not one of torch.save: it has no {_PICKLE}.")
    if "constants.pkl" in members:
        raise ForeignError(f"is a program of TorchScript (torch.jit.save). {ADVICE}")
    pickle = members[_PICKLE]
    if pickle.file_size > MOST_BYTES:
        raise ForeignError(
            f"has a pickle of {pickle.file_size:,} bytes, and that of weights has at most "
            f"{MOST_BYTES:,}. {ADVICE}"
        )
    if not pickle.CRC:
        raise ForeignError(
            "was written without checksums. Load it with PyTorch, and save it again after "
            "torch.serialization.set_crc32_options(True)."
        )
    return members
