"""Recognises image files by their extension or else by their content."""

import contextlib
import functools
import io
import posixpath
import struct
import warnings
from collections.abc import Callable

from PIL import Image

from bit_keras.errors import reason_of
from bit_keras.preprocessing.heif import EXTRA, is_heif, register_heif

#: Larger files are not read. The largest image that Pillow decodes, an uncompressed TIFF of
#: 179 megapixels with 16 bits, has 1.07 GB.
MAXIMUM_BYTES = 1_200_000_000

#: Why a text is not an image. A folder with only texts is not a class.
TEXT = "a text"

# Pillow identifies these, but needs another program to decode them (Ghostscript, Windows) or
# cannot decode them.
_NOT_DECODED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))

_START = 1024


def why_not_an_image(path: str, size: int, read: Callable[[int | None], bytes]) -> str | None:
    """Returns the reason why a file is not an image, or None for an image.

    A file with an extension of an image format counts as an image, even if it cannot be
    decoded later. Other files are identified by their content, by Pillow.

    Args:
        path: str. Path with `/`.
        size: int. Size of the file in bytes.
        read: callable from a number of bytes, or None for all, to the start of the file.
    """
    if size > MAXIMUM_BYTES:
        return f"a file larger than {MAXIMUM_BYTES / 1e9:g} GB"
    if posixpath.splitext(path)[1].lower() in _extensions():
        return None
    if size == 0:
        return "an empty file"
    try:
        start = read(_START)
        if _may_be_image(start) and _is_identified(read(None)):
            return None
    except OSError as error:
        return f"unreadable ({reason_of(error)})"
    if is_heif(start):
        return f"HEIC, which needs {EXTRA}"
    return TEXT if _is_text(start) else "not an image that Pillow reads"


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns the formats that Pillow decodes, common ones first."""
    # Pillow tries the formats in the order of their registration.
    Image.preinit()
    Image.init()
    register_heif()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NOT_DECODED)


@functools.cache
def _extensions() -> frozenset[str]:
    """Returns the extensions of these formats; Pillow has further formats that it only writes."""
    formats = _formats()
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats)


def _may_be_image(start: bytes) -> bool:
    """Whether a format of Pillow accepts the first 16 bytes."""
    for name in _formats():
        accept = Image.OPEN[name][1]
        # Pillow's tests can fail on short files.
        with contextlib.suppress(IndexError, struct.error):
            if accept is not None and accept(start[:16]) is True:
                return True
    return False


def _is_identified(content: bytes) -> bool:
    """Whether Pillow identifies an image by the header of a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(content), formats=list(_formats())).close()
    # Pillow can raise any exception for a damaged header.
    except Exception:
        return False
    return True


def _is_text(start: bytes) -> bool:
    if b"\0" in start or b"<svg" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be incomplete.
        return error.start > len(start) - 4
    return True
