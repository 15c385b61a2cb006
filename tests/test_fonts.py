"""Names in drawings: with a font that has their characters, or legible without one."""

import io
import logging
import unicodedata

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from bit_keras.fonts import lettering_for

CAT = "猫"


@pytest.fixture
def font_of_cats(tmp_path, monkeypatch):
    """An installed font whose only character is a Chinese one."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((500, 0), (500, 700), (0, 700)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord(CAT): "cat"})
    builder.setupGlyf({".notdef": pen.glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "cat": (600, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Cats", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(tmp_path / "cats.ttf")
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(tmp_path / "cats.ttf")


def rendered(lettering, text):
    """A text as PNG; matplotlib warns of a missing glyph, which here is an error."""
    figure = Figure()
    figure.text(0.5, 0.5, lettering.drawable(text), **lettering.options())
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


def test_a_font_that_has_the_characters_is_found(font_of_cats, caplog):
    lettering = lettering_for([f"cat {CAT}"])
    assert lettering.families[-1] == "Cats"
    assert lettering.drawable(CAT) == CAT
    assert rendered(lettering, CAT).startswith(b"\x89PNG")
    assert not caplog.records


def test_characters_without_a_font_are_said_and_stay_legible(monkeypatch, caplog):
    monkeypatch.setattr("bit_keras.fonts._installed", list)
    with caplog.at_level(logging.WARNING, "bit_keras"):
        lettering = lettering_for([f"{CAT}\udce9\x07", "größe"])
    assert CAT in caplog.text
    assert "Install a font" in caplog.text
    assert lettering.drawable(f"a {CAT}") == r"a \u732b"
    assert lettering.drawable("\udce9\x07") == r"\udce9\x07"
    assert rendered(lettering, f"{CAT}\udce9\x07").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name", ["$1_to_$5", "größe", unicodedata.normalize("NFD", "größe"), "two\nlines"]
)
def test_ordinary_names_stay_as_they_are(name, caplog):
    lettering = lettering_for([name])
    assert lettering.drawable(name) == name
    assert rendered(lettering, name).startswith(b"\x89PNG")
    assert not caplog.records
