"""Which tests are slow: those that export, train, or start a program of their own.

`make check` omits them. A test is slow if it, a function of the tests that it calls, or one of its
fixtures uses one of these names; any other test that takes seconds has the mark `slow`.
"""

import inspect
import types

import keras
import pytest

#: Names of what takes seconds.
SECONDS = {
    "Popen",
    "build_collection",
    "compile_for",
    "compiled_loader",
    "convert_to_keras",
    "converted",
    "fetch",
    "finetune",
    "fit",
    "follow",
    "getfixturevalue",
    "installed",
    "run_benchmark",
    "run_in_a_shell",
    "run_python",
    "stand_in_server",
    "subprocess",
    "succeeds",
    "verify",
    "wheel",
}

#: The mark of a file whose networks take JAX minutes to compile: `make test` runs it on TensorFlow,
#: and `make test-long` on the other backends.
LONG_ELSEWHERE = [] if keras.backend.backend() == "tensorflow" else [pytest.mark.long]

#: Files whose tests check what takes seconds elsewhere, in a part of one.
FAST = ("tests/test_structure.py",)


def is_slow(item):
    """Whether a collected test takes seconds, or waits for a fixture that does."""
    if item.nodeid.startswith(FAST):
        return False
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    functions = [item.function, *(definitions[-1].func for definitions in fixtures)]
    return any(takes_seconds(names_in(function, set())) for function in functions)


def takes_seconds(names):
    return any(name in SECONDS or name.lower().startswith("export") for name in names)


def names_in(function, seen):
    """The names that a function of the tests uses, and those that its helpers use."""
    function = inspect.unwrap(function) if callable(function) else function
    if not isinstance(function, types.FunctionType) or function in seen:
        return set()
    if not function.__module__.startswith("tests"):
        return set()
    seen.add(function)
    names = set(names_in_code(function.__code__))
    helpers = [function.__globals__.get(name) for name in names]
    return names.union(*(names_in(helper, seen) for helper in helpers))


def names_in_code(code):
    """The names in compiled code, and in that of the functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in_code(constant)
