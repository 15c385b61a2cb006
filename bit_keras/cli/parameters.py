"""What the parameters of several commands have in common: types, and what a shell completes."""

from typing import Any

import click
from click.shell_completion import CompletionItem

from bit_keras.registry import list_models, model_info

#: Stands in the names of the many networks that are shown when they are requested.
VTAB = "_vtab_"


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


#: Of every command that runs what others may have made.
trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Also run operations and layers that bit_keras does not export. They may read and write "
    "files and run code: only for files from someone you trust.",
)


#: Of every command that loads weights.
nonfinite_option = click.option(
    "--allow-nonfinite",
    is_flag=True,
    help="Take weights that are infinite or not a number, which are refused otherwise.",
)


def complete_models(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of models; those of VTAB where nothing else begins like that."""
    names = [name for name in list_models() if name.startswith(incomplete)]
    names = [name for name in names if VTAB not in name] or names
    # click's script for fish cuts a description at its first comma.
    return [
        CompletionItem(name, help=model_info(name).description.replace(",", ";")) for name in names
    ]


def complete_sources(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of models, and files."""
    return [_files(incomplete), *complete_models(ctx, parameter, incomplete)]


def complete_weights(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The words of --weights, and files."""
    words = [word for word in ("pretrained", "random") if word.startswith(incomplete)]
    return [_files(incomplete), *map(CompletionItem, words)]


def complete_recipes(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of packaged recipes, and files."""
    from bit_keras.collection.recipe import list_recipes

    names = [name for name in list_recipes() if name.startswith(incomplete)]
    return [_files(incomplete), *map(CompletionItem, names)]


def _files(incomplete: str) -> CompletionItem:
    """Precedes other completions: click's script for bash forgets what precedes it."""
    # What is empty, click's script for zsh drops, and takes the next line for it.
    return CompletionItem(incomplete or "./", type="file")
