"""The one display of progress: on standard error, and only where that is a terminal."""

import functools

import rich.console


@functools.cache
def console() -> rich.console.Console:
    """The console of all progress, so that a bar inside a step does not overwrite it."""
    return rich.console.Console(stderr=True)
