"""Zip archives from other programs, which are checked before anything is read from them.

npz files, `.keras` files, those of PyTorch, and what is appended to a TFLite file are
zip archives (APPNOTE.TXT, PKWARE, 6.3). `zipfile` reads any compression into memory whatever
the result takes, and raises errors of ten classes where an archive is damaged.
"""

import contextlib
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

#: The index of the largest network of the registry takes 60 kB; each entry takes ten times its
#: bytes as an object.
_INDEX_BYTES = 4_000_000

#: A member may unpack to so many bytes, and to so many times the bytes of the archive more.
#: Trained weights hardly compress; zeros deflate to a thousandth.
_UNPACKED_BYTES, _UNPACKED_RATIO = 100_000_000, 4

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_ENCRYPTED = 0x1

#: The header in front of a member, without its name and the extra field (4.3.7).
_HEADER_BYTES = 30

#: The end of the index, its form for more than 65,535 entries or 4 GB, and where that is
#: (4.3.16, 4.3.14 and 4.3.15).
_END, _END64, _PLACE64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_END_BYTES, _PLACE64_BYTES, _COMMENT_BYTES = 22, 20, 65_535

#: What `zipfile` and `zlib` raise at damage, besides BadZipFile.
DAMAGE = (
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def is_archive(path: Path) -> bool:
    """Whether a file ends in the index of a zip archive, damaged or not."""
    try:
        with path.open("rb") as file:
            return _index_bytes(file) is not None
    except OSError:
        return False


def open_archive(source: Path | IO[bytes]) -> zipfile.ZipFile:
    """Opens an archive and compares what its index says with its size.

    Args:
        source: Path, or a file that is open for reading. What precedes the
            archive is skipped.

    Returns:
        zipfile.ZipFile whose members have one name each, are stored or deflated and not
        encrypted, and unpack to at most 100 MB and four times the bytes of the file more.

    Raises:
        BadZipFile: The file is not an archive, or is damaged; with the reason.
    """
    with damage_as_bad_zip(), contextlib.ExitStack() as stack:
        if isinstance(source, Path):
            with source.open("rb") as file:
                _require_small_index(file)
        else:
            _require_small_index(source)
        archive = stack.enter_context(zipfile.ZipFile(source))
        assert archive.fp is not None
        _require_sound(archive, archive.fp.seek(0, os.SEEK_END))
        stack.pop_all()
        return archive


def read_member(archive: zipfile.ZipFile, name: str, most_bytes: int) -> bytes:
    """The content of a small member, after its checksum was compared.

    Raises:
        BadZipFile: It is missing, damaged, or larger.
    """
    with damage_as_bad_zip():
        member = archive.getinfo(name)
        if member.file_size > most_bytes:
            raise ValueError(
                f"its {name} has {member.file_size:,} bytes, and at most {most_bytes:,} are read"
            )
        return archive.read(member)


def verify_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Reads a member of any size, whose checksum `zipfile` compares at the end."""
    with archive.open(member) as file:
        while file.read(1 << 20):
            pass


def content_start(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Where the content of a stored member begins in the file.

    Raises:
        BadZipFile: The header in front of it differs from the index.
        ValueError: It would go beyond the end of the file.
    """
    archive.open(member).close()  # Compares the headers.
    assert archive.fp is not None
    archive.fp.seek(member.header_offset)
    name, extra = struct.unpack("<26xHH", archive.fp.read(_HEADER_BYTES))
    start = member.header_offset + _HEADER_BYTES + name + extra
    if start + member.file_size > archive.fp.seek(0, os.SEEK_END):
        raise ValueError(f"its {member.filename[:80]!r} goes beyond its end")
    return start


@contextlib.contextmanager
def damage_as_bad_zip() -> Iterator[None]:
    """Turns whatever reading an archive raises into BadZipFile."""
    try:
        yield
    except (zipfile.BadZipFile, FileNotFoundError):
        raise
    except DAMAGE as error:
        raise zipfile.BadZipFile(str(error) or "it ends too early") from error


def _require_small_index(file: IO[bytes]) -> None:
    size = _index_bytes(file)
    if size is None:
        raise ValueError("it is cut short: the index at its end is missing")
    if size > _INDEX_BYTES:
        raise ValueError(f"its index has {size:,} bytes, and at most {_INDEX_BYTES:,} are read")
    file.seek(0)


def _index_bytes(file: IO[bytes]) -> int | None:
    """The bytes that the end of an archive says its index has; None where the end is missing."""
    size = file.seek(0, os.SEEK_END)
    tail_at = max(0, size - _END_BYTES - _COMMENT_BYTES - _PLACE64_BYTES)
    file.seek(tail_at)
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_BYTES:
        return None
    (length,) = struct.unpack_from("<12xL", tail, end)
    place = end - _PLACE64_BYTES
    if place >= 0 and tail.startswith(_PLACE64, place):
        (end64_at,) = struct.unpack_from("<8xQ", tail, place)
        file.seek(min(end64_at, size))
        end64 = file.read(48)
        if len(end64) == 48 and end64.startswith(_END64):
            (length64,) = struct.unpack_from("<40xQ", end64)
            return max(length if length != 0xFFFFFFFF else 0, length64)
    return length


def _require_sound(archive: zipfile.ZipFile, size: int) -> None:
    names, packed = set(), 0
    for member in archive.infolist():
        name = member.filename[:80]
        # zipfile takes what a wrong length makes of the entries that follow for a comment.
        if member.comment:
            raise ValueError(f"the entry of {name!r} in its index runs into the next one")
        if member.filename in names:
            raise ValueError(f"it contains {name!r} twice")
        if member.compress_type not in _COMPRESSIONS or member.flag_bits & _ENCRYPTED:
            raise ValueError(
                f"it contains {name!r} encrypted or in compression {member.compress_type}; members "
                "may be stored or deflated"
            )
        if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
            raise ValueError(f"{name!r} is stored and has two sizes")
        if member.file_size > _UNPACKED_BYTES + _UNPACKED_RATIO * size:
            raise ValueError(
                f"{name!r} unpacks to {member.file_size:,} bytes, and the file has {size:,}"
            )
        names.add(member.filename)
        packed += member.compress_size
    if packed > size:
        raise ValueError(f"its members have {packed:,} bytes, and the file has {size:,}")
