"""Fonts for names in plots: matplotlib's own has no Chinese, Japanese or Korean characters."""

import functools
import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

_logger = logging.getLogger("bit_keras")


class Lettering(NamedTuple):
    """How matplotlib renders some texts.

    Attributes:
        families: tuple of str. Fonts, each for what those before it lack.
        missing: frozenset of str. Characters that no installed font has.
    """

    families: tuple[str, ...]
    missing: frozenset[str]

    def options(self) -> dict[str, Any]:
        """Arguments of matplotlib's texts; a dollar sign in them does not begin a formula."""
        return {"family": list(self.families), "parse_math": False}

    def drawable(self, text: str) -> str:
        """A text with the escapes of Python for what no font has, instead of empty boxes."""
        return "".join(
            character.encode("unicode_escape").decode() if character in self.missing else character
            for character in text
        )


def lettering_for(texts: Iterable[str]) -> Lettering:
    """Finds installed fonts that have the characters of texts, and logs what none has."""
    import matplotlib

    # A list in matplotlib's settings, so a user's own choice is first.
    families = list(matplotlib.rcParams["font.family"])
    characters = {character for text in texts for character in text} - {"\n"}
    # What is not printable (bytes that are not UTF-8, control characters) has no glyph anywhere.
    hidden = {character for character in characters if not character.isprintable()}
    missing = {c for c in characters - hidden if ord(c) not in _default_characters()}
    for family, path in _installed() if missing else ():
        found = {character for character in missing if ord(character) in _characters(path)}
        if found:
            families.append(family)
            missing -= found
        if not missing:
            break
    if missing:
        _logger.warning(
            "No installed font has the characters %s; plots have their code points instead. "
            "Install a font that has them, such as Noto Sans CJK.",
            " ".join(sorted(missing)[:10]) + (" ..." if len(missing) > 10 else ""),
        )
    return Lettering(tuple(families), frozenset(missing | hidden))


@functools.cache
def _default_characters() -> frozenset[int]:
    from matplotlib import font_manager

    return _characters(font_manager.findfont(font_manager.FontProperties()))


def _installed() -> list[tuple[str, str]]:
    """Family and file of upright fonts of normal weight, those without serifs first."""
    import matplotlib
    from matplotlib import font_manager

    fonts = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal", "regular")
        # Its own ones are for formulas, and one has a box for every character there is.
        and not font.fname.startswith(matplotlib.get_data_path())
    }
    return sorted(fonts.items(), key=lambda font: ("sans" not in font[0].lower(), font))


@functools.cache
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    # A damaged font cannot be used.
    except (OSError, RuntimeError):
        return frozenset()
