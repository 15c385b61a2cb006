"""How the commands print: tables and JSON to stdout, progress to stderr."""

import json
import sys
from typing import Any

import click
import rich.console


def console() -> rich.console.Console:
    """Standard output; wide where nobody looks, so that a pipe gets whole rows."""
    return rich.console.Console(
        width=None if sys.stdout.isatty() else 240, highlight=False, soft_wrap=False
    )


def progress() -> rich.console.Console:
    """Standard error, silent when it is not a terminal."""
    return rich.console.Console(stderr=True, quiet=not sys.stderr.isatty())


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2))


def millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
