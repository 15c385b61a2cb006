"""The published weights: from a folder, a mirror or the public address, into a cache."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock
import platformdirs
import requests
import rich.progress

from bit_keras.checkpoints.files import NpzFile
from bit_keras.checkpoints.hugging_face import repository_weights
from bit_keras.checkpoints.transformers_folder import WEIGHTS_FILES
from bit_keras.errors import CheckpointError, DownloadError
from bit_keras.progress import console
from bit_keras.registry import HUGGING_FACE, OFFICIAL_ROOT, PACKAGED, Checkpoint

#: A mirror's address or a local folder that takes the place of `OFFICIAL_ROOT`.
WEIGHTS_VARIABLE = "BIT_KERAS_WEIGHTS"

#: The folder that keeps downloaded files; the user's cache folder by default.
CACHE_VARIABLE = "BIT_KERAS_CACHE"

#: The weights that come with this package.
PACKAGED_FOLDER = Path(__file__).parent / "packaged"

_CHUNK = 1 << 20
_TIMEOUT = (10, 60)  # Seconds to connect, and between two packets.


def cache_folder() -> Path:
    """The folder that downloads are kept in."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("bit_keras"))


def pretrained_path(checkpoint: Checkpoint) -> Path:
    """The local file of a checkpoint, downloaded on first use.

    The environment variable `BIT_KERAS_WEIGHTS` may name a mirror of the official files
    (`https://...`), laid out like the public address, or a local folder, laid out the
    same way or holding the bare files. In a folder, weights that are published on the
    Hugging Face hub lie below the name of their repository, with or without its owner:
    `timm/resnetv2_50.a1h_in1k/model.safetensors`. `BIT_KERAS_CACHE` moves the cache of
    the official files: an interrupted download goes on where it stopped, and a file
    enters the cache only when its size and all its checksums are right. Repositories
    have huggingface_hub's cache; see `hugging_face.repository_weights`.

    Args:
        checkpoint: Checkpoint. See `bit_keras.model_info`.

    Returns:
        Path of a file.

    Raises:
        DownloadError: The file cannot be reached or arrives damaged; the message says
            what to do without a network.

    Example:

    ```python
    checkpoint = bit_keras.model_info("bit_tiny.cifar10")
    bit_keras.checkpoints.pretrained_path(checkpoint).name  # 'bit_tiny.cifar10.npz'
    ```
    """
    if checkpoint.url.startswith(PACKAGED):
        return PACKAGED_FOLDER / checkpoint.file
    source = os.environ.get(WEIGHTS_VARIABLE) or OFFICIAL_ROOT
    if not source.startswith(("http://", "https://")):
        return _from_folder(Path(source), checkpoint)
    if checkpoint.url.startswith(HUGGING_FACE):
        return repository_weights(checkpoint.url)
    relative = checkpoint.url.removeprefix(OFFICIAL_ROOT)
    target = cache_folder() / relative
    if not target.exists():
        with _explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(target.with_name(f".{target.name}.lock")):
                if not target.exists():  # Another process may have been faster.
                    _download(f"{source.rstrip('/')}/{relative}", target, checkpoint)
    return target


def _from_folder(folder: Path, checkpoint: Checkpoint) -> Path:
    path = Path(checkpoint.file)
    files = WEIGHTS_FILES if checkpoint.url.startswith(HUGGING_FACE) else ("",)
    for place in (folder / path, folder / path.name):
        for file in files:
            if (place / file).is_file():
                return place / file
    raise DownloadError(
        f"{WEIGHTS_VARIABLE} names the folder {folder}, and {path / files[0]} of {checkpoint.name} "
        "is not in it; put the file there, or unset the variable to download it."
    )


def _download(url: str, target: Path, checkpoint: Checkpoint) -> None:
    partial = target.with_name(f".{target.name}.partial")
    try:
        _fetch(url, partial, checkpoint)
        _check(partial, checkpoint)
    except requests.RequestException as error:
        raise DownloadError(
            f"{checkpoint.name} needs {target.name}, and {url} cannot be reached "
            f"({_reason(error)}). Get the file on another machine and pass weights='/path/to/"
            f"{target.name}', or put it into a folder and set {WEIGHTS_VARIABLE} to that folder."
        ) from error
    except CheckpointError as error:
        partial.unlink(missing_ok=True)
        raise DownloadError(
            f"{url} arrived damaged and was thrown away; try again. ({error})"
        ) from error
    partial.replace(target)


def _fetch(url: str, partial: Path, checkpoint: Checkpoint) -> None:
    """Downloads to `partial`, going on after the bytes that it holds already."""
    offset = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # A range of compressed bytes would not fit.
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # All bytes are there; the check that follows decides.
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        offset = offset if resumed else 0
        length = response.headers.get("Content-Length")
        total = offset + int(length) if length else checkpoint.bytes
        with partial.open("ab" if resumed else "wb") as file:
            for chunk in _with_progress(response.iter_content(_CHUNK), url, offset, total):
                file.write(chunk)


def _with_progress(
    chunks: Iterable[bytes], url: str, offset: int, total: int | None
) -> Iterable[bytes]:
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(
        *columns, console=console(), disable=not console().is_terminal
    ) as progress:
        task = progress.add_task(url.rsplit("/", 1)[-1], completed=offset, total=total)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))


def _check(partial: Path, checkpoint: Checkpoint) -> None:
    size = partial.stat().st_size
    if checkpoint.bytes is not None and size != checkpoint.bytes:
        raise CheckpointError(f"it has {size} bytes and should have {checkpoint.bytes}")
    if checkpoint.sha256 is not None:
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != checkpoint.sha256:
            raise CheckpointError(f"its sha256 is {digest} and should be {checkpoint.sha256}")
    with NpzFile(partial) as arrays:
        arrays.verify()


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off; the next try goes on from there"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(
            f"{target} cannot be written ({error.strerror or error}); make room, or set "
            f"{CACHE_VARIABLE} to another folder."
        ) from error
