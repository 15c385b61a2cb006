"""The published weights: from a folder, a mirror or the public address, into a cache."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import platformdirs

from bit_keras.checkpoints.digests import Digests
from bit_keras.checkpoints.files import NpzFile
from bit_keras.checkpoints.http_file import (
    HTTP_ERRORS,
    TIMEOUT,
    connection_failure,
    fetch_file,
    without_password,
)
from bit_keras.checkpoints.hugging_face import repository_weights
from bit_keras.checkpoints.transformers_folder import WEIGHTS_FILES
from bit_keras.errors import CheckpointError, DownloadError, reason_of
from bit_keras.registry import HUGGING_FACE, OFFICIAL_ROOT, PACKAGED, Checkpoint

#: A mirror's address or a local folder that takes the place of `OFFICIAL_ROOT`.
WEIGHTS_VARIABLE = "BIT_KERAS_WEIGHTS"

#: The folder that keeps downloaded files; the user's cache folder by default.
CACHE_VARIABLE = "BIT_KERAS_CACHE"

#: The weights that come with this package.
PACKAGED_FOLDER = Path(__file__).parent / "packaged"

#: The file of recorded digests, in the cache.
_DIGESTS = "sha256sums.txt"

#: Seconds between two looks at another process's download, and without a new byte of it.
_POLL, _STALLED = 1.0, 2.0 * TIMEOUT[1]

#: Official files have float32 values; twice that leaves room for names and for other types.
_BYTES_PER_PARAMETER = 8
_HEADERS = 1 << 20

_logger = logging.getLogger("bit_keras")


def cache_folder() -> Path:
    """The folder that downloads are kept in."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("bit_keras"))


def pretrained_path(checkpoint: Checkpoint) -> Path:
    """The local file of a checkpoint, downloaded on first use.

    The environment variable `BIT_KERAS_WEIGHTS` may name a mirror of the official files
    (`https://...`), laid out like the public address, or a local folder, laid out the
    same way or with the bare files. In a folder, weights that are published on the
    Hugging Face hub are below the name of their repository, with or without its owner:
    `timm/resnetv2_50.a1h_in1k/model.safetensors`. `BIT_KERAS_CACHE` moves the cache of
    the official files: an interrupted download resumes where it stopped, and a file enters the
    cache only when its size and all its checksums are right. Repositories have
    huggingface_hub's cache; see `hugging_face.repository_weights`.

    The sha256 digest of a file is recorded on first use, in `sha256sums.txt` of the cache
    or the file that `BIT_KERAS_DIGESTS` names, and later downloads must have the same.
    With `BIT_KERAS_LOCKED=1`, files without a known digest are refused, and the digest of
    every file is compared on every use.

    Args:
        checkpoint: Checkpoint. See `bit_keras.model_info`.

    Returns:
        Path of a file.

    Raises:
        DownloadError: The file cannot be reached, is damaged, is larger than it can be or
            has another digest; the message says what to do without a network.

    Example:

    ```python
    from bit_keras.checkpoints.download import pretrained_path

    checkpoint = bit_keras.model_info("bit_tiny.cifar10")
    pretrained_path(checkpoint).name  # 'bit_tiny.cifar10.npz'
    ```
    """
    if checkpoint.url.startswith(PACKAGED):
        return PACKAGED_FOLDER / checkpoint.file
    digests = Digests(cache_folder() / _DIGESTS)
    source = os.environ.get(WEIGHTS_VARIABLE) or OFFICIAL_ROOT
    local = not source.startswith(("http://", "https://"))
    in_repository = checkpoint.url.startswith(HUGGING_FACE)
    if local:
        path = _from_folder(source, checkpoint)
    elif in_repository:
        path = repository_weights(checkpoint.url)
    else:
        path = _cached(source, checkpoint, digests)
    key = f"{checkpoint.file}/{path.name}" if in_repository else checkpoint.file
    if digests.locked or not (local or digests.known(key, checkpoint.sha256)):
        try:
            digests.check(path, key, checkpoint.sha256)
        except CheckpointError as error:
            raise DownloadError(
                f"{path} is not the file that {checkpoint.name} should have ({error}); delete it "
                "to download it again."
            ) from error
    return path


