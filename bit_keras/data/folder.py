"""Images in a folder with one folder per class."""

import functools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bit_keras.data.images import Images
from bit_keras.data.layout import is_hidden
from bit_keras.data.listing import File, Listing, shown
from bit_keras.data.recognition import why_not_an_image
from bit_keras.errors import DataError, reason_of

#: Why an entry of a folder is not read.
_DANGLING = "a link that leads nowhere"
_CIRCLE = "a link that leads back to a folder around it"
_TWICE = "a link to a folder that is read already"
_EMPTY = "an empty folder"

_SPECIAL = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def folder_listing(root: Path) -> Listing:
    """All files of a folder and of those below it; links are followed, circles are not."""
    walk = _Walk(root)
    return Listing(
        shown(str(root)),
        walk.files(),
        tuple(walk.left_out),
        lambda path, size: read_start(root / path, size),
    )


def loose_images(root: Path) -> Images | None:
    """The images in a folder itself, all of one class; None where there are none."""
    try:
        entries = sorted(root.iterdir())
        files = [path for path in entries if path.is_file() and not is_hidden(path.name)]
        sizes = {path: path.stat().st_size for path in files}
    except OSError as error:
        raise DataError(f"{root} cannot be read ({reason_of(error)}).") from error
    paths = [
        path
        for path, size in sizes.items()
        if why_not_an_image(path.name, size, functools.partial(read_start, path)) is None
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


def read_start(path: Path, size: int | None) -> bytes:
    """So many bytes from the start of a file, all of them for None."""
    with path.open("rb") as file:
        return file.read(-1 if size is None else size)


class _Folder(NamedTuple):
    """A folder to read: its path below the root, and the identity of each folder around it."""

    path: str
    around: tuple[tuple[int, int], ...]


class _Walk:
    """Reads a folder: first what is in it, then what links in it lead to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._found: list[tuple[File, bool]] = []
        self._links: list[_Folder] = []
        self._linked = False
        self._read: set[tuple[str, tuple[int, int]]] = set()
        self.left_out: list[tuple[str, str]] = []
        try:
            self._walk(_Folder("", (_identity(root.stat()),)))
            # More links may come to light behind a link.
            while self._links:
                self._follow(self._links.pop(0))
        except OSError as error:
            raise DataError(f"{shown(str(root))} cannot be read ({reason_of(error)}).") from error

    def files(self) -> tuple[File, ...]:
        """The ordinary files, those without a link in their path first."""
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
                self._leave_out(f"{folder.path}/", reason_of(error))
                continue
            if not entries and folder.path:
                self._leave_out(f"{folder.path}/", _EMPTY)
            pending.extend(reversed([*self._folders_of(folder, entries)]))

    def _folders_of(self, folder: _Folder, entries: list[os.DirEntry]) -> Iterator[_Folder]:
        """Notes the files and links of a folder; yields the folders in it."""
        for entry in entries:
            path = f"{folder.path}/{entry.name}" if folder.path else entry.name
            if is_hidden(entry.name):
                continue
            if entry.is_symlink():
                self._links.append(_Folder(path, folder.around))
            elif entry.is_dir():
                yield _Folder(path, (*folder.around, _identity(entry.stat())))
            else:
                self._note(path, entry.stat())

    def _follow(self, link: _Folder) -> None:
        absolute = self._absolute(link.path)
        try:
            status = absolute.stat()
        except OSError:
            # It may have been a class folder where its name has no suffix.
            self._leave_out(link.path if Path(link.path).suffix else f"{link.path}/", _DANGLING)
            return
        self._linked = True
        if not stat.S_ISDIR(status.st_mode):
            self._note(link.path, status)
            return
        identity, real = _identity(status), os.path.realpath(absolute)
        # Once below each class or split: folders that link to each other have no end of paths.
        once = (link.path.partition("/")[0], identity)
        if identity in link.around or _contains(real, self._real_root):
            self._leave_out(f"{link.path}/", _CIRCLE)
        elif once in self._read:
            self._leave_out(f"{link.path}/", _TWICE)
        else:
            self._read.add(once)
            self._walk(_Folder(link.path, (*link.around, identity)))

    def _note(self, path: str, status: os.stat_result) -> None:
        if stat.S_ISREG(status.st_mode):
            # Some file systems have no numbers for their files.
            origin = _identity(status) if status.st_ino else None
            self._found.append((File(path, status.st_size, origin), status.st_nlink > 1))
            return
        kinds = (reason for test, reason in _SPECIAL if test(status.st_mode))
        self._leave_out(path, next(kinds, "not an ordinary file"))

    def _leave_out(self, path: str, reason: str) -> None:
        self.left_out.append((path, reason))

    def _absolute(self, path: str) -> Path:
        return self._root / path


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _contains(folder: str, other: str) -> bool:
    return os.path.commonpath((folder, other)) == folder
