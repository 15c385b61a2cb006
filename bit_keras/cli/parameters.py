"""What the parameters of several commands have in common: types, and what a shell completes."""

import click
from click.shell_completion import CompletionItem

from bit_keras.cli.manual import flag_option
from bit_keras.registry import list_models, model_info

#: Stands in the names of the many networks that are shown when they are requested.
VTAB = "_vtab_"


def integers(value: str) -> tuple[int, ...]:
    """Integers with commas between them, from 1: the `type` of an option."""
    return _integers(value, "")


def integers_or_none(value: str) -> tuple[int, ...]:
    """As `integers`, or `none` for no integers."""
    return () if value == "none" else _integers(value, ", nor none")


def _integers(value: str, otherwise: str) -> tuple[int, ...]:
    try:
        found = tuple(map(int, value.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is not a list like 1,2,4,8{otherwise}.")
    return found


#: Of every command that runs what others may have made.
trust_option = flag_option(
    "--trust",
    help="Also run operations and layers that bit_keras does not export. They may read and write "
    "files and run code: only for files from someone you trust.",
)


#: Of every command that loads weights.
nonfinite_option = flag_option(
    "--allow-nonfinite",
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
