"""Pictures in an uncompressed tar of class folders, read where they lie."""

import functools
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from bit_keras.data.images import Images, read_part
from bit_keras.data.layout import SPLIT_NAMES, Layout, layout_of, require_split
from bit_keras.errors import DataError

# The first bytes of what is often taken for a plain tar, by the program that undoes it.
_COMPRESSED = MappingProxyType(
    {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
)


def tar_splits(path: Path) -> tuple[str, ...]:
    """The splits of an archive, or `()`."""
    return _layout(path).splits


def tar_images(path: Path, split: str | None) -> Images:
    """The pictures of a tar with `<class>/**/<picture>` or `<split>/<class>/**/<picture>`.

    Nothing is extracted: pictures are read by their offset. One folder around
    all others, as packing a folder makes it, is looked into.
    """
    layout = _layout(path)
    require_split(split, layout.splits, str(path))
    names, targets = layout.part(split)
    index = _index(path)
    places = np.array([index[name] for name in names])
    return Images(
        layout.classes,
        np.array(targets),
        names,
        places[:, 1],
        lambda picture: read_part(path, *places[picture].tolist()),
    )


def _layout(path: Path) -> Layout:
    return layout_of(list(_index(path)), str(path))


def _index(path: Path) -> Mapping[str, tuple[int, int]]:
    """Offset and size of every file in an archive, by its name, in order of names."""
    try:
        status = path.stat()
        return _read_index(path.resolve(), status.st_mtime_ns, status.st_size)
    except tarfile.TarError as error:
        raise DataError(f"{_not_a_tar(path)} ({error}).") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error


@functools.lru_cache(maxsize=2)
def _read_index(path: Path, _modified: int, size: int) -> Mapping[str, tuple[int, int]]:
    # "r:" refuses compressed archives, whose members have no place of their own.
    with tarfile.open(path, "r:") as archive:
        members = [member for member in archive if member.isreg()]
        end = archive.offset
    _require_whole(path, end, size)
    files = {_parts(member.name): (member.offset_data, member.size) for member in members}
    depth = 1 if _is_wrapped(list(files)) else 0
    named = {"/".join(parts[depth:]): place for parts, place in files.items()}
    return MappingProxyType(dict(sorted(named.items())))


def _require_whole(path: Path, end: int, size: int) -> None:
    """Raises unless the archive goes on to its end: a block of zeros (POSIX, pax)."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise DataError(
            f"{path} is damaged or was not copied to its end: behind byte {end} of {size} neither "
            "a file nor the end of the archive follows; copy or pack it again."
        )


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in PurePosixPath(name).parts if part != "/")


def _is_wrapped(files: list[tuple[str, ...]]) -> bool:
    tops = {parts[0] for parts in files if not parts[0].startswith(".")}
    nested = all(len(parts) >= 3 for parts in files if parts[0] in tops)
    return len(tops) == 1 and nested and not tops & set(SPLIT_NAMES)


def _not_a_tar(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    for magic, program in _COMPRESSED.items():
        if start.startswith(magic):
            return (
                f"{path} is compressed, and pictures are read from the middle of an archive; "
                f"decompress it first with `{program}`"
            )
    return f"{path} is no tar archive that can be read; pass a folder, or an uncompressed tar"
