"""`bit-keras collection`: all artifacts of a recipe, with their archives and pages."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, flag_option, option, path_option
from bit_keras.cli.parameters import complete_recipes
from bit_keras.collection import Recipe

if TYPE_CHECKING:
    from bit_keras.collection.builder import Outcome

_UNITS = {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30}


def _memory(value: str) -> int:
    """The bytes of an amount of memory, such as `20GB` or `8000MiB`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([MG]i?B)", value)
    if match is None:
        raise click.BadParameter(
            f"{value!r} is not an amount of memory; write it like 20GB or 8000MB."
        )
    return int(float(match[1]) * _UNITS[match[2]])


@documented_command(
    "collection",
    short_help="Build a collection of artifacts",
    see_also=("verify", "publish", "export"),
    exit_statuses={
        1: "An artifact could not be built; the same command tries it again.",
        130: "Interrupted; the same command continues.",
    },
)
@click.argument("recipe", type=click.Path(), shell_complete=complete_recipes)
@path_option(
    "--out",
    required=True,
    metavar="COLLECTION",
    help="Folder for artifacts, archives, pages and manifest; it is created, or continued.",
)
@option(
    "--memory",
    metavar="SIZE",
    type=_memory,
    help="What all processes may take together, like 20GB; by default 80 % of what is free.",
)
@flag_option("--json", "as_json", help="Print one JSON document.")
def command(recipe: str, out: Path, memory: int | None, as_json: bool) -> None:
    """Build every artifact that RECIPE names into the folder COLLECTION.

    RECIPE is the path of a TOML file, or the name of a packaged recipe: bit-resnet, the eight
    SavedModels of the TF Hub collection BiT-ResNet, or bit-all, every other checkpoint.

    Each artifact is exported, verified and archived, and appears when it is complete. After an
    interruption the same command continues, and builds again only what has changed. One that
    fails does not stop the others.

    Examples:
        Build the collection of this project:
            bit-keras collection bit-resnet --out collection
        Leave memory to other programs:
            bit-keras collection bit-resnet --out collection --memory 20GB
    """
    contents = Recipe.read(recipe)
    with printing.progress("Starting Keras"):
        printing.start_keras()
        from bit_keras.collection import build_collection
    try:
        outcomes = build_collection(contents, out, memory)
    except KeyboardInterrupt:
        click.echo("Interrupted; the same command continues where it stopped.", err=True)
        raise click.exceptions.Exit(130) from None
    if as_json:
        printing.print_json([_document(outcome) for outcome in outcomes])
    else:
        # Long names are folded in a narrow window, numbers are not.
        names = printing.columns("artifact", "target and variant", overflow="fold")
        numbers = printing.numbers("size", "archive", "difference", "seconds", "peak memory")
        printing.print_table([*names, *numbers], map(_row, outcomes))
    failures = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failures:
        click.echo(f"Error: {outcome.item.name}: {outcome.error}", err=True)
    if failures:
        click.echo(
            f"{len(failures)} of {len(outcomes)} artifacts could not be built; the same command "
            "tries them again.",
            err=True,
        )
        raise click.exceptions.Exit(1)


def _document(outcome: "Outcome") -> dict[str, Any]:
    return {
        "name": outcome.item.name,
        "record": None if outcome.record is None else outcome.record.to_json(),
        "error": outcome.error,
        "seconds": outcome.seconds,
        "peak_memory": outcome.peak_memory,
    }


def _row(outcome: "Outcome") -> tuple[str, ...]:
    item, record = outcome.item, outcome.record
    variant = f"{item.target} {item.variant}"
    if record is None:
        return item.name, variant, "failed"
    return (
        item.name,
        variant,
        printing.megabytes(record.bytes),
        printing.megabytes(record.archive_bytes),
        f"{record.difference:.1e}",
        "kept" if outcome.seconds is None else f"{outcome.seconds:.0f}",
        "" if outcome.peak_memory is None else printing.megabytes(outcome.peak_memory),
    )
