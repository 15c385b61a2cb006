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
from typing import IO, Any

from bit_keras.checkpoints.files.array_file import ForeignError
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

#: Instructions that put their argument on the stack, or a new object.
_PLAIN = {"BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "LONG1"}
_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """Values in a row, which tensors view."""

    key: str
    dtype: str
    count: int


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

    Attributes:
        result: The object: dicts by str, lists, tuples and numbers, and in them `Tensor`.
        storages: dict from key to `Storage`, of all that the tensors view.
        steps: int. How many instructions the pickle has.

    Raises:
        ForeignError: The pickle requests what is not a part of a list of weights, or for
            too much.
        ValueError: It is damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.storages: dict[str, Storage] = {}
        self.steps = 0
        self._stack: list[Any] = []
        #: The stacks below each mark.
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        # mypy's typeshed has a narrower file in mind than the two methods that are used.
        for opcode, argument, _ in pickletools.genops(_Source(file)):  # type: ignore
            self.steps += 1
            if self.steps > _MOST_STEPS:
                raise _foreign(f"describes more than {_MOST_STEPS:,} things, and weights are fewer")
            self._step(opcode.name, argument)
        if self._below or len(self._stack) != 1:
            raise ValueError("its pickle ends within a value")
        self.result = self._stack.pop()

    def _step(self, instruction: str, argument: Any) -> None:
        stack = self._stack
        match instruction:
            case name if name in _PLAIN:
                stack.append(argument)
            case name if name in _NEW:
                stack.append(_NEW[name]())
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                if argument not in self._memo:
                    raise ValueError(f"its pickle takes up what it never put down ({argument})")
                stack.append(self._memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._popped(int(instruction[-1]))))
            case "TUPLE":
                items = self._popped_to_mark()
                self._stack.append(tuple(items))
            case "APPEND":
                self._extend(self._popped(1))
            case "APPENDS":
                self._extend(self._popped_to_mark())
            case "SETITEM":
                self._update(self._popped(2))
            case "SETITEMS":
                self._update(self._popped_to_mark())
            case "GLOBAL":
                stack.append(_global(argument))
            case "REDUCE":
                stack.append(_called(*self._popped(2)))
            case "BUILD":
                self._build(stack.pop())
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "PROTO" if argument != 2:
                raise _refusal(
                    f"is a pickle of protocol {argument}, and torch.save writes protocol 2"
                )
            case "PROTO" | "STOP":
                pass
            case _:
                raise _refusal(
                    f"has the pickle instruction {instruction}, which lists of weights do without"
                )

    def _popped(self, count: int) -> list[Any]:
        return [self._stack.pop() for _ in range(count)][::-1]

    def _popped_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise ValueError("its pickle appends to what is not a list")
        self._stack[-1].extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("its pickle sets an item of what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashes of other keys could cost a crash (nested tuples) or hours (large numbers).
            if not isinstance(key, str | int | float):
                raise _foreign("has a dict whose keys are neither text nor numbers")
            if str(key) in target:
                raise ValueError(f"a dict has {str(key)[:80]!r} twice")
            target[str(key)] = value

    def _build(self, state: Any) -> None:
        # The `_metadata` of a state dict, which says nothing of the values.
        if type(self._stack[-1]) is not OrderedDict or type(state) is not dict:
            raise _refusal(
                "sets the attributes of an object (BUILD), and lists of weights have none"
            )

    def _storage(self, reference: Any) -> Storage:
        match reference:
            case ("storage", _Global(name), str(key), str(), count, *view) if name in _DTYPES:
                storage = Storage(key, _DTYPES[name], count)
            case _:
                raise ValueError("its pickle refers to what is not a storage")
        if view not in ([], [None]):  # The stream of PyTorch has None (`_legacy_save`).
            raise _foreign(
                "has storages within storages, which only old versions of PyTorch wrote. Load it "
                "there, and save it again"
            )
        if not _are_sizes(count) or self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key[:80]!r} has contradictory sizes or dtypes")
        return storage


def _foreign(what: str) -> ForeignError:
    return ForeignError(f"{what}. {ADVICE}")


def _refusal(what: str) -> ForeignError:
    return _foreign(f"{what}; it was not run")


def _unknown(name: str) -> ForeignError:
    shown = name.replace(" ", ".")[:80]
    return _refusal(f"requests {shown!r}, which is not part of a list of weights")


def _global(name: str) -> _Global:
    if name not in _FUNCTIONS and name not in _DTYPES:
        raise _unknown(name)
    return _Global(name)


def _called(function: Any, arguments: Any) -> Any:
    if type(function) is not _Global or type(arguments) is not tuple:
        raise ValueError("its pickle calls what is not a function")
    if function.name not in _FUNCTIONS:
        raise _unknown(function.name)
    return _FUNCTIONS[function.name](*arguments)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
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
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, *metadata: Any
) -> Tensor:
    if any(metadata):
        raise ForeignError(
            "has a tensor that is stored with the other sign; save a copy of it "
            "(Tensor.resolve_neg)."
        )
    return _rebuild_tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise ValueError("its pickle makes a parameter of what is not a tensor")
    return tensor


def _ordered_dict() -> OrderedDict[str, Any]:
    """Takes no arguments, unlike the class."""
    return OrderedDict()


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
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
