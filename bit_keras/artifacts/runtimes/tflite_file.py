"""TFLite files before an interpreter reads them, which may end the process at a damaged one.

A file of this package has the digest of its model, which is compared. Any other file is
run once in a process of its own, with limits on time and memory.
"""

import hashlib
import mmap
import os
import struct
import zipfile
from pathlib import Path

from flatbuffers import encode, packer
from flatbuffers.table import Table

from bit_keras.archives import open_archive, read_member
from bit_keras.artifacts.checksums import digest_of_files
from bit_keras.artifacts.runtimes.trial import require_runs
from bit_keras.artifacts.runtimes.trust import require_known_operations
from bit_keras.errors import ExportError

#: The member of the archive at the end of a file that has the SHA-256 of all before the archive.
DIGEST = "assets.extra/model.sha256"

_DIGEST_BYTES = 2 * hashlib.sha256().digest_size

#: Python's and LiteRT's own memory are 50 MB of these.
_LIBRARIES = 250_000_000

# Places in tables (`schema.fbs` of `tensorflow/tensorflow`): `Model.operator_codes` and
# `OperatorCode.custom_code`, the second field of either.
_SECOND_FIELD = 6

#: TFLite has about two hundred operators, some in several versions.
_MOST_OPERATORS = 10_000


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
        require_runs(path, "bit_keras.artifacts.runtimes.litert:run_once", _LIBRARIES)
    elif stated[1] != digest_of_files([path], length=stated[0]):
        raise ExportError(
            f"{path} is damaged: its model is not the one that it was written with; "
            "export it again."
        )


def require_builtin_operators(path: os.PathLike, trust: bool = False) -> None:
    """Raises where a file has operators that the interpreter takes from a library.

    Interpreters that are built with TensorFlow's Flex delegate have all operations of
    TensorFlow as such, those that read and write files among them.

    Args:
        path: A TFLite file.
        trust: bool. Whether the user trusts the file whatever it contains.

    Raises:
        ExportError: It contains others, with their names; or it is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            custom = _custom_operators(data)
    # What reading numbers and text at damaged places leads to.
    except (IndexError, OverflowError, TypeError, ValueError, struct.error) as error:
        raise ExportError(
            f"{path} is damaged: its list of operators cannot be read; export it again."
        ) from error
    require_known_operations(path, custom, (), trust)


def _custom_operators(model: mmap.mmap) -> set[str]:
    root = Table(model, encode.Get(packer.uoffset, model, 0))
    codes = root.Offset(_SECOND_FIELD)
    if not codes:
        return set()
    first, count = root.Vector(codes), root.VectorLen(codes)
    if count > _MOST_OPERATORS:
        raise ValueError(f"it has {count:,} operators")
    found = set()
    for place in range(first, first + 4 * count, 4):
        code = Table(model, root.Indirect(place))
        name = code.Offset(_SECOND_FIELD)
        if name:
            found.add(code.String(name + code.Pos).decode("utf-8", "replace"))
    return found


def _stated_digest(path: Path) -> tuple[int, str] | None:
    """Where the archive of a file begins, and the digest in it; None where there is none."""
    try:
        with open_archive(path) as archive:
            start = min(member.header_offset for member in archive.infolist())
            return start, read_member(archive, DIGEST, _DIGEST_BYTES).decode("ascii")
    except (zipfile.BadZipFile, ValueError):
        return None
