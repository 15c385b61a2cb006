"""What is in a folder or in an archive, before anybody asks which of it are images."""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

_logger = logging.getLogger("bit_keras")


class File(NamedTuple):
    """An ordinary file.

    Attributes:
        path: str. Below the folder or the archive, with `/`.
        size: int. In bytes.
        origin: int, tuple or None. The same for several paths of one file; None for a file
            that is known to have one path only.
    """

    path: str
    size: int
    origin: tuple[int, int] | int | None = None


@dataclasses.dataclass(frozen=True)
class Listing:
    """Everything in a folder or in an archive.

    Attributes:
        where: str. What messages call it.
        files: tuple of File. Those that can be read, each path once.
        left_out: tuple of (path, reason). What is not an ordinary file; `/` ends folders.
        read: callable from a path, and a number of bytes or None, to the start of that file.
    """

    where: str
    files: tuple[File, ...]
    left_out: tuple[tuple[str, str], ...]
    read: Callable[[str, int | None], bytes]


def log_left_out(where: str, left_out: Iterable[tuple[str, str]]) -> None:
    """One line of log for each reason, with the number of files and the first of them."""
    reasons = defaultdict(list)
    for path, reason in left_out:
        reasons[reason].append(path)
    for reason, paths in reasons.items():
        count = "1 file is" if len(paths) == 1 else f"{len(paths):,} files are"
        _logger.warning("%s: %s left out, such as %s: %s.", where, count, shown(paths[0]), reason)


def shown(text: str) -> str:
    """A name as it can be printed and stored: bytes that are not UTF-8 become escapes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
