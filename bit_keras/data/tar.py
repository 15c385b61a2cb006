"""Images in an uncompressed tar of class folders, read where they are stored."""

import functools
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from bit_keras.data.layout import is_hidden
from bit_keras.data.listing import File, Listing, shown
from bit_keras.data.splits import role_of
from bit_keras.errors import DataError, reason_of

# The first bytes of what is often taken for a plain tar, by the program that undoes it.
_COMPRESSED = MappingProxyType(
    {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
)

#: Why a member is not read.
_DANGLING = "a link to what is not in the archive"
_TO_FOLDER = "a link to a folder of the archive"
_EMPTY = "an empty folder"
_SPECIAL = "not an ordinary file"

#: Links to links that are followed, as Linux follows 40.
_MOST_LINKS = 40


class _Member(NamedTuple):
    """Where a file is stored.

    Attributes:
        offset: int. Of its data in the archive.
        size: int. Of the file.
        pieces: tuple of (position, size), or None. For a sparse file, what of it is stored, one
            piece after the other; the rest is zeros.
    """

    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None


class _Index(NamedTuple):
    """All members of an archive, by name, without a folder around all others."""

    files: Mapping[str, _Member]
    left_out: tuple[tuple[str, str], ...]


def tar_listing(path: Path) -> Listing:
    """All files of an archive; links in it are the files that they lead to.

    Nothing is extracted: files are read by their offset. One folder around all others, as
    packing a folder makes it, is looked into.
    """
    try:
        status = path.stat()
        index = _read_index(path.resolve(), status.st_mtime_ns, status.st_size)
    except DataError:
        raise
    except tarfile.TarError as error:
        raise DataError(f"{_not_a_tar(path)} ({error}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason_of(error)}).") from error
    # Damaged headers lead tarfile to errors of many types.
    except (ValueError, ArithmeticError, LookupError, EOFError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error!r}); copy or pack it again.") from error
    files = (File(name, member.size, member.offset) for name, member in index.files.items())
    return Listing(
        shown(str(path)),
        tuple(files),
        index.left_out,
        lambda name, size: _read_member(path, index.files[name], size),
    )


def _read_member(path: Path, member: _Member, size: int | None) -> bytes:
    """So many bytes from the start of a file, all of them for None."""
    count = member.size if size is None else min(size, member.size)
    with path.open("rb") as file:
        file.seek(member.offset)
        if member.pieces is None:
            return file.read(count)
        content = bytearray(member.size)
        for position, length in member.pieces:
            content[position : position + length] = file.read(length)
    return bytes(content[:count])


@functools.lru_cache(maxsize=2)
def _read_index(path: Path, _modified: int, size: int) -> _Index:
    files: dict[str, _Member] = {}
    links: dict[str, str] = {}
    folders: set[str] = set()
    left_out: list[tuple[str, str]] = []
    # "r:" refuses compressed archives, whose members have no place of their own.
    with tarfile.open(path, "r:") as archive:
        for member in _members(archive, size):
            name = _normal(member.name)
            if member.isreg():
                sparse = _pieces(member)
                pieces = None if sparse is None else tuple(sparse)
                files[name] = _Member(member.offset_data, member.size, pieces)
            elif member.islnk():
                links[name] = _normal(member.linkname)
            elif member.issym():
                links[name] = _normal(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.isdir():
                folders.add(name)
            else:
                left_out.append((name, _SPECIAL))
        end = archive.offset
    _require_whole(path, end, size)
    direct = {posixpath.dirname(name) for name in (*files, *links)}
    parents = direct | {str(parent) for name in direct for parent in PurePosixPath(name).parents}
    left_out.extend((f"{name}/", _EMPTY) for name in folders - parents if name)
    _resolve(links, files, folders | parents, left_out)
    depth = 1 if _is_wrapped([*files, *(name for name, _ in left_out)]) else 0
    return _Index(
        MappingProxyType({_below(name, depth): files[name] for name in sorted(files)}),
        tuple((_below(name, depth), reason) for name, reason in left_out),
    )


def _pieces(member: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Place and length of each stored piece of a sparse file; None for any other."""
    return member.sparse  # type: ignore[return-value]


def _members(archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, whose places and sizes were checked.

    Before its releases of August 2025 (CVE-2025-8194) Python's own loop follows a negative
    size backwards without end.
    """
    before = -1
    while (member := archive.next()) is not None:
        # It keeps all of them otherwise.
        archive.members = []  # type: ignore[attr-defined]
        sparse = _pieces(member)
        stored = member.size if sparse is None else sum(n for _, n in sparse)
        pieces = sparse or []
        fits = all(start >= 0 and n >= 0 and start + n <= member.size for start, n in pieces)
        forward = before < member.offset < member.offset_data <= archive.offset
        if member.size < 0 or stored < 0 or not fits or not forward:
            raise tarfile.ReadError(f"the header of {shown(member.name)} is damaged")
        if member.isreg() and member.offset_data + stored > size:
            raise tarfile.ReadError(f"{shown(member.name)} continues beyond its end")
        before = member.offset
        yield member


def _resolve(
    links: Mapping[str, str],
    files: dict[str, _Member],
    folders: set[str],
    left_out: list[tuple[str, str]],
) -> None:
    """Adds the files that links lead to, under the names of the links."""
    for name in sorted(links):
        target, count = links[name], 1
        while target in links and count < _MOST_LINKS:
            target, count = links[target], count + 1
        if target in files:
            files[name] = files[target]
        elif target in folders:
            left_out.append((f"{name}/", _TO_FOLDER))
        else:
            # It may have been a class folder where its name has no suffix.
            left_out.append((name if PurePosixPath(name).suffix else f"{name}/", _DANGLING))


def _require_whole(path: Path, end: int, size: int) -> None:
    """Raises unless the archive continues to its end: a block of zeros (POSIX, pax)."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise DataError(
            f"{path} is damaged or was not copied to its end: after byte {end} of {size} neither "
            "a file nor the end of the archive follows; copy or pack it again."
        )


def _normal(name: str) -> str:
    """A name without `.` and `..` that can be undone, and without the first `/`."""
    normal = posixpath.normpath(name).lstrip("/")
    return "" if normal == "." else normal


def _below(name: str, depth: int) -> str:
    return name.split("/", depth)[-1]


def _is_wrapped(names: list[str]) -> bool:
    """Whether one folder, which is not a split, is around all others."""
    seen = [name.split("/") for name in names if not is_hidden(name)]
    tops = {parts[0] for parts in seen}
    return len(tops) == 1 and all(map(_is_nested, seen)) and role_of(*tops) is None


def _is_nested(parts: list[str]) -> bool:
    return len(parts) >= 3


def _not_a_tar(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            return (
                f"{path} is compressed, and images are read from the middle of an archive; "
                f"decompress it first with `{program}`"
            )
    return f"{path} is not a tar archive that can be read; pass a folder, or an uncompressed tar"
