"""Functions in a process of their own: what may crash, hang or fill the memory.

`python -m bit_keras.processes` is the other side. It reads one line of JSON, which names a
function, writes one line with what the function returns, and ends with its parent.
"""

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bit_keras.errors
from bit_keras.errors import BitKerasError, ProcessError

_POLL = 0.05  # Seconds between two looks at a child's memory.

#: Bytes beyond `memory` that the kernel lets a child reserve: the stacks of threads count for it
#: as soon as they exist. It stops one huge request, which would not be seen in time.
_RESERVED = 4 << 30

#: Seconds beyond the time limit until a child ends by itself, where its parent was killed.
_GRACE = 10


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
        memory: int or None. Bytes that the process may have resident. They are looked at 20
            times a second, on Linux. Defaults to `None`, no limit.
        environment: Mapping of str to str. Variables that replace those of this process.

    Returns:
        What the function returns, of the types of JSON.

    Raises:
        ProcessError: The process crashed or exceeded a limit.
        BitKerasError: The function raised one, which is raised again.

    Example:

    ```python
    from bit_keras.processes import run_in_process

    run_in_process("math:sqrt", 4, timeout=60)  # 2.0
    ```
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bit_keras.processes"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            env={**process_environment(), **(environment or {})},
        )
        try:
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # Then its status says why it ended.
                call = [function, argument, timeout, memory]
                process.stdin.write(json.dumps(call).encode() + b"\n")
                process.stdin.flush()
            _wait(process, timeout, memory)
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()  # type: ignore[union-attr]
        output.seek(0)
        errors.seek(0)
        return _result(process.returncode, output.read(), errors.read())


def process_environment() -> dict[str, str]:
    """The environment of a process that imports this very package, installed or not."""
    root = str(Path(__file__).parents[1])
    search_path = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(search_path),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def available_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _wait(process: subprocess.Popen, timeout: float, memory: int | None) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            process.wait(_POLL)
            return
        except subprocess.TimeoutExpired:
            if time.monotonic() > end:
                raise ProcessError(f"it took longer than {timeout:.0f} seconds") from None
            if memory is not None and _resident(process.pid) > memory:
                raise ProcessError(f"it needed more than {memory / 1e6:.0f} MB of memory") from None


def _resident(pid: int) -> int:
    """Bytes of memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Some numbers have no name.
        return f"signal {number}"


def _result(status: int, output: bytes, errors: str) -> Any:
    if status < 0:
        raise ProcessError(f"it crashed ({_signal_name(-status)})")
    if status > 0 or not output:
        lines = errors.strip().splitlines()
        raise ProcessError(f"it ended with status {status} ({lines[-1] if lines else 'silent'})")
    document = json.loads(output)
    if "error" in document:
        name, message = document["error"]
        raise getattr(bit_keras.errors, name, BitKerasError)(message)
    return document["result"]


def _serve() -> None:
    """The child: one call, whose result alone goes to standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this.
    results = os.dup(1)
    os.dup2(2, 1)  # What libraries print.
    name, argument, timeout, memory = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Native code in a loop may keep every thread of Python waiting; this one is not Python's.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    faulthandler.dump_traceback_later(timeout + _GRACE, exit=True, file=nowhere)
    if memory is not None:
        _limit_memory(memory + _RESERVED)
    module, _, function = name.partition(":")
    try:
        document = {"result": getattr(importlib.import_module(module), function)(argument)}
    except BitKerasError as error:
        document = {"error": [type(error).__name__, str(error)]}
    with os.fdopen(results, "wb") as file:
        file.write(json.dumps(document).encode() + b"\n")
    sys.stderr.flush()
    os._exit(0)  # Frameworks take seconds to end, and some crash at it.


def _limit_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    if most == resource.RLIM_INFINITY or most > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))


def _end_with_parent() -> None:
    # Until the parent closes it or is killed. Not through `sys.stdin`, whose lock this thread
    # would hold when Python ends.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    _serve()
