"""TFLite files before an interpreter reads them, which may end the process at a damaged one.

A file of this package has the digest of its model, which is compared. Any other file is
run once in a process of its own, with limits on time and memory.
"""

import hashlib
import os
import zipfile
from pathlib import Path

from bit_keras.archives import open_archive, read_member
from bit_keras.errors import ExportError
from bit_keras.processes import ProcessError, run_in_process

#: The member of the archive at the end of a file that has the SHA-256 of all before the archive.
DIGEST = "assets.extra/model.sha256"

_DIGEST_BYTES = 2 * hashlib.sha256().digest_size

#: What the process that tries a file may take besides what the file does: 50 MB are Python's and
#: LiteRT's own.
_MEMORY = 250e6
_SECONDS = 10

#: Per byte of the file.
_MEMORY_PER_BYTE = 4
_SECONDS_PER_BYTE = 1 / 20e6

#: Bytes that are read at once.
_CHUNK = 1 << 20


def digest_of(model: bytes | memoryview) -> str:
    """The SHA-256 of a model, as `DIGEST` has it."""
    return hashlib.sha256(model).hexdigest()


def require_loadable(path: os.PathLike) -> None:
    """Refuses a file that LiteRT's interpreter cannot be given.

    Args:
        path: A TFLite file.

    Raises:
        ExportError: Its model is not the one that it has the digest of; or it has none, and the
            interpreter crashes on it, takes too long, or needs too much memory.
    """
    path = Path(path)
    stated = _stated_digest(path)
    if stated is None:
        _try(path)
    elif stated[1] != _digest(path, stated[0]):
        raise ExportError(
            f"{path} is damaged: its model is not the one that it was written with; "
            "export it again."
        )


def _stated_digest(path: Path) -> tuple[int, str] | None:
    """Where the archive of a file begins, and the digest in it; None where there is none."""
    try:
        with open_archive(path) as archive:
            start = min(member.header_offset for member in archive.infolist())
            return start, read_member(archive, DIGEST, _DIGEST_BYTES).decode("ascii")
    except (zipfile.BadZipFile, ValueError):
        return None


def _digest(path: Path, length: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(min(length, _CHUNK)):
            digest.update(chunk)
            length -= len(chunk)
    return digest.hexdigest()


def _try(path: Path) -> None:
    size = path.stat().st_size
    try:
        run_in_process(
            "bit_keras.runtimes.litert:run_once",
            str(path),
            timeout=_SECONDS + _SECONDS_PER_BYTE * size,
            memory=int(_MEMORY + _MEMORY_PER_BYTE * size),
        )
    except ProcessError as error:
        raise ExportError(
            f"{path} cannot be loaded: in the process that tried, {error}. It is damaged or no "
            "model, so export it again."
        ) from error
