"""Ctrl-C: what a command does where Python would ignore it."""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

#: Progress hides the cursor.
_SHOW_CURSOR = b"\x1b[?25h"


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Ends the process at once on Ctrl-C, while frameworks are imported.

    An exception would be raised inside their imports, some of which ignore it, and others
    crash. Nothing is being written yet that would have to be removed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set a handler.
        return
    stderr = os.dup(2)  # Below, what is written to 2 is dropped.

    def end(*_: Any) -> None:
        os.write(stderr, (_SHOW_CURSOR if os.isatty(stderr) else b"") + b"\nAborted!\n")
        os._exit(1)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        os.close(stderr)


@contextlib.contextmanager
def heeded_interrupts() -> Iterator[None]:
    """Raises a `KeyboardInterrupt` again that Python could only print, while a block runs.

    Ctrl-C during a callback of the garbage collector, of which JAX has some, or during a
    `__del__` is printed and otherwise ignored (`sys.unraisablehook`).
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Later, and from outside: here it would be ignored once more.
            threading.Timer(0.05, _interrupt).start()
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt() -> None:
    if hasattr(signal, "pthread_kill"):  # Which also ends what waits in the system.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
