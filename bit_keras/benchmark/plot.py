"""A benchmark as a plot: bars of images per second."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bit_keras.atomic import replaced_file, require_ordinary, require_parent
from bit_keras.benchmark.result import Benchmark, Row
from bit_keras.errors import BitKerasError
from bit_keras.extras import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Of the formats; the palette of Okabe and Ito (2008), which colour-blind people can tell apart.
COLOURS = {
    "SavedModel": "#0072B2",
    "TFLite": "#D55E00",
    "ONNX": "#009E73",
    "OpenVINO": "#CC79A7",
    "PyTorch": "#999999",
    "ONNX Runtime": "#009E73",
    "Keras": "#56B4E9",
}

#: The opacity of the bars of peers; those of artifacts are opaque.
_PEER_ALPHA = 0.45

_INCHES_PER_BAR, _INCHES_AROUND, _WIDTH = 0.27, 1.3, 9.0


def write_plot(benchmark: Benchmark, path: str | os.PathLike) -> None:
    """Writes a plot of a benchmark: horizontal bars, the fastest at the top.

    Args:
        benchmark: Benchmark.
        path: The PNG file to write, or to replace. Written atomically.

    Raises:
        BitKerasError: matplotlib is missing, the name does not end in .png, no
            entry has times, or the file cannot be written.
    """
    path = Path(path)
    require_plot(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = {batch: benchmark.timed(batch) for batch in benchmark.batches}
    panels = {
        batch: sorted(rows, key=lambda row: row.median) for batch, rows in timed.items() if rows
    }
    if not panels:
        raise BitKerasError("No entry has times, so there is nothing to plot.")
    counts = [len(rows) for rows in panels.values()]
    height = sum(_INCHES_PER_BAR * count + _INCHES_AROUND for count in counts)
    figure = Figure(figsize=(_WIDTH, height), dpi=150, layout="constrained")
    every_axes = figure.subplots(len(panels), squeeze=False, height_ratios=counts)[:, 0]
    for axes, (batch, rows) in zip(every_axes, panels.items(), strict=True):
        _plot(axes, rows)
        axes.set_title(f"batch {batch}, {benchmark.threads} threads", loc="left")
    every_axes[-1].set_xlabel("images per second (pale: peers)")
    with replaced_file(path) as partial:
        FigureCanvasAgg(figure).print_png(partial, metadata={"Software": None})


def require_plot(path: Path) -> None:
    """Raises where a plot could not be written to `path`, before minutes of work.

    Raises:
        BitKerasError: matplotlib is missing, the name does not end in .png, or the
            folder does not exist.
    """
    require_extra("train", "matplotlib", purpose="A plot")
    if path.suffix != ".png":
        raise BitKerasError(f"The name of a plot must end in .png. Received: {path}")
    require_parent(path)
    require_ordinary(path)


def _plot(axes: "Axes", rows: list[Row]) -> None:
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        entry = row.entry
        low, high = (row.batch / seconds for seconds in reversed(row.spread))
        axes.barh(
            place,
            row.images_per_second,
            color=COLOURS[entry.format],
            alpha=_PEER_ALPHA if entry.peer else 1.0,
        )
        axes.plot([low, high], [place, place], color="black", linewidth=1)
        axes.text(high, place, f"  {row.images_per_second:.1f}", va="center", fontsize=8)
    axes.set_yticks(places, [row.entry.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
