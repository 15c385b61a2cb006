"""Functions in processes of their own: what may crash, hang or fill the memory.

`Child` is the only place where this package starts a process. `python -m bit_keras.processes` is
its other side: it reads JSON lines from standard input, writes JSON lines to what was standard
output when it started, and ends with its parent.
"""

import contextlib
import faulthandler
import importlib
import inspect
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import bit_keras.errors
from bit_keras.errors import BitKerasError, ProcessError, reason_of

_POLL = 0.05  # Seconds between two looks at a child's memory.

#: Bytes beyond `memory` that the kernel lets a child reserve: the stacks of threads count for it
#: as soon as they exist. It stops one huge request, which would not be seen in time.
_RESERVED = 4 << 30

#: Seconds beyond the time limit until a child ends by itself, where its parent was killed.
_GRACE = 10

#: In a child: where results and steps are written to.
_results: IO[str] | None = None


class Child:
    """A Python process that runs one function, and ends with this process.

    However this process ends, the child ends too, and what the child started. Ctrl-C in the
    terminal does not reach it. What libraries print there goes to its standard error.

    Args:
        function: str. `"package.module:function"`, a function of one argument. A generator
            function has a conversation: what it yields first is the first result, and every
            message that `ask` sends is the value of a `yield`.
        argument: What the function takes, of the types of JSON.
        memory: int or None. Bytes that the process may have resident. They are looked at 20
            times a second while `result` waits, on Linux. Defaults to `None`, no limit.
        lifetime: float or None. Seconds after which the process ends by itself, even if native
            code keeps Python waiting. Defaults to `None`, no limit.
        environment: Mapping of str to str. Variables that replace those of this process.

    Example:

    ```python
    from bit_keras.processes import Child

    with Child("math:sqrt", 4) as child:
        child.result(timeout=60)  # 2.0
    ```
    """

    def __init__(
        self,
        function: str,
        argument: Any = None,
        *,
        memory: int | None = None,
        lifetime: float | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._memory = memory
        errors = tempfile.TemporaryFile()  # noqa: SIM115
        # A group of its own, to end with all that it starts; what a child starts is in its group.
        self._leads_group = _results is None and hasattr(os, "killpg")
        self._process = subprocess.Popen(
            # The function is an argument so that a list of processes shows it.
            [sys.executable, "-m", "bit_keras.processes", function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**_environment(), **(environment or {})},
            start_new_session=self._leads_group,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._last_words = ""
        self._reader = threading.Thread(target=self._read, args=[errors], daemon=True)
        self._reader.start()
        self._send({"argument": argument, "memory": memory, "lifetime": lifetime})

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def id(self) -> int:
        return self._process.pid

    def result(
        self, timeout: float | None = None, show: Callable[[str], None] = lambda step: None
    ) -> Any:
        """Waits for the next result of the function.

        Args:
            timeout: float or None. Seconds. Defaults to `None`, no limit.
            show: Is called with each step that the function reports before it.

        Returns:
            What the function returned or yielded, of the types of JSON.

        Raises:
            ProcessError: The process crashed or exceeded a limit, or its function raised an
                exception that is not a BitKerasError.
            BitKerasError: The function raised one, which is raised again.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            line = self._line(end)
            if line is None:
                raise ProcessError(f"it took longer than {timeout:.0f} seconds")
            if not line:
                self._lines.put(b"")  # For the next call.
                raise ProcessError(self._last_words)
            message = json.loads(line)
            if "step" in message:
                show(message["step"])
            elif "error" in message:
                name, text = message["error"]
                raise getattr(bit_keras.errors, name, BitKerasError)(text)
            else:
                return message["result"]

    def ask(self, message: Any, timeout: float | None = None) -> Any:
        """Sends a message to a generator function and waits for what it yields.

        Args:
            message: Of the types of JSON.
            timeout: float or None. Seconds. Defaults to `None`, no limit.

        Returns:
            What the function yielded, of the types of JSON.

        Raises:
            ProcessError: As `result`.
            BitKerasError: As `result`.
        """
        self._send(message)
        return self.result(timeout)

    def stop(self) -> None:
        """Ends the process and what it started, whatever it is doing; may be called twice."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self._leads_group:
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    self._process.kill()
            self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # The last message is lost.
            self._process.stdin.close()
        self._reader.join(1)

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # Then its status says why it ended.
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self, errors: IO[bytes]) -> None:
        assert self._process.stdout is not None
        with errors, self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
            self._last_words = _last_words(self._process.wait(), errors)
        self._lines.put(b"")

    def _line(self, end: float | None) -> bytes | None:
        """The next line that the process writes, none at its end, None where time runs out."""
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return None
            if self._memory is not None:
                if _resident(self._process.pid) > self._memory:
                    raise ProcessError(f"it needed more than {self._memory / 1e6:.0f} MB of memory")
                left = _POLL if left is None else min(left, _POLL)
            with contextlib.suppress(queue.Empty):
                return self._lines.get(timeout=left)


def run_in_process(
    function: str,
    argument: Any,
    *,
    timeout: float,
    memory: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Calls a function in a fresh Python process.

    Args:
        function: str. `"package.module:function"`, a function of one argument.
        argument: What the function takes, of the types of JSON.
        timeout: float. Seconds, the start of the process included.
        memory: int or None. Bytes that the process may have resident. Defaults to `None`, no
            limit.
        environment: Mapping of str to str. Variables that replace those of this process.

    Returns:
        What the function returns, of the types of JSON.

    Raises:
        ProcessError: The process crashed or exceeded a limit, or the function raised an
            exception that is not a BitKerasError.
        BitKerasError: The function raised one, which is raised again.

    Example:

    ```python
    from bit_keras.processes import run_in_process

    run_in_process("math:sqrt", 4, timeout=60)  # 2.0
    ```
    """
    lifetime = timeout + _GRACE
    with Child(
        function, argument, memory=memory, lifetime=lifetime, environment=environment
    ) as child:
        return child.result(timeout)


def report_step(step: str) -> None:
    """Says in a child what it does now, for `show` of `Child.result`; does nothing elsewhere."""
    if _results is not None:
        _write({"step": step})


def available_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _environment() -> dict[str, str]:
    """The environment of a process that imports this very package, installed or not."""
    root = str(Path(__file__).parents[1])
    search_path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search_path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _resident(pid: int) -> int:
    """Bytes of memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _last_words(status: int, errors: IO[bytes]) -> str:
    """Why a process ended without a result."""
    if os.name == "posix" and status == -signal.SIGKILL:
        return "it was ended by SIGKILL, as happens where memory is short"
    if status < 0:
        return f"it crashed ({_signal_name(-status)})"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return f"it ended with status {status} ({lines[-1] if lines else 'silent'})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Some numbers have no name.
        return f"signal {number}"


# The child's side


def _serve(function: str) -> None:
    """Runs a function, whose results and steps are all that goes to standard output."""
    global _results
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this.
    _results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # What libraries print.
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_messages, args=[messages], daemon=True).start()
    call = json.loads(messages.get())
    if call["lifetime"] is not None:
        # Native code in a loop may keep every thread of Python waiting; this one is not Python's.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        faulthandler.dump_traceback_later(call["lifetime"], exit=True, file=nowhere)
    if call["memory"] is not None:
        _limit_memory(call["memory"] + _RESERVED)
    try:
        _converse(function, call["argument"], messages)
    except BitKerasError as error:
        _write({"error": [type(error).__name__, str(error)]})
    # Libraries raise anything: the parent gets the reason, standard error the traceback.
    except Exception as error:
        traceback.print_exc()
        reason = f"it raised {type(error).__name__}: {reason_of(error)}"
        _write({"error": [ProcessError.__name__, reason]})
    sys.stderr.flush()
    os._exit(0)  # Frameworks take seconds to end, and some crash at it.


def _converse(name: str, argument: Any, messages: queue.SimpleQueue[bytes]) -> None:
    module, _, function = name.partition(":")
    result = getattr(importlib.import_module(module), function)(argument)
    if not inspect.isgenerator(result):
        _write({"result": result})
        return
    _write({"result": next(result)})
    while True:
        _write({"result": result.send(json.loads(messages.get()))})


def _write(message: dict[str, Any]) -> None:
    print(json.dumps(message), file=_results, flush=True)


def _read_messages(messages: queue.SimpleQueue[bytes]) -> None:
    """Reads until the parent closes the pipe or is killed; then ends this process and its group."""
    # Not through `sys.stdin`, whose lock this thread would have when Python ends.
    with open(0, "rb", closefd=False) as file:
        for line in file:
            messages.put(line)
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


if __name__ == "__main__":
    # The instance of this module that other modules import for `report_step`.
    importlib.import_module("bit_keras.processes")._serve(sys.argv[1])
