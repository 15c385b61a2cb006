"""`bit-keras predict`: classify images."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len

from bit_keras.cli import printing
from bit_keras.cli.manual import count_option, documented_command, flag_option, path_option
from bit_keras.cli.parameters import complete_sources, nonfinite_option, trust_option
from bit_keras.errors import ImageError

if TYPE_CHECKING:
    from bit_keras.inference import Explanation, Prediction, Predictor

#: Images whose rows are printed together, which fit one batch of the network.
_ROWS = 16


@documented_command(
    "predict",
    short_help="Classify images",
    see_also=("list", "finetune", "evaluate", "export"),
    exit_statuses={1: "An image could not be read, or the work failed; standard error says why."},
)
@click.argument("source", metavar="NAME|ARTIFACT", shell_complete=complete_sources)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@count_option(
    "--top",
    default=5,
    help="How many classes to show for each image, the most likely first.",
)
@path_option(
    "--explain",
    metavar="FILE",
    help="Draw class activation maps of the best classes into FILE: .png, .jpg, .svg or .pdf.",
)
@trust_option
@nonfinite_option
@flag_option("--json", "as_json", help="Print one JSON document.")
@flag_option(
    "--json-lines",
    help="Print one JSON object per line for each image, as soon as it is classified.",
)
def command(
    source: str,
    images: tuple[str, ...],
    top: int,
    explain: Path | None,
    trust: bool,
    allow_nonfinite: bool,
    as_json: bool,
    json_lines: bool,
) -> None:
    """Classify images with a model of the registry, a fine-tuned or an exported one.

    NAME is a model name. ARTIFACT is the folder of a fine-tuning run, of a SavedModel or of
    OpenVINO IR, a .keras, TFLite or ONNX file, or weights of any format.

    IMAGE may be JPEG, PNG, WebP and whatever Pillow reads. One that cannot be read is reported,
    and the others are classified. Results are printed while the images are read, so that any
    number of images can be classified in little memory.

    Examples:
        Classify an image with a published model:
            bit-keras predict bit_r50x1.distilled_in1k_224 cat.jpg
        Classify many with a network of your own, one line of JSON for each:
            bit-keras predict run photos/*.jpg --json-lines
        Classify an image with an exported file, and show only the best class:
            bit-keras predict flowers-int8.tflite cat.jpg --top 1
        Draw the class activation maps of the three best classes:
            bit-keras predict bit_tiny.cifar10 cat.jpg --top 3 --explain maps.png
    """
    if as_json and json_lines:
        raise click.UsageError("--json and --json-lines cannot be used together.")
    from bit_keras.inference import load_predictor, write_explanations
    from bit_keras.inference.drawing import require_drawing
    from bit_keras.sources import resolve

    if explain is not None:
        require_drawing(explain, len(images), top)
    with printing.progress(f"Loading {source}"):
        resolved = resolve(source)
        if not resolved.runs_without_keras:
            printing.start_keras()
        predictor = load_predictor(resolved, trust=trust, allow_nonfinite=allow_nonfinite)
    explanations: list[Explanation] = []
    if explain is None:
        results = predictor.predict((Path(image) for image in images), top)
    else:
        results = _explained(predictor, images, top, explanations)

    failed: list[str] = []
    predictions = _reported(images, results, failed)
    if as_json:
        printing.print_json([_document(*each) for each in predictions])
    elif json_lines:
        for each in predictions:
            click.echo(json.dumps(_document(*each)))  # Flushes.
    else:
        _print_tables(predictions, images)
    if explain is not None and explanations:
        with printing.progress(f"Drawing {explain}"):
            write_explanations(explanations, explain)
        if not (as_json or json_lines):
            click.echo(f"Wrote {explain}")
    if failed:
        raise click.exceptions.Exit(1)


def _explained(
    predictor: "Predictor", images: tuple[str, ...], top: int, explanations: list["Explanation"]
) -> Iterator["Prediction"]:
    """Classifies images and adds the explanation of each to a list."""
    from bit_keras.inference import Prediction

    for image in images:
        try:
            explanation = predictor.explain(Path(image), top)
        except ImageError as error:
            yield Prediction(image, [], error)
        else:
            explanations.append(explanation)
            yield Prediction(image, explanation.classes)


def _reported(
    images: tuple[str, ...], predictions: Iterator["Prediction"], failed: list[str]
) -> Iterator[tuple[str, "Prediction"]]:
    """Each image with its prediction; errors are printed, and their images added to a list."""
    for image in images:
        # Not around `yield`: while progress is shown, rich sends standard output to it.
        with printing.progress("Classifying"):
            prediction = next(predictions)
        if prediction.error is not None:
            click.echo(f"Error: {prediction.error}", err=True)
            failed.append(image)
        yield image, prediction


def _document(image: str, prediction: "Prediction") -> dict[str, Any]:
    if prediction.error is not None:
        return {"image": image, "error": str(prediction.error)}
    return {
        "image": image,
        "predictions": [
            {"id": class_id, "label": label, "score": score}
            for class_id, label, score in prediction.classes
        ],
    }


def _print_tables(predictions: Iterator[tuple[str, "Prediction"]], images: tuple[str, ...]) -> None:
    """Prints the rows of a batch at a time, in columns that get wider at most."""
    readable = (each for each in predictions if each[1].error is None)
    widths = [max(map(cell_len, images)), 0]
    show_header = True
    while some := list(itertools.islice(readable, _ROWS)):
        rows = [row for image, prediction in some for row in _rows(image, prediction)]
        widths[1] = max(widths[1], *(cell_len(text) for _, text, _ in rows))
        columns = [
            *printing.names("image", min_width=widths[0]),
            *printing.columns("class", min_width=widths[1]),
            *printing.numbers("score"),
        ]
        printing.print_table(columns, rows, show_header=show_header)
        show_header = False


def _rows(image: str, prediction: "Prediction") -> Iterator[tuple[str, str, str]]:
    for rank, (class_id, label, score) in enumerate(prediction.classes):
        text = label if label == class_id else f"{label} ({class_id})"
        yield "" if rank else image, text, f"{score:.4f}"
