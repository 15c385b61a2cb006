"""Which files are images: by the extension, or else by the content."""

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

#: Larger files are not read: an uncompressed TIFF of 179 megapixels with 16 bits, the most that
#: Pillow decodes, has 1.07 GB.
MAXIMUM_BYTES = 1_200_000_000

#: Why a file is not an image. A folder with nothing but texts is not meant as a class.
TEXT = "a text"
EMPTY = "an empty file"
TOO_LARGE = f"a file larger than {MAXIMUM_BYTES / 1e9:g} GB"
HEIF = f"HEIC, which needs {EXTRA}"
OTHER = "not an image that Pillow reads"

# Pillow identifies these and decodes them only with another program (Ghostscript, Windows), or
# not at all.
_NOT_DECODED = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"))

_START = 1024


def why_not_an_image(path: str, size: int, read: Callable[[int | None], bytes]) -> str | None:
    """The reason why a file is not an image, or None for an image.

    An extension of Pillow's is believed: whether such a file can be decoded is found out when
    it is. Other files are identified by their content, as Pillow does it.

    Args:
        path: str. With `/`.
        size: int. Bytes of the file.
        read: callable that gives so many bytes from its start, all for None.
    """
    if size > MAXIMUM_BYTES:
        return TOO_LARGE
    if posixpath.splitext(path)[1].lower() in _extensions():
        return None
    if size == 0:
        return EMPTY
    try:
        start = read(_START)
        if _may_be_image(start) and _is_identified(read(None)):
            return None
    except OSError as error:
        return f"unreadable ({reason_of(error)})"
    if is_heif(start):
        return HEIF
    return TEXT if _is_text(start) else OTHER


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow decodes, the common ones first."""
    # Pillow tries them in the order of their registration.
    Image.preinit()
    Image.init()
    register_heif()
    return tuple(name for name in Image.ID if name in Image.OPEN and name not in _NOT_DECODED)


@functools.cache
def _extensions() -> frozenset[str]:
    """Their extensions; Pillow has others, which it only writes."""
    formats = _formats()
    known = Image.registered_extensions()
    return frozenset(extension for extension, name in known.items() if name in formats)


def _may_be_image(start: bytes) -> bool:
    """Whether one of Pillow's formats begins like this, by its own test of 16 bytes."""
    for name in _formats():
        accept = Image.OPEN[name][1]
        # Such tests fail on files that are shorter than what they look for.
        with contextlib.suppress(IndexError, struct.error):
            if accept is not None and accept(start[:16]) is True:
                return True
    return False


def _is_identified(content: bytes) -> bool:
    """Whether Pillow finds an image in a file, of which it reads the header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(content), formats=list(_formats())).close()
    # Damaged headers raise whatever they lead Pillow to.
    except Exception:
        return False
    return True


def _is_text(start: bytes) -> bool:
    if b"\0" in start or b"<svg" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        # The cut may have parted a character.
        return error.start > len(start) - 4
    return True
