"""One file over HTTP: resumed where an earlier try stopped, and never larger than it may be."""

import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests
import rich.progress
import urllib3.exceptions

from bit_keras.errors import DownloadError, reason_of
from bit_keras.progress import console

_CHUNK = 1 << 20
TIMEOUT = (10, 60)  # Seconds to connect, and between two packets.

#: What `requests` and the library below it raise for servers and addresses that do not work.
#: A malformed address in a redirect raises several subclasses of ValueError.
HTTP_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, ValueError)

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


def fetch_file(url: str, partial: Path, size: int | None, limit: int) -> None:
    """Downloads to `partial`, after the bytes that it contains already.

    Args:
        url: str. `http://` or `https://`.
        partial: Path of the file to write. It may contain the beginning.
        size: int or None. The exact number of bytes, where it is known.
        limit: int. The number of bytes that the file cannot exceed.

    Raises:
        DownloadError: The file is larger than it may be or than the disk's free space, or a
            redirect leaves HTTPS.
        HTTP_ERRORS: The server cannot be reached or does not have the file.
    """
    limit = limit if size is None else size
    offset = partial.stat().st_size if partial.exists() else 0
    if offset > limit:  # The beginning of another file.
        partial.unlink()
        offset = 0
    with _get(url, offset) as response:
        start, total = _part_sent(response)
        if offset and response.status_code == requests.codes.requested_range_not_satisfiable:
            if total in (None, offset):
                return  # All bytes are there; the caller's check decides.
        else:
            response.raise_for_status()
            if start in (0, offset):
                _write(response, partial, start, total, limit)
                return
    if not offset:
        raise DownloadError(f"{url} returned a part of the file that was not requested.")
    # The server has a file of another size, or returned another part.
    partial.unlink()
    fetch_file(url, partial, size, limit)


def _get(url: str, offset: int) -> requests.Response:
    headers = {"Accept-Encoding": "identity"}  # A range of compressed bytes would not fit.
    if offset:
        headers["Range"] = f"bytes={offset}-"
    response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise DownloadError(f"{url} redirects to an address without encryption.")
    return response


def _part_sent(response: requests.Response) -> tuple[int | None, int | None]:
    """Where the body begins in the file, and the size of the file, as far as it is stated."""
    if response.status_code == requests.codes.ok:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None:
        return None, None
    start, total = match.groups()
    return int(start) if start else None, int(total) if total != "*" else None


def _write(
    response: requests.Response, partial: Path, start: int, total: int | None, limit: int
) -> None:
    url = response.request.url or response.url
    if total is not None and total > limit:
        raise DownloadError(f"{url} has {total:,} bytes, and the file cannot exceed {limit:,}.")
    missing, free = (total or start) - start, shutil.disk_usage(partial.parent).free
    if missing > free:
        raise DownloadError(
            f"{url} needs {missing:,} more bytes in {partial.parent}, and {free:,} are free there."
        )
    name = partial.name.removeprefix(".").removesuffix(".partial")
    written = start
    with partial.open("ab" if start else "wb") as file:
        for chunk in _with_progress(response.iter_content(_CHUNK), name, start, total):
            written += len(chunk)
            if written > limit:
                break
            file.write(chunk)
    if written > limit:
        partial.unlink()
        raise DownloadError(f"{url} sent more than the {limit:,} bytes that the file can have.")


def _with_progress(
    chunks: Iterable[bytes], name: str, start: int, total: int | None
) -> Iterator[bytes]:
    display = rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
        console=console(),
        disable=not console().is_terminal,
    )
    with display:
        task = display.add_task(name, completed=start, total=total)
        for chunk in chunks:
            yield chunk
            display.advance(task, len(chunk))


def connection_failure(error: Exception) -> str:
    """Why a server could not be reached, in a few words."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"status {error.response.status_code}"
    stalled = isinstance(error, requests.ConnectionError) and any(
        isinstance(cause, urllib3.exceptions.ReadTimeoutError) for cause in error.args
    )
    if stalled or isinstance(error, requests.ReadTimeout):
        return f"it sent nothing for {TIMEOUT[1]} seconds; the next try resumes"
    if isinstance(error, requests.Timeout):
        return "no connection in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off; the next try resumes"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return reason_of(error)


def without_password(text: str) -> str:
    """A text without the user and the password of the addresses in it."""
    return re.sub(r"//[^/\s]*@", "//***@", text)
