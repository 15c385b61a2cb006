"""The pickles of torch.save, carried out by a small machine that can do nothing else.

A pickle is a program. This machine knows the instructions that describe tensors in
dicts and lists. Names of functions and classes are compared with a short list, and
nothing is ever imported or called. The instructions are those of the standard
library's `pickletools`; the functions are those of `pytorch/pytorch`, `torch/_utils.py`.
"""

import dataclasses
import pickletools
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from bit_keras.errors import CheckpointError
from bit_keras.registry import Shape

#: What one pickle may cost. A ResNet-152 with Adam's state takes 250 kB and 90,000 steps.
MOST_BYTES, _MOST_STEPS = 16 << 20, 500_000

#: What to do about whatever else than weights a file contains.
ADVICE = "Save only the weights: torch.save(model.state_dict(), path)."

#: Of a module and a name, each: longer ones are not names.
_NAME_BYTES = 1000

#: NumPy's limit, before version 2.
_MOST_DIMENSIONS = 32

_DTYPES = {
    "torch FloatStorage": "float32",
    "torch DoubleStorage": "float64",
    "torch HalfStorage": "float16",
    "torch BFloat16Storage": "bfloat16",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
}

_PLAIN = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "LONG1"}

_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}

_TUPLE_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclasses.dataclass(frozen=True)
class Storage:
    """Values in a row, which tensors view."""

    key: str
    dtype: str
    count: int

    @property
    def stored(self) -> np.dtype:
        """What NumPy calls the dtype, or one of as many bytes."""
        return np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)

    @property
    def bytes(self) -> int:
        return self.count * self.stored.itemsize


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where the values of a tensor are in its storage; strides count values."""

    storage: Storage
    offset: int
    shape: Shape
    strides: Shape

    @property
    def span(self) -> int:
        """How many values are between the first and the last, both included."""
        if 0 in self.shape:
            return 0
        sides = zip(self.shape, self.strides, strict=True)
        return 1 + sum((side - 1) * stride for side, stride in sides)


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


class PickleProgram:
    """What one pickle describes.

    Args:
        file: The open file, at the start of the pickle; it is left after the end.
        path: Path. What to call the file in errors.

    Attributes:
        result: The object: dicts by str, lists, tuples and numbers, and in them `Tensor`.
        storages: dict from key to `Storage`, of all that the tensors view.
        steps: int. How many instructions the pickle has.

    Raises:
        CheckpointError: The pickle requests what is not a part of a list of weights, or for
            too much.
        ValueError: It is damaged.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.storages: dict[str, Storage] = {}
        self.steps = 0
        self._path = path
        self._stack: list[Any] = []
        #: The stacks below each mark.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._run(_Source(file))
        if self._below or len(self._stack) != 1:
            raise ValueError("its pickle ends within a value")
        self.result = self._stack.pop()

    def _run(self, source: "_Source") -> None:
        # mypy's typeshed has a narrower file in mind than the two methods that are used.
        for opcode, argument, _ in pickletools.genops(source):  # type: ignore
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise CheckpointError(
                    f"{self._path} describes more than {_MOST_STEPS:,} things, and weights are "
                    f"fewer. {ADVICE}"
                )
            name = opcode.name
            if name in _PLAIN:
                self._stack.append(argument)
            elif name in _NEW:
                self._stack.append(_NEW[name]())
            elif name in _TUPLE_LENGTHS:
                items = [self._stack.pop() for _ in range(_TUPLE_LENGTHS[name])]
                self._stack.append(tuple(reversed(items)))
            elif name in _STEPS:
                _STEPS[name](self, argument)
            else:
                raise CheckpointError(
                    f"{self._path} has the pickle instruction {name}, which lists of weights do "
                    f"without; it was not run. {ADVICE}"
                )

    def _proto(self, version: int) -> None:
        if version != 2:
            raise CheckpointError(
                f"{self._path} is a pickle of protocol {version}, and torch.save writes protocol "
                f"2; it was not run. {ADVICE}"
            )

    def _mark(self, _: None) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _put(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _get(self, number: int) -> None:
        if number not in self._memo:
            raise ValueError(f"its pickle takes up what it never put down ({number})")
        self._stack.append(self._memo[number])

    def _tuple(self, _: None) -> None:
        items = self._pop_to_mark()
        self._stack.append(tuple(items))

    def _append(self, _: None) -> None:
        item = self._stack.pop()
        self._extend([item])

    def _appends(self, _: None) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("its pickle appends to what is not a list")
        self._stack[-1].extend(items)

    def _setitem(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _setitems(self, _: None) -> None:
        self._update(self._pop_to_mark())

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("its pickle sets an item of what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashes of other keys could cost a crash (nested tuples) or hours (large numbers).
            if not isinstance(key, str | int | float):
                raise CheckpointError(
                    f"{self._path} has a dict whose keys are neither text nor numbers. {ADVICE}"
                )
            if str(key) in target:
                raise ValueError(f"a dict has {str(key)[:80]!r} twice")
            target[str(key)] = value

    def _build(self, _: None) -> None:
        # The `_metadata` of a state dict, which says nothing of the values.
        state = self._stack.pop()
        if type(self._stack[-1]) is not OrderedDict or type(state) is not dict:
            raise CheckpointError(
                f"{self._path} sets the attributes of an object (BUILD), and lists of weights have "
                f"none; it was not run. {ADVICE}"
            )

    def _global(self, name: str) -> None:
        if name not in _FUNCTIONS and name not in _DTYPES:
            self._refuse(name)
        self._stack.append(_Global(name))

    def _refuse(self, name: str) -> NoReturn:
        raise CheckpointError(
            f"{self._path} requests {name.replace(' ', '.')[:80]!r}, which is not part of a list "
            f"of weights; it was not run. {ADVICE}"
        )

    def _reduce(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if type(function) is not _Global or type(arguments) is not tuple:
            raise ValueError("its pickle calls what is not a function")
        if function.name not in _FUNCTIONS:
            self._refuse(function.name)
        self._stack.append(_FUNCTIONS[function.name](self, *arguments))

    def _ordered_dict(self) -> OrderedDict[str, Any]:
        return OrderedDict()

    def _rebuild_tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
        if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
            raise ValueError("its pickle makes a tensor of what is not a storage")
        if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
            raise ValueError(f"a tensor has {len(shape)} sides and {len(strides)} strides")
        if not _are_sizes(offset, *shape, *strides):
            raise ValueError("a tensor has negative sizes, or what is not a size")
        # PyTorch lets an empty tensor begin anywhere.
        tensor = Tensor(storage, 0 if 0 in shape else offset, shape, strides)
        if tensor.offset + tensor.span > storage.count:
            raise ValueError(f"a tensor of shape {shape} reaches beyond its storage")
        return tensor

    def _rebuild_tensor_v2(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        requires_grad: Any,
        hooks: Any,
        metadata: Any = None,
    ) -> Tensor:
        if metadata:
            raise CheckpointError(
                f"{self._path} has a tensor that is stored with the other sign; save a copy of it "
                "(Tensor.resolve_neg)."
            )
        return self._rebuild_tensor(storage, offset, shape, strides)

    def _rebuild_parameter(self, tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
        if type(tensor) is not Tensor:
            raise ValueError("its pickle makes a parameter of what is not a tensor")
        return tensor

    def _persistent(self, _: None) -> None:
        match self._stack.pop():
            # The sixth is None, and only PyTorch's stream has it (`_legacy_save`).
            case ("storage", _Global(name), str(key), str(), count, *view) if name in _DTYPES:
                storage = Storage(key, _DTYPES[name], count)
            case ("module", *_):
                raise CheckpointError(
                    f"{self._path} contains a whole model, which only its program can read. "
                    f"{ADVICE}"
                )
            case _:
                raise ValueError("its pickle refers to what is not a storage")
        if view not in ([], [None]):
            raise CheckpointError(
                f"{self._path} has storages within storages, which only old versions of PyTorch "
                f"wrote. Load it there, and save it again. {ADVICE}"
            )
        if not _are_sizes(count) or self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:80]!r} has contradictory sizes or dtypes")
        self._stack.append(storage)


_STEPS: dict[str, Callable[[PickleProgram, Any], None]] = {
    "PROTO": PickleProgram._proto,
    "STOP": lambda program, _: None,
    "MARK": PickleProgram._mark,
    "BINPUT": PickleProgram._put,
    "LONG_BINPUT": PickleProgram._put,
    "BINGET": PickleProgram._get,
    "LONG_BINGET": PickleProgram._get,
    "TUPLE": PickleProgram._tuple,
    "APPEND": PickleProgram._append,
    "APPENDS": PickleProgram._appends,
    "SETITEM": PickleProgram._setitem,
    "SETITEMS": PickleProgram._setitems,
    "BUILD": PickleProgram._build,
    "GLOBAL": PickleProgram._global,
    "REDUCE": PickleProgram._reduce,
    "BINPERSID": PickleProgram._persistent,
}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": PickleProgram._ordered_dict,
    "torch._utils _rebuild_tensor": PickleProgram._rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": PickleProgram._rebuild_tensor_v2,
    "torch._utils _rebuild_parameter": PickleProgram._rebuild_parameter,
}


class _Source:
    """A file that gives `pickletools` no more than a pickle of weights has.

    A pickle names the lengths of its strings, up to 16 exabytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MOST_BYTES

    def read(self, count: int) -> bytes:
        self._left -= count
        if self._left < 0:
            raise ValueError(f"its pickle has more than {MOST_BYTES >> 20} MB")
        return self._file.read(count)

    def readline(self) -> bytes:
        line = self._file.readline(_NAME_BYTES)
        # `pickletools` would undo escapes, which `pickle` takes as they are.
        if b"\\" in line:
            raise ValueError("its pickle has a backslash in a name")
        return line


def _are_sizes(*values: Any) -> bool:
    """Whether all are whole numbers from 0 on that fit into 63 bits, as in PyTorch."""
    return all(type(value) is int and 0 <= value < 1 << 63 for value in values)
