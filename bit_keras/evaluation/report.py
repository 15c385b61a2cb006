"""Reports of evaluations as a self-contained HTML page and a JSON document."""

import base64
import importlib.resources
import io
import json
import logging
import os
from pathlib import Path

import numpy as np

from bit_keras.atomic import new_directory, require_new, require_parent
from bit_keras.data import Images
from bit_keras.errors import BitKerasError, ImageError
from bit_keras.evaluation.metrics import Evaluation, Mistake
from bit_keras.extras import require_extra
from bit_keras.fonts import lettering_for
from bit_keras.preprocessing import load_image

PAGE, DOCUMENT = "report.html", "evaluation.json"

_logger = logging.getLogger("bit_keras")

#: Maximum number of classes for which the plot shows names.
_MOST_NAMES = 40
#: Maximum number of classes for which the plot shows counts.
_MOST_COUNTS = 12

#: Side of thumbnails, twice that on the page for high-resolution screens.
_THUMBNAIL = 192


def write_report(
    evaluation: Evaluation, images: Images, folder: str | os.PathLike, model: str, data: str
) -> None:
    """Writes `report.html` and `evaluation.json`.

    The page contains a summary, the accuracy of each class, a plot of the confusion
    matrix, and the most confident mistakes with their images. It does not load other
    files.

    Args:
        evaluation: Evaluation.
        images: Images that were evaluated.
        folder: The folder to create, atomically; it must not exist.
        model: str. Name of the model, for the page.
        data: str. Name of the data, for the page.

    Raises:
        BitKerasError: matplotlib or jinja2 is missing, or the folder exists or
            cannot be written.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    images = bit_keras.data.open_images((np.zeros((2, 40, 40, 3), "uint8"), ["cat", "dog"]))
    spec = bit_keras.preprocessing.spec_of("bit_tiny.cifar10")
    evaluation = bit_keras.evaluation.evaluate(model.predict_on_batch, spec, images)
    bit_keras.evaluation.write_report(evaluation, images, "report", "bit_tiny", "two images")
    ```
    """
    _require_libraries()
    page = _page(evaluation, images, model, data)
    document = {"model": model, "data": data, **evaluation.to_json()}
    with new_directory(folder) as partial:
        (partial / PAGE).write_text(page, "utf-8")
        (partial / DOCUMENT).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def require_report(folder: Path) -> None:
    """Raises where a report could not be written to `folder`, before the evaluation.

    Raises:
        BitKerasError: matplotlib or jinja2 is missing, the folder exists, or its parent does not
            or cannot be written.
    """
    _require_libraries()
    require_new(folder)
    require_parent(folder)
    if not os.access(folder.parent, os.W_OK):
        raise BitKerasError(f"The folder {folder.parent} cannot be written; choose another path.")


def _require_libraries() -> None:
    require_extra("train", "jinja2", "matplotlib", purpose="A report")


def _page(evaluation: Evaluation, images: Images, model: str, data: str) -> str:
    import jinja2

    template = importlib.resources.files("bit_keras.evaluation").joinpath(PAGE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render(
        evaluation=evaluation,
        model=model,
        data=data,
        classes=sorted(evaluation.classes, key=lambda result: result.accuracy),
        confusion=_confusion_uri(evaluation),
        mistakes=[(mistake, _thumbnail_uri(images, mistake)) for mistake in evaluation.mistakes],
    )


def _confusion_uri(evaluation: Evaluation) -> str | None:
    """Returns the plot of the confusion matrix; None, with a warning, if plotting fails."""
    try:
        return _data_uri(_confusion_plot(evaluation), "png")
    # Matplotlib can fail for many reasons, such as the user's fonts and settings, which must not
    # discard the results.
    except Exception as error:
        _logger.warning(
            "The confusion matrix cannot be plotted (%s); %s contains it.", error, DOCUMENT
        )
        return None


def _confusion_plot(evaluation: Evaluation) -> bytes:
    """Plots the matrix as PNG: rows are true classes, values are fractions of the row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts, names = _columns_of_the_data(evaluation)
    shares = counts / counts.sum(axis=1, keepdims=True)
    side = min(3.5 + 0.28 * len(counts), 9.0)
    figure = Figure(figsize=(side + 1, side), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(mesh, ax=axes, shrink=0.8, label="fraction of the images of the class")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(counts) <= _MOST_NAMES:
        lettering = lettering_for(names)
        ticks = [lettering.drawable(name) for name in names]
        axes.set_xticks(range(len(names)), ticks, rotation=90, **lettering.options())
        axes.set_yticks(range(len(counts)), ticks[: len(counts)], **lettering.options())
    if len(counts) <= _MOST_COUNTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    file = io.BytesIO()
    # Without the version of matplotlib, so that equal evaluations give equal pages.
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _columns_of_the_data(evaluation: Evaluation) -> tuple[np.ndarray, list[str]]:
    """Returns the confusion with a column per class of the data, and one for all others."""
    columns = evaluation.labels.indices_of([result.id for result in evaluation.classes])
    counts = evaluation.confusion[:, columns]
    # Only the first name of WordNet labels, to keep the plot small.
    names = [result.label.split(", ")[0] for result in evaluation.classes]
    others = evaluation.confusion.sum(axis=1) - counts.sum(axis=1)
    if not others.any():
        return counts, names
    return np.column_stack([counts, others]), [*names, "other classes"]


def _thumbnail_uri(images: Images, mistake: Mistake) -> str | None:
    """Returns a small copy of an image; None if it has become unreadable."""
    try:
        image = load_image(images[mistake.image])
    except (ImageError, OSError) as error:
        _logger.warning("%s is not shown in the report: %s", mistake.name, error)
        return None
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return _data_uri(file.getvalue(), "jpeg")


def _data_uri(data: bytes, image_format: str) -> str:
    return f"data:image/{image_format};base64,{base64.b64encode(data).decode('ascii')}"
