"""What runs in a process of its own: its result, its errors, its end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bit_keras.errors import DataError, ProcessError
from bit_keras.processes import Child, run_in_process

HERE = "functions_of_a_child"

FUNCTIONS = """
import ctypes, os, signal, subprocess, sys, time
from bit_keras.errors import DataError
from bit_keras.processes import Child, report_step

def double(x):
    print("a library prints")
    os.write(1, b"native code, too")
    return {"twice": 2 * x}

def crash(_):
    ctypes.string_at(0)

def refuse(x):
    raise DataError(f"{x} is refused.")

def fail(_):
    raise KeyError("mine")

def sleep(file):
    open(file, "w").write(str(os.getpid()))
    time.sleep(60)

def loop_in_native_code(file):
    open(file, "w").write(str(os.getpid()))
    ctypes.PyDLL(None).sleep(120)  # Keeps the lock of the interpreter.

def count(start):
    while True:
        report_step("Counting")
        message = yield start
        if message == "refuse":
            raise DataError("It counts no further.")
        start += message

def have_children(files):
    code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
    subprocess.Popen([sys.executable, "-c", code, files[0]])
    with Child("functions_of_a_child:sleep", files[1]) as child:
        child.result()

def have_a_working_child(x):
    with Child("functions_of_a_child:double", x) as child:
        return child.result()

def reserve(_):
    bytearray(20_000_000_000)

def allocate(_):
    kept = bytearray(300_000_000)
    kept[::4096] = bytes(len(kept[::4096]))
    time.sleep(60)
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    (tmp_path / f"{HERE}.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def call(name, argument=None, *, timeout=60, **limits):
        return run_in_process(f"{HERE}:{name}", argument, timeout=timeout, **limits)

    return call


def test_the_result_comes_back_and_what_is_printed_does_not_disturb_it(call):
    assert call("double", 21) == {"twice": 42}


def test_variables_reach_the_process():
    assert run_in_process("os:getenv", "MINE", timeout=60, environment={"MINE": "1"}) == "1"


def test_an_error_of_this_package_is_raised_again(call):
    with pytest.raises(DataError, match="x is refused"):
        call("refuse", "x")


def test_another_error_is_named(call):
    with pytest.raises(ProcessError, match="KeyError: 'mine'"):
        call("fail")


def test_a_crash_is_named(call):
    with pytest.raises(ProcessError, match="SIGSEGV"):
        call("crash")


def test_a_process_that_hangs_is_ended(call, tmp_path):
    with pytest.raises(ProcessError, match="2 seconds"):
        call("sleep", str(tmp_path / "pid"), timeout=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is looked at on Linux")
def test_a_process_that_takes_too_much_memory_is_ended(call):
    with pytest.raises(ProcessError, match="200 MB"):
        call("allocate", memory=200_000_000)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit this")
def test_one_huge_request_is_refused_before_it_is_used(call):
    with pytest.raises(ProcessError, match="MemoryError"):
        call("reserve", memory=200_000_000)


def test_native_code_in_a_loop_is_ended(call, tmp_path):
    with pytest.raises(ProcessError, match="2 seconds"):
        call("loop_in_native_code", str(tmp_path / "pid"), timeout=2)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("function", "how", "seconds"),
    [
        ("sleep", "SIGKILL", 60),
        ("sleep", "SIGINT", 60),
        pytest.param("loop_in_native_code", "SIGKILL", 1, marks=pytest.mark.long),
    ],
)
def test_a_process_ends_with_its_parent(call, tmp_path, function, how, seconds):
    file = tmp_path / "pid"
    program = (
        "from bit_keras.processes import Child, run_in_process; "
        f"run_in_process('{HERE}:{function}', {str(file)!r}, timeout={seconds})"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        while not (file.exists() and file.read_text()):
            time.sleep(0.01)
        parent.send_signal(getattr(signal, how))
    child, end = int(file.read_text()), time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()


@pytest.fixture
def child(call):
    """Starts children, which are stopped at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda name, argument: stack.enter_context(Child(f"{HERE}:{name}", argument))


def test_a_generator_function_has_a_conversation(child):
    steps, counting = [], child("count", 3)
    assert counting.result(60, steps.append) == 3
    assert counting.ask(4, 60) == 7
    assert counting.ask(-7, 60) == 0
    assert steps == ["Counting"]


def test_a_finished_child_says_so_to_later_calls(child):
    counting = child("count", 0)
    assert counting.result(60) == 0
    with pytest.raises(DataError, match="It counts no further"):
        counting.ask("refuse", 60)
    for _ in range(2):
        with pytest.raises(ProcessError, match="status 0"):
            counting.ask(1, 60)


def test_a_process_that_is_killed_says_so(child):
    counting = child("count", 0)
    counting.result(60)
    os.kill(counting.id, signal.SIGKILL)
    with pytest.raises(ProcessError, match="SIGKILL"):
        counting.ask(1, 60)
    counting.stop()
    counting.stop()


def written_ids(files):
    while not all(file.exists() and file.read_text() for file in files):
        time.sleep(0.01)
    return [int(file.read_text()) for file in files]


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # What init has not waited for yet.


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked for in /proc")
@pytest.mark.parametrize("how", ["stopped", "its pipe is closed"])
def test_a_process_ends_with_all_that_it_started(child, tmp_path, how):
    files = [tmp_path / "other", tmp_path / "child"]
    parent = child("have_children", list(map(str, files)))
    processes = [parent.id, *written_ids(files)]
    assert all(map(is_running, processes))
    if how == "stopped":
        parent.stop()
    else:
        parent._process.stdin.close()
    end = time.monotonic() + 20
    while any(map(is_running, processes)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(is_running, processes))


def test_a_child_that_has_stopped_its_child_continues(child):
    assert child("have_a_working_child", 4).result(60) == {"twice": 8}
