"""What runs in a process of its own: its result, its errors, its end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bit_keras.errors import DataError, ProcessError
from bit_keras.processes import run_in_process

HERE = "functions_of_a_child"

FUNCTIONS = """
import ctypes, os, signal, sys, time
from bit_keras.errors import DataError

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
    with pytest.raises(ProcessError, match=r"status 1 .*KeyError: 'mine'"):
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
        "from bit_keras.processes import run_in_process; "
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
