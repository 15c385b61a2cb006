"""How the commands print: tables and JSON to stdout, progress to stderr."""

import contextlib
import functools
import importlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click
import rich.console
import rich.progress
import rich.status
import rich.text
from rich.table import Column, Table

import bit_keras.progress
from bit_keras.cli.interrupts import ended_by_ctrl_c


def accept_any_name() -> None:
    """Lets standard output escape what its encoding lacks, such as names that are not UTF-8."""
    # Notebooks and tests have other objects in its place.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def console() -> rich.console.Console:
    """Standard output; wide where it is not a terminal, so that a pipe gets whole rows."""
    # Names of classes and files are text: `[x]` in them is not markup, `:cat:` not an emoji.
    return rich.console.Console(
        width=None if sys.stdout.isatty() else 240,
        highlight=False,
        soft_wrap=False,
        markup=False,
        emoji=False,
    )


def columns(*headings: str, **look: Any) -> list[Column]:
    """Columns of a table that look the same."""
    return [Column(heading, **look) for heading in headings]


#: Columns whose cells stay on one line: names at the left, numbers at the right.
names = functools.partial(columns, no_wrap=True)
numbers = functools.partial(columns, justify="right", no_wrap=True)


def print_table(
    columns: Iterable[Column], rows: Iterable[Iterable[str]], *, show_header: bool = True
) -> None:
    """A table on standard output."""
    table = Table(*columns, box=None, pad_edge=False, show_header=show_header)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def progress(step: str) -> rich.status.Status:
    """Shows a step while a block runs; hidden where stderr is not a terminal."""
    return bit_keras.progress.console().status(rich.text.Text(step))


@contextlib.contextmanager
def progress_bar(step: str, total: int) -> Iterator[Callable[..., None]]:
    """Shows how many of a number of things are done; hidden where stderr is not a terminal.

    Yields what to tell how many more are: `advance(count)`, and `advance(1, step)` where
    another step begins.
    """
    columns = (
        *rich.progress.Progress.get_default_columns(),
        rich.progress.MofNCompleteColumn(),
    )
    display = bit_keras.progress.console()
    with rich.progress.Progress(*columns, console=display, disable=not display.is_terminal) as bar:
        task = bar.add_task(step, total=total)
        yield lambda count, step=None: bar.update(task, advance=count, description=step)


class LogHandler(logging.Handler):
    """Prints log lines to standard error, above the progress."""

    def emit(self, record: logging.LogRecord) -> None:
        bit_keras.progress.console().print(
            self.format(record), highlight=False, markup=False, emoji=False, soft_wrap=True
        )


def start_keras(*, data: bool = False) -> None:
    """Imports Keras, with `data` also what reads data, and starts its backend without messages.

    TensorFlow, which reads data under every backend, prints the messages: its
    C++ writes notes on oneDNN and CUDA to file descriptor 2, some of them before
    it looks at any setting of the log level.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with ended_by_ctrl_c(), bit_keras.progress.without_native_notes():
        # The first tensor is what makes TensorFlow look for devices.
        importlib.import_module("keras").ops.zeros(())
        if data:
            importlib.import_module("tensorflow").zeros(())


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, indent=2))


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
