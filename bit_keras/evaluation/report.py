"""One self-contained HTML page about an evaluation, and a JSON document."""

import base64
import importlib.resources
import io
import json
import logging
import os
from pathlib import Path
from typing import Any

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

#: More names than that cannot be read next to an image.
_MOST_NAMES = 40
#: More counts than that cannot be read in it.
_MOST_COUNTS = 12

#: Twice the side that the page shows, for screens of high resolution.
_THUMBNAIL = 192


def write_report(
    evaluation: Evaluation, images: Images, folder: str | os.PathLike, model: str, data: str
) -> None:
    """Writes `report.html` and `evaluation.json`.

    The page loads nothing from anywhere: a summary, accuracy by class, an image
    of the confusion matrix, and the most confident mistakes with their images.

    Args:
        evaluation: Evaluation.
        images: Images. The ones that were evaluated.
        folder: The folder to create; it must not exist. Written atomically.
        model: str. What the page calls the model.
        data: str. What it calls the data.

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
    require_packages()
    page = _page(evaluation, images, model, data)
    document = {"model": model, "data": data, **evaluation.to_json()}
    with new_directory(folder) as partial:
        (partial / PAGE).write_text(page, "utf-8")
        (partial / DOCUMENT).write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def require_packages() -> None:
    """Raises BitKerasError where a package that reports need is not installed."""
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
    """The image of the confusion matrix; None, with a warning, where it cannot be drawn."""
    try:
        return _data_uri(_confusion_plot(evaluation), "png")
    # Whatever matplotlib meets, fonts and settings of a user among it: the measured numbers are
    # worth more than the image.
    except Exception as error:
        _logger.warning("The confusion matrix cannot be drawn (%s); %s lists it.", error, DOCUMENT)
        return None


def _confusion_plot(evaluation: Evaluation) -> bytes:
    """The matrix as PNG: rows are the true classes, each row its shares of the answers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts, names = _columns_of_the_data(evaluation)
    shares = counts / counts.sum(axis=1, keepdims=True)
    side = min(3.5 + 0.28 * len(counts), 9.0)
    figure = Figure(figsize=(side + 1, side), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(mesh, ax=axes, shrink=0.8, label="share of the class's images")
    axes.set_xlabel("answer of the network")
    axes.set_ylabel("true class")
    if len(counts) <= _MOST_NAMES:
        lettering = lettering_for(names)
        drawn = [lettering.drawable(name) for name in names]
        axes.set_xticks(range(len(names)), drawn, rotation=90, **lettering.options())
        axes.set_yticks(range(len(counts)), drawn[: len(counts)], **lettering.options())
    if len(counts) <= _MOST_COUNTS:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    file = io.BytesIO()
    # Without the version, equal evaluations give equal pages.
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()


def _columns_of_the_data(evaluation: Evaluation) -> tuple[np.ndarray, list[str]]:
    """The confusion with a column per class of the data, and one for all other answers."""
    index = {class_id: column for column, class_id in enumerate(evaluation.labels.ids)}
    columns = [index[result.id] for result in evaluation.classes]
    counts = evaluation.confusion[:, columns]
    # The first name of a WordNet label tells the class; all of them fill the image.
    names = [result.label.split(", ")[0] for result in evaluation.classes]
    others = evaluation.confusion.sum(axis=1) - counts.sum(axis=1)
    if not others.any():
        return counts, names
    return np.column_stack([counts, others]), [*names, "other classes"]


def _thumbnail_uri(images: Images, mistake: Mistake) -> str | None:
    """A small copy of an image; None where it has become unreadable since it was evaluated."""
    try:
        return _data_uri(_thumbnail(images[mistake.image]), "jpeg")
    except (ImageError, OSError) as error:
        _logger.warning("%s is not shown in the report: %s", mistake.name, error)
        return None


def _thumbnail(file: Any) -> bytes:
    image = load_image(file)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def require_free(folder: Path) -> None:
    """Raises where a report could not be written to `folder`, before hours of work.

    Raises:
        BitKerasError: The folder exists, or its parent does not or cannot be written.
    """
    require_new(folder)
    require_parent(folder)
    if not os.access(folder.parent, os.W_OK):
        raise BitKerasError(f"The folder {folder.parent} cannot be written; choose another path.")
