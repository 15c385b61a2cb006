"""A run of a file in a process of its own, which may crash, hang or fill the memory."""

import os
from pathlib import Path

import numpy as np

from bit_keras.errors import ExportError
from bit_keras.processes import ProcessError, run_in_process
from bit_keras.runtimes.opening import open_program

#: What a file may take while it is tried, as its readers need it: seconds to start and for each
#: megabyte, bytes of memory for the libraries and for each byte of the file.
_SECONDS, _SECONDS_PER_MEGABYTE = 10.0, 0.05
_LIBRARIES, _COPIES = 600_000_000, 4

#: Side of the images where a file takes any, and the largest that it may take.
_SIDE, _LARGEST = 64, 4096


def require_runs(path: str | os.PathLike) -> None:
    """Raises where a file does not answer one image within limits, in a process of its own.

    Args:
        path: What `open_program` takes.

    Raises:
        ExportError: It crashes or exceeds a limit, or `open_program` refuses it.
    """
    path = Path(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    try:
        run_in_process(
            "bit_keras.runtimes.trial:run",
            os.fspath(path),
            timeout=_SECONDS + _SECONDS_PER_MEGABYTE * size / 1e6,
            memory=_LIBRARIES + _COPIES * size,
        )
    except ProcessError as error:
        raise ExportError(
            f"{path} has no checksums, and could not be run in a process of its own: {error}. It "
            "is damaged or made to do harm; export the model again."
        ) from error


def run(path: str) -> None:
    """Answers one image, as the process does it."""
    program = open_program(path, threads=1)
    for name, signature in program.signatures.items():
        _, *sides, channels = signature.input_shape
        shape = (1, *(side or _SIDE for side in sides), channels or 3)
        if max(shape) > _LARGEST:
            raise ExportError(f"{path} takes images {shape}; sides are at most {_LARGEST} pixels.")
        program(np.zeros(shape, signature.input_dtype), name)
