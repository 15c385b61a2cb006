"""JSON of others: what is not as its reader expects is named, and nothing else is raised."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from bit_keras.documents import MOST_BYTES, parsed, read_document, typed


@dataclasses.dataclass(frozen=True)
class Inner:
    count: int
    shape: tuple[int | None, ...] = ()


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    letter: Literal["a", "b"]
    span: tuple[float, float]
    inner: dict[str, Inner]
    rest: Mapping[str, Any] | None


DOCUMENT = {
    "name": "x",
    "letter": "a",
    "span": [0, 1.5],
    "inner": {"first": {"count": 3, "shape": [None, 224]}},
    "rest": None,
}


def test_objects_become_dataclasses_and_lists_tuples():
    value = typed(DOCUMENT, Outer)
    assert value == Outer("x", "a", (0.0, 1.5), {"first": Inner(3, (None, 224))}, None)
    assert typed({**DOCUMENT, "rest": {"y": [1]}}, Outer).rest == {"y": [1]}


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"name": 5}, ["name", "text", "5"]),
        ({"name": None}, ["name", "text", "null"]),
        ({"letter": "c"}, ["letter", "'a'", "'b'", '"c"']),
        ({"letter": ["a"]}, ["letter", '["a"]']),
        ({"span": [0]}, ["span", "2 values"]),
        ({"span": [0, float("nan")]}, ["span.1", "a number", "NaN"]),
        ({"span": [0, True]}, ["span.1", "a number", "true"]),
        ({"span": [0, 10**400]}, ["span.1", "a number"]),
        ({"inner": []}, ["inner", "an object", "[]"]),
        ({"inner": {"first": {"count": 1.5}}}, ["inner.first.count", "an integer", "1.5"]),
        ({"inner": {"first": {"count": True}}}, ["inner.first.count", "an integer", "true"]),
        ({"inner": {"first": {"count": 1, "shape": ["x"]}}}, ["inner.first.shape.0", "an integer"]),
        ({"rest": 1}, ["rest", "an object", "1"]),
        ({"more": 1}, ["more"]),
    ],
)
def test_the_place_and_the_type_are_named(change, facts):
    with pytest.raises(ValueError) as info:
        typed({**DOCUMENT, **change}, Outer)
    for fact in facts:
        assert fact in str(info.value)


@pytest.mark.parametrize("value", [None, [], 3, "x", {}, {"name": "x"}])
def test_other_documents_are_refused(value):
    with pytest.raises(ValueError):
        typed(value, Outer)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b" " * (MOST_BYTES + 1)]
)
def test_text_that_is_not_a_document_is_one_type_of_error(text):
    with pytest.raises(ValueError):
        parsed(text)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(ValueError, match="ordinary file"):
        read_document(tmp_path / "run.json")
