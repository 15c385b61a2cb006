"""The parent's side of a entry's process."""

import json
import queue
import subprocess
import sys
import tempfile
import threading
from typing import Any

from bit_keras.processes import process_environment

#: Where the libraries that compute look for a number of threads when they are loaded:
#: OpenMP (PyTorch, and TensorFlow's oneDNN), OpenBLAS, MKL, TensorFlow.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    "TF_NUM_INTRAOP_THREADS",
)


class ProcessFailure(Exception):
    """Why a process gives no answer, in a sentence."""


class ContestantProcess:
    """A process that waits on a pipe, and computes when it is asked to.

    Args:
        program: str. A key of `bit_keras.benchmark.worker.PROGRAMS`.
        job: dict. What the program takes.
        threads: int. That it computes with.
    """

    def __init__(self, program: str, job: dict[str, Any], threads: int) -> None:
        self._first = {"program": program, "job": job, "threads": threads}
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bit_keras.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(threads),
        )
        self._outputs: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def id(self) -> int:
        return self._process.pid

    def load(self, timeout: float) -> str:
        """Loads the program; returns what its engine calls itself.

        Raises:
            ProcessFailure: It cannot be loaded.
        """
        return self.ask(self._first, timeout)["engine"]

    def ask(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Sends a message and waits for the answer.

        Raises:
            ProcessFailure: There is none: the process failed, ended, or takes longer
                than `timeout` seconds.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ProcessFailure(self._last_words()) from None
        try:
            line = self._outputs.get(timeout=timeout)
        except queue.Empty:
            raise ProcessFailure(f"It gave no answer within {timeout:.0f} seconds.") from None
        if not line:
            raise ProcessFailure(self._last_words())
        output = json.loads(line)
        if "error" in output:
            raise ProcessFailure(output["error"])
        return output

    def stop(self) -> None:
        """Ends the process, whatever it is at."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._errors):
            assert file is not None
            try:
                file.close()
            except BrokenPipeError:  # What was written last finds nobody.
                continue

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as outputs:
            for line in outputs:
                self._outputs.put(line)
        self._outputs.put("")

    def _last_words(self) -> str:
        code = self._process.wait()
        if code < 0:
            return f"The process was ended by signal {-code}, as it is where memory is short."
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"The process ended with status {code} ({lines[-1] if lines else 'no message'})."


def environment(threads: int) -> dict[str, str]:
    """The environment of a process that computes on the CPU with so many threads."""
    return {
        **process_environment(),
        **{name: str(threads) for name in _THREADS},
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
