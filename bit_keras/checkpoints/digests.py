"""Digests of the published weights: the registry's, the user's, or recorded on first use."""

import hashlib
import logging
import os
import re
from pathlib import Path

import filelock

from bit_keras.atomic import replaced_file
from bit_keras.errors import BitKerasError, CheckpointError, DownloadError

#: Names the file of digests; by default it is in the cache.
DIGESTS_VARIABLE = "BIT_KERAS_DIGESTS"

#: Where it is set, weights without a known digest are refused, and cached files are checked too.
LOCKED_VARIABLE = "BIT_KERAS_LOCKED"

#: As `sha256sum` writes and checks it.
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")

_logger = logging.getLogger("bit_keras")


class Digests:
    """The sha256 digests that are known, and those that are recorded.

    Of the published checkpoints only the packaged one has a digest in the registry. For
    all others the first download is trusted: its digest is recorded in a file of the
    format of `sha256sum`, and every later download must have the same one.

    Args:
        path: Path of the file. `BIT_KERAS_DIGESTS` takes its place.

    Attributes:
        path: Path of the file that is read and written.
        locked: bool. Whether only known digests are accepted (`BIT_KERAS_LOCKED`).
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.environ.get(DIGESTS_VARIABLE) or path)
        self.locked = os.environ.get(LOCKED_VARIABLE, "0") not in ("", "0")

    def known(self, name: str, published: str | None = None) -> str | None:
        """The digest that a file must have, where one is known. Locked, one must be.

        Args:
            name: str. The file below the public address, or repository and file.
            published: str or None. The digest that the registry has.

        Raises:
            DownloadError: No digest is known, and only known ones are accepted; or the
                file of digests cannot be read.
        """
        known = published or self._read().get(name)
        if known is None and self.locked:
            raise DownloadError(
                f"{name} has no digest in {self.path}, and {LOCKED_VARIABLE} (--locked) accepts no "
                f"other weights; add a line 'SHA256  {name}', or load the model once without "
                "--locked, which records the digest."
            )
        return known

    def check(self, file: Path, name: str, published: str | None = None) -> None:
        """Compares the digest of a file, and records it where none is known.

        Raises:
            CheckpointError: The file has another digest.
            DownloadError: The file of digests cannot be read.
        """
        known = self.known(name, published)
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if known is None:
            self._record(name, digest)
        elif digest != known:
            source = "the registry" if published else self.path
            raise CheckpointError(f"its sha256 is {digest} and should be {known}, as {source} says")

    def _read(self) -> dict[str, str]:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, UnicodeError) as error:
            raise DownloadError(f"The digests in {self.path} cannot be read ({error}).") from error
        digests = {}
        for number, line in enumerate(lines, 1):
            match = _LINE.fullmatch(line)
            if match is not None:
                digests[match[2]] = match[1]
            elif line.strip() and not line.startswith("#"):
                raise DownloadError(
                    f"Line {number} of {self.path} is not 'SHA256  FILE' as sha256sum writes it."
                )
        return digests

    def _record(self, name: str, digest: str) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.path.with_name(f".{self.path.name}.lock")):
                before = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
                end = "" if before.endswith("\n") or not before else "\n"
                with replaced_file(self.path) as partial:
                    partial.write_text(f"{before}{end}{digest}  {name}\n", encoding="utf-8")
        except (OSError, BitKerasError) as error:  # A cache that others fill may be read-only.
            _logger.info("The digest of %s could not be recorded: %s", name, error)
