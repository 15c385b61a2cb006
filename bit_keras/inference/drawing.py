"""Explanations as a figure: class maps over the photos that they belong to."""

import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_keras.atomic import replaced_file, require_parent
from bit_keras.errors import BitKerasError
from bit_keras.extras import require_extra
from bit_keras.fonts import Lettering, lettering_for
from bit_keras.inference.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

#: What the suffix of the file may be.
FORMATS = (".png", ".jpg", ".svg", ".pdf")

# The layout, in inches: the width of a panel and the heights between which an image has its own
# shape, the space between and around panels, a line of scores and one of names above them, and
# the colour bar with its numbers.
_PANEL = 2.0
_SHORTEST, _TALLEST = 0.35 * _PANEL, 1.4 * _PANEL
_GAP = 0.12
_MARGIN = 0.15
_FIGURES, _LINE = 0.2, 0.15
_BAR = 0.65
_DPI = 120

#: Matplotlib does not draw sides of 2^16 pixels, and Pillow warns of files with more pixels than
#: its MAX_IMAGE_PIXELS.
_LONGEST_SIDE = 2**16 - 1
_MOST_PIXELS = 89_478_485

#: Characters of a line, and lines, that fit above a panel.
_CHARACTERS, _LINES = 26, 2
_TALLEST_TITLE = _FIGURES + _LINES * _LINE

#: Points along a side between which an interpolated map is not distinguishable from smooth.
_STEPS = 128

# The ends of ColorBrewer's RdBu, which people with the usual colour deficiencies tell apart.
_FOR, _AGAINST = (0.698, 0.094, 0.169), (0.129, 0.400, 0.675)
_STRONGEST = 0.8

#: What is left of the contrast of pixels below a map, for colours to be seen on dark ones, and of
#: those that were cropped away.
_SEEN, _UNSEEN = 0.7, 0.2


def write_explanations(explanations: Sequence[Explanation], path: str | os.PathLike) -> None:
    """Draws explanations: a row for each image, with the map of each class over it.

    The first panel of a row is the image. The others show where the network sees a
    class: red adds to its logit, blue takes from it, the stronger the more, on one scale
    for the whole row. The dots are the positions where the network has values; between
    them these are interpolated linearly. What is pale was cropped away, unseen.

    Args:
        explanations: sequence of Explanation, one or more.
        path: The file to create or to replace: PNG, JPEG, SVG or PDF by its suffix, `.png`,
            `.jpg`, `.svg` or `.pdf`. Written atomically.

    Raises:
        BitKerasError: matplotlib is missing, there is no explanation, they are too many
            for one image, the suffix is another, or the file cannot be written.

    Example:

    ```python
    predictor = bit_keras.inference.load_predictor("bit_tiny.cifar10")
    images = np.random.default_rng(0).integers(0, 256, (2, 60, 80, 3), "uint8")
    explanations = [predictor.explain(image, top=3) for image in images]
    bit_keras.inference.write_explanations(explanations, "explained.svg")
    ```
    """
    if not explanations:
        raise BitKerasError("There is nothing to draw: pass one explanation or more.")
    columns = 1 + max(len(explanation.classes) for explanation in explanations)
    require_drawing(path, len(explanations), columns - 1)
    rows = [(_title_height(each), _panel_height(each)) for each in explanations]
    lettering = lettering_for(name for each in explanations for name in _names(each))
    figure = _figure(_width(columns), _height(rows))
    bottom = figure.get_figheight() - _MARGIN
    for explanation, (title, panel) in zip(explanations, rows, strict=True):
        bottom -= title + panel
        _draw_row(figure, explanation, bottom, panel, lettering)
        bottom -= _GAP
    path = Path(path)
    with replaced_file(path) as partial:
        figure.savefig(partial, format=path.suffix.lower().removeprefix("."))


