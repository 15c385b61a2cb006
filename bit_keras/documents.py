"""JSON that others wrote: of a limited size, and of the types that its reader expects."""

import dataclasses
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union

#: What a document may have. The largest are the labels of ImageNet-21k, with 2 MB; Python's
#: objects take ten times their text.
MOST_BYTES = 4_000_000

_WORDS = {str: "text", int: "an integer", float: "a number", bool: "true or false", None: "null"}
_MAPPINGS = (dict, typing.get_origin(Mapping[str, Any]))


def read_document(path: Path, schema: Any = Any) -> Any:
    """Reads a file of JSON.

    Args:
        path: Path.
        schema: What `typed` takes. Defaults to any JSON value.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, no JSON, or of another type; with the reason.
    """
    if path.exists() and not path.is_file():  # A pipe would be waited for.
        raise ValueError("it is not an ordinary file")
    with path.open("rb") as file:
        return parsed(file.read(MOST_BYTES + 1), schema)


def parsed(
    text: bytes | str,
    schema: Any = Any,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parses JSON.

    Args:
        text: bytes of UTF-8, or str.
        schema: What `typed` takes. Defaults to any JSON value.
        pairs: What `json.loads` takes as `object_pairs_hook`.

    Raises:
        ValueError: It is too large, no JSON, or of another type; with the reason.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes, the most that are read")
    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    return typed(document, schema)


def typed(value: Any, schema: Any, place: str = "") -> Any:
    """A value of JSON as what annotations say that it is.

    Args:
        value: What `json.loads` returns.
        schema: A dataclass, or a type of its fields: `str`, `int`, `float`, `bool`, `None`,
            `Any`, `Literal`, a union, and `list`, `tuple`, `dict` and `Mapping` of these.
        place: str. Where the value is, for errors. Defaults to the whole document.

    Returns:
        The value, with dataclasses for objects and tuples for lists where the type says so.

    Raises:
        ValueError: It is something else; with the place.
    """
    origin, arguments = typing.get_origin(schema) or schema, typing.get_args(schema)
    if schema is Any:
        return value
    if dataclasses.is_dataclass(schema):
        return _instance(value, schema, place)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, place)
    if origin in (list, tuple) and isinstance(value, list):
        return _sequence(value, origin, arguments, place)
    if origin in _MAPPINGS and isinstance(value, dict):
        of = arguments[1] if arguments else Any
        return {key: typed(each, of, _below(place, key)) for key, each in value.items()}
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    return _plain(value, schema, place)


def _instance(value: Any, schema: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(value, "an object", place)
    fields = {field.name: field for field in dataclasses.fields(schema)}
    needed = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    differing = sorted((needed - value.keys()) | (value.keys() - fields.keys()))
    if differing:
        names = ", ".join(name[:40] for name in differing[:5])
        raise ValueError(f"{_named(place)} differs in {names}")
    hints = typing.get_type_hints(schema)
    return schema(**{name: typed(value[name], hints[name], _below(place, name)) for name in value})


def _one_of(value: Any, types: tuple[Any, ...], place: str) -> Any:
    errors = []
    for schema in types:
        try:
            return typed(value, schema, place)
        except ValueError as error:
            errors.append(error)
    raise errors[0]  # Of a value or nothing, what is wrong with the value.


def _sequence(value: list, origin: Any, arguments: tuple[Any, ...], place: str) -> Any:
    schemas = list(arguments) or [Any]
    if origin is list or schemas[-1] is Ellipsis or not arguments:
        schemas = schemas[:1] * len(value)
    if len(schemas) != len(value):
        raise _mismatch(value, f"{len(schemas)} values", place)
    places = (_below(place, number) for number in range(len(value)))
    return origin(map(typed, value, schemas, places))


def _plain(value: Any, schema: Any, place: str) -> Any:
    name = None if schema is types.NoneType else schema
    if name is float and type(value) is int and abs(value) <= sys.float_info.max:
        return value
    finite = type(value) is not float or math.isfinite(value)  # Python's JSON has others, too.
    if finite and ((name is None and value is None) or (name in _WORDS and type(value) is name)):
        return value
    raise _mismatch(value, _expected(name) if finite else _WORDS[float], place)


def _expected(schema: Any) -> str:
    origin = typing.get_origin(schema) or schema
    if origin is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(schema)))
    if origin in (list, tuple):
        return "a list"
    return "an object" if origin in _MAPPINGS else _WORDS[origin]


def _mismatch(value: Any, expected: str, place: str) -> ValueError:
    text = json.dumps(value)
    received = text if len(text) <= 60 else f"{text[:57]}..."
    return ValueError(f"{_named(place)} must be {expected}; received: {received}")


def _below(place: str, key: object) -> str:
    return f"{place}.{str(key)[:40]}" if place else str(key)[:40]


def _named(place: str) -> str:
    return f"its {place!r}" if place else "the document"
