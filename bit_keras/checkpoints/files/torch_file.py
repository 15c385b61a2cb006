"""What torch.save writes, read without PyTorch and without unpickling.

Since version 1.6 that is a zip of one pickle and a member per storage; before, it was a
stream of pickles with the storages behind (`pytorch/pytorch`, `torch/serialization.py`,
`_save` and `_legacy_save`).
"""

import abc
import dataclasses
import io
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from bit_keras.checkpoints.files.array_file import (
    ArrayFile,
    damage_explained,
    float32_of_bfloat16,
    require_file,
)
from bit_keras.checkpoints.files.pickle_program import (
    ADVICE,
    MOST_BYTES,
    MOST_STEPS,
    PickleProgram,
    Storage,
    Tensor,
)
from bit_keras.errors import CheckpointError

#: The first and the second pickle of a stream, and what all pickles begin with.
_MAGIC_NUMBER, _STREAM_VERSION, _PICKLE_START = 0x1950A86A20F9469CFC6C, 1001, b"\x80"

#: Longer names, which nesting makes, are no names of weights.
_NAME_LENGTH = 250

#: Where the local header of a zip's member has the lengths of its last two fields (PKWARE,
#: APPNOTE.TXT, 4.3.7), and where these fields begin.
_LENGTHS_AT, _HEADER_BYTES = 26, 30


class TorchFile(ArrayFile):
    """The tensors in a file of torch.save, such as a state dict or a training checkpoint.

    Names are the keys on the way to a tensor, joined by `"/"`; what is no tensor is
    passed over. The pickle in the file is read by a machine that knows tensors, dicts,
    lists and numbers alone, and can run nothing. NumPy has no bfloat16: such a tensor is
    read as float32, which holds every value of it.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is not one of torch.save, is damaged, or holds anything
            but tensors, numbers and text in dicts and lists.

    Example:

    ```python
    import torch
    torch.save({"step": 3, "model": {"head.weight": torch.zeros(10, 64)}}, "bit.pth.tar")
    with bit_keras.checkpoints.files.TorchFile("bit.pth.tar") as arrays:
        print(arrays.shapes)  # {'model/head.weight': (10, 64)}
    ```
    """

    kind = "PyTorch"

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        require_file(self.path, "a file of torch.save")
        self._tensors: dict[str, Tensor] = {}
        self._places: dict[str, _Place] = {}
        self._file = self.path.open("rb")
        try:
            with damage_explained(self.path):
                self._size = os.fstat(self._file.fileno()).st_size
                self._container = _container(self.path, self._file)
                self._add_all(self._container.content)
        except BaseException:
            self._file.close()
            raise

    def _add_all(self, content: object) -> None:
        pending, values = [("", content)], 0
        while pending:
            name, value = pending.pop()
            if isinstance(value, Tensor):
                self._add(name, value)
                continue
            children = value.items() if isinstance(value, dict) else enumerate(value)
            values += len(value)
            # Lists may hold each other, and themselves.
            if values > MOST_STEPS or len(name) > _NAME_LENGTH:
                raise CheckpointError(
                    f"{self.path} nests its values too deeply, or repeats them too often "
                    f"({name[:80]!r}...). {ADVICE}"
                )
            pending += [
                (f"{name}/{key}" if name else str(key), child)
                for key, child in reversed(list(children))
                if isinstance(child, Tensor | dict | list | tuple)
            ]

    def _add(self, name: str, tensor: Tensor) -> None:
        ...