def require_drawing(path: str | os.PathLike, images: int, top: int) -> None:
    """Raises where explanations could not be drawn to `path`, before hours of work.

    Args:
        path: The file to write.
        images: int. How many there are at most.
        top: int. Classes per image, at most.

    Raises:
        BitKerasError: matplotlib is missing, the suffix is none of `FORMATS`, the folder does
            not exist, or the drawing would be too large.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise BitKerasError(
            f"{path} cannot be drawn: its suffix must be one of {', '.join(FORMATS)}."
        )
    require_parent(path)
    require_extra("explain", "matplotlib", purpose="Drawing explanations")
    width, height = (
        math.ceil(_DPI * inches)
        for inches in (_width(1 + top), _height([(_TALLEST_TITLE, _TALLEST)] * images))
    )
    if max(width, height) > _LONGEST_SIDE or width * height > _MOST_PIXELS:
        raise BitKerasError(
            f"A drawing of {images:,} images with {top:,} classes each could have "
            f"{width:,}x{height:,} pixels, and at most {_LONGEST_SIDE:,} a side and "
            f"{_MOST_PIXELS:,} in all are drawn; explain fewer images or classes at once."
        )


def _width(columns: int) -> float:
    return _MARGIN + columns * (_PANEL + _GAP) + _BAR


def _height(rows: Sequence[tuple[float, float]]) -> float:
    return 2 * _MARGIN + sum(title + panel + _GAP for title, panel in rows) - _GAP


def _title_height(explanation: Explanation) -> float:
    return _FIGURES + _LINE * max(_wrapped(name).count("\n") + 1 for name in _names(explanation))


def _names(explanation: Explanation) -> list[str]:
    return [explanation.name, *(label for _, label, _ in explanation.classes)]


def _panel_height(explanation: Explanation) -> float:
    image = explanation.image
    return min(max(_PANEL * image.height / image.width, _SHORTEST), _TALLEST)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    # Texts are measured with its canvas; any other makes a new one, as large, for each of them.
    FigureCanvasAgg(figure)
    return figure


def _draw_row(
    figure: "Figure",
    explanation: Explanation,
    bottom: float,
    height: float,
    lettering: Lettering,
) -> None:
    """An image, its class maps and their colour bar, `bottom` inches above the figure's."""
    axes = _panel(figure, 0, bottom, height)
    _title(axes, lettering, explanation.name)
    _draw_photo(axes, np.asarray(explanation.image))
    grey = np.asarray(explanation.image.convert("L"))
    limit = float(np.abs(explanation.maps).max()) or 1.0
    entries = zip(explanation.classes, explanation.logits, explanation.maps, strict=True)
    for column, ((_, label, score), logit, class_map) in enumerate(entries, start=1):
        axes = _panel(figure, column, bottom, height)
        _title(axes, lettering, label, f"{score:.4f} (logit {logit:.2f})")
        drawn = _draw_map(axes, explanation, grey, class_map, limit)
    _draw_bar(figure, drawn, 1 + len(explanation.classes), bottom, height)


def _panel(figure: "Figure", column: int, bottom: float, height: float) -> "Axes":
    axes = _axes(figure, column, bottom, _PANEL, height)
    axes.set_axis_off()
    return axes


def _axes(figure: "Figure", column: int, bottom: float, width: float, height: float) -> "Axes":
    """Axes at the left of a column, of a size in inches."""
    across, tall = figure.get_size_inches()
    left = _MARGIN + column * (_PANEL + _GAP)
    return figure.add_axes((left / across, bottom / tall, width / across, height / tall))


def _title(axes: "Axes", lettering: Lettering, name: str, figures: str = "") -> None:
    """Text above a panel, made smaller where it would leave the panel's column."""
    for text, size, colour, inches in (
        (figures, 7.5, "0.35", 0.05),
        (lettering.drawable(_wrapped(name)), 8.5, "black", _FIGURES),
    ):
        drawn = axes.annotate(
            text,
            (0.5, 1.0),
            (0, 72 * inches),
            xycoords="axes fraction",
            textcoords="offset points",
            size=size,
            color=colour,
            ha="center",
            va="baseline",
            linespacing=1.05,
            **lettering.options(),
        )
        width = drawn.get_window_extent().width / axes.figure.dpi
        drawn.set_fontsize(size * min(1.0, _PANEL / max(width, _PANEL)))


