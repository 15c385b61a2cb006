"""HEIC, the format of phones, which Pillow reads with the help of another package."""

import functools

from bit_keras.extras import install_command

#: What installs the decoder.
EXTRA = install_command("heic")

# ISO/IEC 23008-12, annex B: the brands of HEVC images and sequences, and the generic ones.
_BRANDS = frozenset(b"heic heix heim heis hevc hevx hevm hevs mif1 msf1".split())


@functools.cache
def register_heif() -> bool:
    """Lets Pillow read HEIC where pillow-heif is installed; returns whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def is_heif(start: bytes) -> bool:
    """Whether the first 12 bytes of a file are those of HEIC (ISO/IEC 14496-12, `ftyp`)."""
    return start[4:8] == b"ftyp" and start[8:12] in _BRANDS
