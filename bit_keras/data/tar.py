"""Lists the files of an uncompressed tar of class folders, which is not unpacked."""

import functools
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

from bit_keras.data.images import read_part
from bit_keras.data.layout import is_hidden
from bit_keras.data.listing import File, Listing, shown
from bit_keras.data.splits import role_of
from bit_keras.errors import DataError, reason_of

# The first bytes of compressed files, with the program that decompresses them.
_COMPRESSED = MappingProxyType(
    {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
)

#: Maximum length of a chain of links, the same as on Linux.
_MOST_LINKS = 40


class _Member(NamedTuple):
    """The place of a file in the archive.

    Attributes:
        offset: int. Offset of its data in the archive.
        size: int. Size of the file.
        pieces: tuple of (position, size), or None. The stored pieces of a sparse file, in
            order; the rest is zeros.
    """

    offset: int
    size: int
    pieces: tuple[tuple[int, int], ...] | None


def tar_listing(path: Path) -> Listing:
    """Lists all files of an archive; links are replaced by their targets.

    Nothing is extracted: files are read by their offset. If all files are in one folder, it
    is removed from their paths.
    """
    try:
        status = path.stat()
        where = shown(str(path))
        return _read_listing(path.resolve(), where, status.st_mtime_ns, status.st_size)
    except DataError:
        raise
    except tarfile.TarError as error:
        raise DataError(f"{_not_a_tar(path)} ({error}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({reason_of(error)}).") from error
    # For damaged headers, tarfile raises many types of exceptions.
    except (ValueError, ArithmeticError, LookupError, EOFError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error!r}); copy or pack it again.") from error


def _read_member(path: Path, member: _Member, size: int | None) -> bytes:
    """Reads `size` bytes from the start of a file, or all of them for None."""
    count = member.size if size is None else min(size, member.size)
    if member.pieces is None:
        return read_part(path, member.offset, count)
    content = bytearray(member.size)
    with path.open("rb") as file:
        file.seek(member.offset)
        for position, length in member.pieces:
            content[position : position + length] = file.read(length)
    return bytes(content[:count])


@functools.lru_cache(maxsize=2)
def _read_listing(path: Path, where: str, _modified: int, size: int) -> Listing:
    files: dict[str, _Member] = {}
    links: dict[str, str] = {}
    folders: set[str] = set()
    skipped: list[tuple[str, str]] = []
    # "r:" rejects compressed archives, whose members cannot be read by offset.
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
                skipped.append((name, "not an ordinary file"))
        end = archive.offset
    _require_whole(path, end, size)
    direct = {posixpath.dirname(name) for name in (*files, *links)}
    parents = direct | {str(parent) for name in direct for parent in PurePosixPath(name).parents}
    skipped.extend((f"{name}/", "an empty folder") for name in folders - parents if name)
    _resolve(links, files, folders | parents, skipped)
    depth = 1 if _is_wrapped([*files, *(name for name, _ in skipped)]) else 0
    members = {_below(name, depth): files[name] for name in sorted(files)}
    return Listing(
        where,
        tuple(File(name, member.size, member.offset) for name, member in members.items()),
        tuple((_below(name, depth), reason) for name, reason in skipped),
        lambda name, count: _read_member(path, members[name], count),
    )


def _pieces(member: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Returns position and length of each piece of a sparse file; None for other files."""
    return member.sparse  # type: ignore[return-value]


def _members(archive: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Yields the members of an archive after checking their offsets and sizes.

    Python's own loop does not end for members with a negative size, before the releases of
    August 2025 (CVE-2025-8194).
    """
    before = -1
    while (member := archive.next()) is not None:
        # tarfile would keep all members in memory.
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
    skipped: list[tuple[str, str]],
) -> None:
    """Adds the targets of links, under the names of the links."""
    for name in sorted(links):
        target, count = links[name], 1
        while target in links and count < _MOST_LINKS:
            target, count = links[target], count + 1
        if target in files:
            files[name] = files[target]
        elif target in folders:
            skipped.append((f"{name}/", "a link to a folder of the archive"))
        else:
            # Without a suffix, it may have been a class folder.
            entry = name if PurePosixPath(name).suffix else f"{name}/"
            skipped.append((entry, "a link to a file that is not in the archive"))


def _require_whole(path: Path, end: int, size: int) -> None:
    """Raises an error unless the archive ends in a block of zeros (POSIX, pax)."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise DataError(
            f"{path} is damaged or incomplete: neither a file nor the end of the archive follows "
            f"byte {end} of {size}; copy or pack it again."
        )


def _normal(name: str) -> str:
    """Normalises a name: resolves `.` and `..`, and removes a leading `/`."""
    normal = posixpath.normpath(name).lstrip("/")
    return "" if normal == "." else normal


def _below(name: str, depth: int) -> str:
    return name.split("/", depth)[-1]


def _is_wrapped(names: list[str]) -> bool:
    """Whether all files are in one folder that is not a split."""
    seen = [name.split("/") for name in names if not is_hidden(name)]
    tops = {parts[0] for parts in seen}
    return len(tops) == 1 and min(map(len, seen)) >= 3 and role_of(*tops) is None


def _not_a_tar(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            return (
                f"{path} is compressed, so that images cannot be read by their offset; "
                f"decompress it first with `{program}`"
            )
    return f"{path} is not a readable tar archive; pass a folder or an uncompressed tar"
