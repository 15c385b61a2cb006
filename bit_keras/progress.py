"""The one display of progress: on standard error, and only where that is a terminal."""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator

import rich.console


@functools.cache
def console() -> rich.console.Console:
    """The console of all progress, so that a bar inside a step does not overwrite it."""
    # Notebooks and build servers set FORCE_COLOR, by which rich would animate into a pipe.
    return rich.console.Console(stderr=True, force_terminal=sys.stderr.isatty())


@contextlib.contextmanager
def without_native_notes() -> Iterator[None]:
    """Drops what code in C++ writes to file descriptor 2, past every setting of a log level.

    Failures are exceptions, and lose nothing.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(nowhere)
        os.close(stderr)