def _wrapped(name: str) -> str:
    return "\n".join(
        textwrap.wrap(name, _CHARACTERS, max_lines=_LINES, placeholder=" …", break_on_hyphens=False)
    )


def _draw_photo(axes: "Axes", pixels: np.ndarray, **options: Any) -> "AxesImage":
    """An image whose corners are (0, 0) and (width, height)."""
    height, width = pixels.shape[:2]
    return axes.imshow(pixels, extent=(0, width, height, 0), **options)


def _draw_map(
    axes: "Axes", explanation: Explanation, grey: np.ndarray, class_map: np.ndarray, limit: float
) -> "AxesImage":
    """A class map over an image in grey, which is pale where it was cropped away."""
    from matplotlib.patches import Rectangle

    left, top, right, bottom = explanation.region
    _draw_photo(axes, _paler(grey, _UNSEEN), cmap="gray", vmin=0, vmax=255)
    frame = Rectangle((left, top), right - left, bottom - top, fill=False, ec="0.3", lw=0.6)
    axes.add_patch(frame)
    seen = _draw_photo(axes, _paler(grey, _SEEN), cmap="gray", vmin=0, vmax=255)
    seen.set_clip_path(frame)
    drawn = axes.imshow(
        _interpolated(explanation, class_map),
        extent=(left, right, bottom, top),
        cmap=_colours(),
        vmin=-limit,
        vmax=limit,
    )
    x, y = np.meshgrid(*explanation.positions)
    axes.plot(x.ravel(), y.ravel(), "o", ms=2.2, mew=0.5, mfc="white", mec="black", clip_on=False)
    axes.set(xlim=(0, explanation.image.width), ylim=(explanation.image.height, 0))
    return drawn


def _paler(grey: np.ndarray, contrast: float) -> np.ndarray:
    """8-bit pixels again, since a figure keeps all of them until it is drawn."""
    return np.rint(255 - contrast * (255 - grey.astype(np.float32))).astype(np.uint8)


def _interpolated(explanation: Explanation, class_map: np.ndarray) -> np.ndarray:
    """A map at many points of the region, linear between positions, constant beyond the outer ones.

    Other interpolations overshoot: they show more than there is.
    """
    left, top, right, bottom = explanation.region
    x, y = explanation.positions
    steps = (np.arange(_STEPS) + 0.5) / _STEPS
    across, down = left + steps * (right - left), top + steps * (bottom - top)
    rows = np.stack([np.interp(across, x, row) for row in class_map])
    return np.stack([np.interp(down, y, column) for column in rows.T], axis=1)


def _colours() -> "Colormap":
    """From `_AGAINST` over nothing to `_FOR`."""
    from matplotlib.colors import LinearSegmentedColormap

    ends = (*_AGAINST, _STRONGEST), (*_AGAINST, 0.0), (*_FOR, 0.0), (*_FOR, _STRONGEST)
    points = zip((0.0, 0.5, 0.5, 1.0), ends, strict=True)
    return LinearSegmentedColormap.from_list("for and against", list(points))


def _draw_bar(
    figure: "Figure", drawn: "AxesImage", column: int, bottom: float, height: float
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = _axes(figure, column, bottom, 0.1, height)
    bar = figure.colorbar(drawn, cax=axes, ticks=MaxNLocator(5, symmetric=True))
    bar.outline.set_linewidth(0.5)
    axes.tick_params(labelsize=7, width=0.5, length=2.5)
    axes.set_ylabel("logit", size=7.5, color="0.35")
