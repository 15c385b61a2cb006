"""Runs `bit-keras` as a shell sees it: exit status, standard output, standard error."""

import os
import subprocess
import sys

from click.testing import CliRunner

from bit_keras.cli import main


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def succeeds(*arguments):
    """Runs a command that must succeed; returns what it printed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fails(*arguments):
    """Runs a command that must fail; returns its one sentence, after what it logged."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert any(line.startswith("Error: ") for line in result.stderr.splitlines())
    assert "Traceback" not in result.stderr
    return result.stderr


def run_in_a_shell(*arguments, prepare=""):
    """Runs a command in a process of its own, with a user's environment."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPP")}
    program = f"{prepare}\nfrom bit_keras.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
