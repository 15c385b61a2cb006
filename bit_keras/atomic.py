"""Writes that are whole or absent: beside the target first, then renamed.

A process killed at any moment leaves the old state or the new one, and at worst
a hidden `.partial` beside it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bit_keras.errors import BitKerasError


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
        # The suffix is kept: writers such as Keras choose the format by it.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=f".partial{path.suffix}"
        )
        os.close(handle)
        partial = Path(name)
        try:
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
        partial = Path(
            tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        )
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


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
