"""Types of options that several commands take."""

from typing import Any

import click


class Integers(click.ParamType):
    """Integers with commas between them, from 1.

    Args:
        empty: bool. Whether `none` stands for no integers. Defaults to `False`.
    """

    name = "integers"

    def __init__(self, *, empty: bool = False) -> None:
        self._empty = empty

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        if value == "none" and self._empty:
            return ()
        try:
            integers = tuple(int(part) for part in value.split(","))
        except ValueError:
            integers = ()
        if not integers or min(integers) < 1:
            otherwise = ", nor none" if self._empty else ""
            self.fail(f"{value!r} is not a list like 1,2,4,8{otherwise}.", param, ctx)
        return integers