def _cached(source: str, checkpoint: Checkpoint, digests: Digests) -> Path:
    relative = checkpoint.url.removeprefix(OFFICIAL_ROOT)
    target = cache_folder() / relative
    digests.known(checkpoint.file, checkpoint.sha256)  # Before gigabytes are downloaded.
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            if not target.exists():  # Another process may have been faster.
                _download(f"{source.rstrip('/')}/{relative}", target, checkpoint, digests)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written ({reason_of(error)}); make room, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
    return target


def _from_folder(folder: str, checkpoint: Checkpoint) -> Path:
    path = Path(checkpoint.file)
    files = WEIGHTS_FILES if checkpoint.url.startswith(HUGGING_FACE) else ("",)
    for place in (Path(folder) / path, Path(folder) / path.name):
        for file in files:
            if (place / file).is_file():
                return place / file
    raise DownloadError(
        f"{WEIGHTS_VARIABLE} names the folder {without_password(folder)}, and "
        f"{path / files[0]} of {checkpoint.name} is not in it; put the file there, or unset the "
        "variable to download it."
    )


def _download(url: str, target: Path, checkpoint: Checkpoint, digests: Digests) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shown = without_password(url)
    try:
        _fetch(url, partial, checkpoint, digests)
    except CheckpointError as error:
        partial.unlink(missing_ok=True)
        raise DownloadError(
            f"{shown} failed its check and was deleted; try again. ({error})"
        ) from error
    except DownloadError as error:
        raise DownloadError(without_password(str(error))) from error
    except HTTP_ERRORS as error:
        raise DownloadError(
            f"{checkpoint.name} needs {target.name}, and {shown} cannot be reached "
            f"({without_password(connection_failure(error))}). Get the file on another machine and "
            f"pass weights='/path/to/{target.name}', or put it into a folder and set "
            f"{WEIGHTS_VARIABLE} to that folder."
        ) from error
    partial.replace(target)


def _fetch(url: str, partial: Path, checkpoint: Checkpoint, digests: Digests) -> None:
    """Downloads and checks; what was resumed may begin like another file, so it starts over."""
    resumed = partial.exists() and partial.stat().st_size > 0
    limit = _BYTES_PER_PARAMETER * checkpoint.parameters + _HEADERS
    fetch_file(url, partial, checkpoint.bytes, limit)
    try:
        _check(partial, checkpoint, digests)
    except CheckpointError as error:
        if not resumed:
            raise
        shown = without_password(url)
        _logger.info("%s: what was resumed is damaged (%s); starting over.", shown, error)
        partial.unlink()
        _fetch(url, partial, checkpoint, digests)


def _check(partial: Path, checkpoint: Checkpoint, digests: Digests) -> None:
    size = partial.stat().st_size
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        raise CheckpointError(f"it has {size} bytes and should have {checkpoint.bytes}")
    with NpzFile(partial) as arrays:
        arrays.verify()
    digests.check(partial, checkpoint.file, checkpoint.sha256)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Waits for other processes that download the same file, and says so."""
    lock = filelock.FileLock(target.with_name(f".{target.name}.lock"))
    partial = target.with_name(f".{target.name}.partial")
    size, since = -1, time.monotonic()
    while True:
        try:
            with lock.acquire(timeout=_POLL):
                yield
            return
        except filelock.Timeout:
            pass
        now = partial.stat().st_size if partial.exists() else 0
        if size == -1:
            _logger.info("Waiting for another process, which downloads %s.", target)
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > _STALLED:
            raise DownloadError(
                f"Another process has downloaded nothing of {target} for {_STALLED:.0f} seconds; "
                f"resume or end it (it has locked {lock.lock_file}), and try again."
            )
