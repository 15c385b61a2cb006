"""A run of a file in a process of its own, which may crash, hang or fill the memory."""

import os
from pathlib import Path

import numpy as np

from bit_keras.artifacts.runtimes.program import Program
from bit_keras.errors import ExportError, ProcessError
from bit_keras.processes import run_in_process

#: What a file may take while it is tried: seconds to start and for each byte, and bytes of
#: memory for each of its own, besides what the libraries take.
_SECONDS, _SECONDS_PER_BYTE = 10.0, 1 / 20e6
_MEMORY_PER_BYTE = 4

#: Side of the images where a file takes any, and the largest that it may take.
_SIDE, _LARGEST = 64, 4096

#: Images that a file for any batch is run on: one, and several.
_BATCHES = (1, 3)


def require_runs(path: str | os.PathLike, function: str, libraries: int) -> None:
    """Raises where a file does not return outputs within limits, in a process of its own.

    Args:
        path: The file or the folder.
        function: str. `"package.module:function"`, which opens it and calls `run`.
        libraries: int. Bytes of memory that Python and the libraries take.

    Raises:
        ExportError: It crashes or exceeds a limit, or cannot be opened.
    """
    path = Path(path)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    try:
        run_in_process(
            function,
            os.fspath(path),
            timeout=_SECONDS + _SECONDS_PER_BYTE * size,
            memory=libraries + _MEMORY_PER_BYTE * size,
        )
    except ProcessError as error:
        raise ExportError(
            f"{path} cannot be loaded: it has no checksum, and in the process that tried, {error}. "
            "It is damaged or made to do harm; export the model again."
        ) from error


def run(program: Program) -> None:
    """Runs a program on black images, as the process does it."""
    for name, signature in program.signatures.items():
        _, *sides, channels = signature.input_shape
        shape = (*(side or _SIDE for side in sides), channels or 3)
        if max(shape) > _LARGEST:
            raise ExportError(f"It takes images {shape}; sides are at most {_LARGEST} pixels.")
        for count in _BATCHES:
            program(np.zeros((count, *shape), signature.input_dtype), name)
