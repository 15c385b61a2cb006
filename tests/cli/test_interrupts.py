"""Ctrl-C ends a command, whatever it is doing."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals as POSIX has them")

IN_THE_GARBAGE_COLLECTOR = """
import gc, signal, sys, time
from bit_keras.cli.interrupts import heeded_interrupts

def callback(phase, info):
    # As a user's Ctrl-C that falls into such a callback.
    gc.callbacks.remove(callback)
    signal.raise_signal(signal.SIGINT)

gc.callbacks.append(callback)
with heeded_interrupts():
    gc.collect()
    time.sleep(10)
    print("continued")
"""

#: A framework that ignores every exception while it is imported.
DEAF_FRAMEWORK = """
import os, signal, time

print("importing", flush=True)
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except BaseException:
    pass
print("continued", flush=True)
"""


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_ctrl_c_in_a_callback_of_the_garbage_collector_is_not_lost():
    result = run(IN_THE_GARBAGE_COLLECTOR)
    assert "KeyboardInterrupt" in result.stderr
    assert (result.returncode, result.stdout) == (-signal.SIGINT, "")


def test_ctrl_c_ends_a_command_that_imports_its_frameworks(tmp_path):
    (tmp_path / "keras.py").write_text(DEAF_FRAMEWORK)
    command = ["export", "bit_tiny.cifar10", "--to", "hub", "--out", str(tmp_path / "out")]
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from bit_keras.cli import main; main({command})"
    )
    result = run(program)
    assert (result.returncode, result.stdout) == (1, "importing\n")
    assert result.stderr.strip() == "Aborted!"


@pytest.mark.full
def test_ctrl_c_at_any_moment_of_an_export_ends_it_and_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    program = "from bit_keras.cli import main; main()"
    command = [sys.executable, "-c", program, "export", "bit_tiny.cifar10", "--to", "hub"]
    command += ["--out", str(out)]
    for moment in range(1, 60):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(moment / 5)
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=30)[1]
        if out.exists():  # It had done its work.
            break
        assert process.returncode in (1, -signal.SIGINT), errors
        assert list(tmp_path.iterdir()) == []
    assert moment > 5
