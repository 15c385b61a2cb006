"""Lists the files of a folder with one folder per class."""

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bit_keras.data.images import Images, read_part
from bit_keras.data.layout import is_hidden
from bit_keras.data.listing import File, Listing, shown
from bit_keras.data.recognition import why_not_an_image
from bit_keras.errors import DataError, reason_of

#: Reasons to skip a special file, by the first letter of `stat.filemode`.
_SPECIAL = {"p": "a named pipe", "s": "a socket", "c": "a device", "b": "a device"}


def folder_listing(root: Path) -> Listing:
    """Lists all files of a folder and its subfolders; links are followed, cycles are not."""
    walk = _Walk(root)
    return Listing(
        shown(str(root)),
        walk.files(),
        tuple(walk.skipped),
        lambda path, size: read_part(root / path, 0, size),
    )


def loose_images(root: Path) -> Images | None:
    """Returns the images directly in a folder, as one class; None if there are none."""
    try:
        entries = sorted(root.iterdir()) if root.is_dir() else []
        files = [path for path in entries if path.is_file() and not is_hidden(path.name)]
        sizes = {path: path.stat().st_size for path in files}
    except OSError as error:
        raise DataError(f"{root} cannot be read ({reason_of(error)}).") from error
    paths = [
        path
        for path, size in sizes.items()
        if why_not_an_image(path.name, size, functools.partial(read_part, path, 0)) is None
    ]
    if not paths:
        return None
    return Images(
        (shown(root.name),),
        np.zeros(len(paths)),
        [shown(path.name) for path in paths],
        np.array([sizes[path] for path in paths]),
        lambda index: paths[index].read_bytes(),
    )


class _Folder(NamedTuple):
    """A folder to read: its path below the root, and the identities of its parents and itself."""

    path: str
    parents: tuple[tuple[int, int], ...]


class _Walk:
    """Reads a folder: first its own files and folders, then the targets of its links."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._found: list[tuple[File, bool]] = []
        self._links: list[_Folder] = []
        self._linked = False
        self._read: set[tuple[str, tuple[int, int]]] = set()
        self.skipped: list[tuple[str, str]] = []
        try:
            self._walk(_Folder("", (_identity(root.stat()),)))
            # The target of a link may contain further links.
            while self._links:
                self._follow(self._links.pop(0))
        except OSError as error:
            raise DataError(f"{shown(str(root))} cannot be read ({reason_of(error)}).") from error

    def files(self) -> tuple[File, ...]:
        """Returns the ordinary files; those without a link in their path are first."""
        return tuple(
            file if self._linked or several else file._replace(origin=None)
            for file, several in self._found
        )

    def _walk(self, start: _Folder) -> None:
        pending = [start]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(self._absolute(folder.path)), key=lambda e: e.name)
            except OSError as error:
                if not folder.path:
                    raise
                self._skip(f"{folder.path}/", reason_of(error))
                continue
            if not entries and folder.path:
                self._skip(f"{folder.path}/", "an empty folder")
            pending.extend(reversed([*self._folders_of(folder, entries)]))

    def _folders_of(self, folder: _Folder, entries: list[os.DirEntry]) -> Iterator[_Folder]:
        """Records the files and links of a folder, and yields its subfolders."""
        for entry in entries:
            path = f"{folder.path}/{entry.name}" if folder.path else entry.name
            if is_hidden(entry.name):
                continue
            if entry.is_symlink():
                self._links.append(_Folder(path, folder.parents))
            elif entry.is_dir():
                yield _Folder(path, (*folder.parents, _identity(entry.stat())))
            else:
                self._note(path, entry.stat())

    def _follow(self, link: _Folder) -> None:
        absolute = self._absolute(link.path)
        try:
            status = absolute.stat()
        except OSError:
            # Without a suffix, it may have been a class folder.
            self._skip(link.path if Path(link.path).suffix else f"{link.path}/", "a broken link")
            return
        self._linked = True
        if not stat.S_ISDIR(status.st_mode):
            self._note(link.path, status)
            return
        identity, real = _identity(status), os.path.realpath(absolute)
        # Once per class or split, because folders that link to each other have endless paths.
        once = (link.path.partition("/")[0], identity)
        if identity in link.parents or _contains(real, self._real_root):
            self._skip(f"{link.path}/", "a link to a parent folder")
        elif once in self._read:
            self._skip(f"{link.path}/", "a link to a folder that has been read")
        else:
            self._read.add(once)
            self._walk(_Folder(link.path, (*link.parents, identity)))

    def _note(self, path: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            # Some file systems do not number their files.
            origin = _identity(status) if status.st_ino else None
            self._found.append((File(path, status.st_size, origin), status.st_nlink > 1))
            return
        self._skip(path, _SPECIAL.get(stat.filemode(status.st_mode)[0], "not an ordinary file"))

    def _skip(self, path: str, reason: str) -> None:
        self.skipped.append((path, reason))

    def _absolute(self, path: str) -> Path:
        return self._root / path


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _contains(folder: str, other: str) -> bool:
    return os.path.commonpath((folder, other)) == folder
