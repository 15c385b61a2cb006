"""The files of a folder or of an archive, images or not."""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

_logger = logging.getLogger("bit_keras")


class File(NamedTuple):
    """An ordinary file.

    Attributes:
        path: str. Path below the folder or the archive, with `/`.
        size: int. Size in bytes.
        origin: int, tuple or None. Identity of the file, equal for all of its paths; None for
            a file that is known to have only one path.
    """

    path: str
    size: int
    origin: tuple[int, int] | int | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """All entries of a folder or of an archive.

    Attributes:
        where: str. Name of the folder or archive, for messages.
        files: tuple of File. The files that can be read, each path once.
        skipped: tuple of (path, reason). Other entries; paths of folders end in `/`.
        read: callable from a path, and a number of bytes or None, to the start of that file.
    """

    where: str
    files: tuple[File, ...]
    skipped: tuple[tuple[str, str], ...]
    read: Callable[[str, int | None], bytes]


def log_skipped(where: str, skipped: Iterable[tuple[str, str]]) -> None:
    """Logs one line for each reason, with the number of files and the first of them."""
    reasons = defaultdict(list)
    for path, reason in skipped:
        reasons[reason].append(path)
    for reason, paths in reasons.items():
        count = "1 file is" if len(paths) == 1 else f"{len(paths):,} files are"
        _logger.warning("%s: %s skipped, such as %s: %s.", where, count, shown(paths[0]), reason)


def shown(text: str) -> str:
    """Returns a printable name: bytes that are not UTF-8 are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
