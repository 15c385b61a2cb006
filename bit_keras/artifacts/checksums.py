"""Checksums of ONNX and OpenVINO files, whose readers take damaged weights for weights.

An ONNX file ends with an entry of the model's metadata, `bit_keras.sha256`: the SHA-256 of all
bytes before it, and of the file with its weights where there is one. A folder of OpenVINO IR has
`assets.extra/SHA256SUMS`, which `sha256sum -c` reads.
"""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from bit_keras.errors import ExportError

#: The checksums of the files in a folder.
SUMS = "assets.extra/SHA256SUMS"

#: What is added to the name of an ONNX file for that of its weights, where those are apart.
DATA_SUFFIX = ".data"

#: The entry of an ONNX file: field 14 of a ModelProto (`onnx/onnx.proto`), the last one that this
#: package writes, is a message of a key (field 1) and a value (field 2).
_KEY = b"bit_keras.sha256"
_DIGITS = 64
_START = b"\x72\x54\x0a\x10" + _KEY + b"\x12\x40"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>.+)")


def seal(artifact: Path) -> None:
    """Adds checksums to an ONNX file or a folder of OpenVINO IR, as the last thing that is written.

    Args:
        artifact: The file, its weights next to it; or the folder.
    """
    if artifact.is_file():
        digest = digest_of_files(_files_of(artifact))
        with artifact.open("ab") as file:
            file.write(_START + digest.encode())
        return
    names = sorted(
        path.relative_to(artifact).as_posix() for path in artifact.rglob("*") if path.is_file()
    )
    lines = [f"{digest_of_files([artifact / name])}  {name}\n" for name in names]
    (artifact / SUMS).write_text("".join(lines), "utf-8")


def has_checksums(artifact: Path) -> bool:
    """Whether an ONNX file or a folder of OpenVINO IR has checksums.

    Args:
        artifact: The file or the folder.
    """
    if artifact.is_file():
        return _stored(artifact) is not None
    return (artifact / SUMS).is_file()


def require_intact(artifact: Path) -> None:
    """Raises where an ONNX file or a folder of OpenVINO IR differs from its checksums.

    One without checksums passes: another program wrote it, or bit_keras before it had them.

    Args:
        artifact: The file or the folder.

    Raises:
        ExportError: It names the file.
    """
    if not has_checksums(artifact):
        return
    if artifact.is_file():
        length = artifact.stat().st_size - len(_START) - _DIGITS
        if digest_of_files(_files_of(artifact), length) != _stored(artifact):
            raise _changed(artifact)
        return
    for line in (artifact / SUMS).read_bytes().decode("utf-8", "replace").splitlines():
        found = _LINE.fullmatch(line)
        if found is None or ".." in Path(found["name"]).parts:
            raise _changed(artifact / SUMS)
        path = artifact / found["name"]
        if not path.is_file() or digest_of_files([path]) != found["digest"]:
            raise _changed(path)


def _stored(file: Path) -> str | None:
    """The checksum at the end of an ONNX file."""
    length = len(_START) + _DIGITS
    if file.stat().st_size < length:
        return None
    with file.open("rb") as stream:
        stream.seek(-length, os.SEEK_END)
        end = stream.read()
    return end[len(_START) :].decode("ascii", "replace") if end.startswith(_START) else None


def _files_of(file: Path) -> list[Path]:
    """An ONNX file, and that of its weights if there is one."""
    data = file.with_name(file.name + DATA_SUFFIX)
    return [file, data] if data.is_file() else [file]


def digest_of_files(files: Iterable[Path], length: int | None = None) -> str:
    """The SHA-256 of files one after the other, of the first one only so many bytes."""
    digest = hashlib.sha256()
    for path in files:
        left = path.stat().st_size if length is None else length
        with path.open("rb") as stream:
            while left > 0 and (block := stream.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
        length = None
    return digest.hexdigest()


def _changed(path: Path) -> ExportError:
    return ExportError(
        f"{path} differs from its checksum: it was damaged, or changed by another program. Export "
        f"the model again; or, if the change is meant, delete the checksum ({_KEY.decode()} in the "
        f"metadata of an ONNX file, {SUMS} in a folder)."
    )
