"""Writes that are whole or absent: beside the target first, then renamed.

A process killed at any moment leaves the old state or the new one, and at worst
a hidden `.partial` beside it, which the next write to the same target removes.
"""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bit_keras.errors import BitKerasError

try:
    import fcntl
except ImportError:  # Windows: a killed process's partials stay there.
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def replaced_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a path to write to, which becomes `path` when the block succeeds.

    Args:
        path: The file to create or to replace. Its folder must exist.

    Raises:
        BitKerasError: The folder does not exist, `path` is a folder, or the
            file system refuses (a full disk, no permission).
    """
    path = Path(path)
    with _explained(path):
        _require_parent(path)
        if path.is_dir():
            raise BitKerasError(f"{path} is a folder, and a file was to be written there.")
        _remove_abandoned(path)
        # The suffix is kept: writers such as Keras choose the format by it.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=f".partial{path.suffix}"
        )
        os.close(handle)
        partial = Path(name)
        try:
            with _locked(partial):
                yield partial
            # mkstemp makes the file private; what replaces it is an ordinary file.
            partial.chmod(0o666 & ~_umask())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a folder to fill, which becomes `path` when the block succeeds.

    Args:
        path: The folder to create. It must not exist, or be empty.

    Raises:
        BitKerasError: `path` exists already, its parent does not, or the file
            system refuses (a full disk, no permission).
    """
    path = Path(path)
    with _explained(path):
        _require_parent(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise BitKerasError(f"{path} exists already; remove it or choose another path.")
        _remove_abandoned(path)
        partial = Path(
            tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        )
        try:
            with _locked(partial):
                yield partial
            partial.chmod(0o777 & ~_umask())
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(partial: Path) -> Iterator[bool]:
    """Locks a partial while its writer lives; yields whether nobody else had done so."""
    if fcntl is None:
        yield False
        return
    handle = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(handle)


def _remove_abandoned(path: Path) -> None:
    """Removes what killed processes left beside `path`; living ones hold a lock."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial*"):
        with contextlib.suppress(OSError), _locked(partial) as abandoned:
            if abandoned and partial.is_dir():
                shutil.rmtree(partial)
            elif abandoned:
                partial.unlink()


def _require_parent(path: Path) -> None:
    if not path.parent.is_dir():
        raise BitKerasError(f"The folder {path.parent} does not exist; create it first.")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except BitKerasError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise BitKerasError(
            f"{path} could not be written ({reason}); nothing was left behind."
        ) from error


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
