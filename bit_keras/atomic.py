"""Atomic writes: next to the target first, then renamed.

A process killed at any moment leaves the old state or the new one, and at worst
a hidden `.partial` next to it or a scratch folder, which the next write removes.
"""

import contextlib
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bit_keras.errors import BitKerasError, reason_of

try:
    import fcntl
except ImportError:  # Windows: a killed process's partials stay there.
    fcntl = None  # type: ignore[assignment]

_SCRATCH = "bit_keras."
_SUFFIX = ".partial"


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to write to, which becomes `path` when the block succeeds.

    Args:
        path: The file to create or to replace. Its folder must exist.

    Raises:
        BitKerasError: The folder does not exist, `path` is a folder, a device, a
            pipe or a socket, or the file system refuses (a full disk, no permission).
    """
    path = Path(path)
    with _explained(path):
        require_parent(path)
        require_ordinary(path)
        # The suffix is kept: writers such as Keras choose the format by it.
        with _partial(path.parent, f".{path.name}.", path.suffix) as partial:
            yield partial
            # mkstemp makes the file private; what replaces it is an ordinary file.
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)


@contextlib.contextmanager
def new_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a folder to fill, which becomes `path` when the block succeeds.

    Args:
        path: The folder to create. It must not exist, or must be empty.

    Raises:
        BitKerasError: `path` exists already, its parent does not, or the file
            system refuses (a full disk, no permission).
    """
    path = Path(path)
    with _explained(path):
        require_parent(path)
        if not (path.is_dir() and not any(path.iterdir())):
            require_new(path)
        with _partial(path.parent, f".{path.name}.") as partial:
            yield partial
            partial.chmod(0o777 & ~_umask())
            partial.replace(path)


@contextlib.contextmanager
def scratch_directory(next_to: Path | None = None) -> Iterator[Path]:
    """Yields an empty folder that is deleted when the block ends.

    What killed processes left is removed by the next call, or by the next write to the
    target that the folder stood next to.

    Args:
        next_to: Path. The file that `replaced_file` yields, to have the folder on the same
            file system. Defaults to `None`, the system's folder for temporary files.

    Raises:
        BitKerasError: The file system refuses (a full disk, no permission).
    """
    parent = Path(tempfile.gettempdir()) if next_to is None else next_to.parent
    prefix = _SCRATCH if next_to is None else f"{next_to.name}."
    with contextlib.ExitStack() as stack:
        with _explained(parent):
            folder = stack.enter_context(_partial(parent, prefix))
        yield folder


@contextlib.contextmanager
def _partial(parent: Path, prefix: str, suffix: str | None = None) -> Iterator[Path]:
    """Yields a new file of a suffix or, without one, a new folder.

    It is locked until it has its final name or is deleted. What killed processes left is
    removed before.
    """
    _remove_abandoned(parent, prefix)
    partial, handle = _created(parent, prefix, suffix)
    try:
        yield partial
    finally:
        with contextlib.suppress(FileNotFoundError):
            _remove(partial)
        if handle is not None:
            os.close(handle)


def _created(parent: Path, prefix: str, suffix: str | None) -> tuple[Path, int | None]:
    """A new partial and the handle that its lock lives as long as."""
    while True:
        if suffix is None:
            name = tempfile.mkdtemp(_SUFFIX, prefix, parent)
        else:
            handle, name = tempfile.mkstemp(f"{_SUFFIX}{suffix}", prefix, parent)
            os.close(handle)
        partial = Path(name)
        if fcntl is None:
            return partial, None
        # Before it is locked, another process may take it for abandoned and remove it.
        with contextlib.suppress(FileNotFoundError):
            handle = os.open(partial, os.O_RDONLY)
            with contextlib.suppress(OSError):  # Some network file systems have no locks.
                fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink and partial.exists():
                return partial, handle
            os.close(handle)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Removes what killed processes of this user left; living ones have a lock."""
    if fcntl is None:
        return
    for partial in parent.glob(f"{glob.escape(prefix)}*{_SUFFIX}*"):
        with contextlib.suppress(OSError):
            status = partial.lstat()
            if status.st_uid != os.geteuid() or stat.S_ISLNK(status.st_mode):
                continue
            handle = os.open(partial, os.O_RDONLY | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(partial)
            finally:
                os.close(handle)


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink()


@contextlib.contextmanager
def locked_folder(folder: Path, busy: str, error: type[BitKerasError]) -> Iterator[None]:
    """Keeps other processes from working in a folder while the block runs.

    Args:
        folder: Path. It must exist.
        busy: str. The message where another process has locked it.
        error: type. What to raise.

    Raises:
        BitKerasError: Another process has locked the folder, or it cannot be written.
    """
    # Here: few commands lock, and those that only predict start sooner.
    import filelock

    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise error(busy) from None
    except OSError as reason:
        raise error(f"{folder} cannot be written ({reason_of(reason)}).") from reason
    try:
        yield
    finally:
        lock.release()


def require_parent(path: Path, error: type[BitKerasError] = BitKerasError) -> None:
    """Raises where the folder that `path` is to be written in does not exist.

    Args:
        path: Path. A file or a folder.
        error: type. What to raise. Defaults to `BitKerasError`.
    """
    if not path.parent.is_dir():
        raise error(f"The folder {path.parent} does not exist; create it first.")


def require_new(path: Path, error: type[BitKerasError] = BitKerasError) -> None:
    """Raises where `path` exists, for commands that replace nothing.

    Args:
        path: Path. A file or a folder.
        error: type. What to raise. Defaults to `BitKerasError`.
    """
    if path.exists():
        raise error(f"{path} exists already; remove it or choose another path.")


def require_own(path: Path, marker: str, what: str, error: type[BitKerasError]) -> None:
    """Raises where `path` is a file, or a folder with other files and without a marker.

    Hidden files are ignored.

    Args:
        path: Path. A folder to write or to continue.
        marker: str. The file or folder in it by which it is recognised.
        what: str. What such a folder is, for the message.
        error: type. What to raise.
    """
    if not path.exists() or (path / marker).exists():
        return
    if not path.is_dir():
        raise error(f"{path} is a file, not a folder; choose another path.")
    strangers = sorted(each.name for each in path.iterdir() if not each.name.startswith("."))
    if strangers:
        raise error(f"{path} contains {strangers[0]} and is not {what}; choose another path.")


def require_ordinary(path: Path) -> None:
    """Raises where a file cannot be written to `path`: a folder, a device, a pipe or a socket."""
    if path.is_dir():
        raise BitKerasError(f"{path} is a folder, and a file was to be written there.")
    if path.exists() and not path.is_file():
        raise BitKerasError(
            f"{path} is a device, a pipe or a socket; choose the path of an ordinary file."
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except BitKerasError:
        raise
    except OSError as error:
        raise BitKerasError(
            f"{path} could not be written ({reason_of(error)}); nothing was left behind."
        ) from error


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
