"""The process that a benchmark starts for an entry."""

from collections.abc import Mapping
from typing import Any

from bit_keras.errors import BitKerasError, ProcessError
from bit_keras.processes import Child

#: Where the libraries that compute look for a number of threads when they are loaded:
#: OpenMP (PyTorch, and TensorFlow's oneDNN), OpenBLAS, MKL, TensorFlow.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    "TF_NUM_INTRAOP_THREADS",
)


def start_entry(program: str, job: Mapping[str, Any], threads: int) -> Child:
    """Starts the process of an entry, whose first result is the name of its engine.

    Args:
        program: str. A key of `bit_keras.benchmark.worker.PROGRAMS`.
        job: mapping. What the program takes.
        threads: int. That it computes with.

    Returns:
        Child. See `bit_keras.benchmark.worker.serve` for what it can be asked.
    """
    call = {"program": program, "job": job, "threads": threads}
    return Child("bit_keras.benchmark.worker:serve", call, environment=environment(threads))


def environment(threads: int) -> dict[str, str]:
    """The variables of a process that computes on the CPU with so many threads."""
    return {
        **{name: str(threads) for name in _THREADS},
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def failure_of(error: BitKerasError) -> str:
    """Why an entry has no times, as a sentence."""
    return f"The process failed: {error}." if isinstance(error, ProcessError) else str(error)
