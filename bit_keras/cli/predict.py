"""`bit-keras predict`: what is on these images?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from bit_keras.cli.manual import Command
from bit_keras.cli.parameters import complete_sources, nonfinite_option, trust_option
from bit_keras.cli.printing import console, print_json, progress, start_keras
from bit_keras.errors import ImageError

if TYPE_CHECKING:
    from bit_keras.inference import Explanation, Predictor


@click.command(
    "predict",
    cls=Command,
    short_help="Classify images",
    examples=(
        (
            "Classify a image with a published model",
            "bit-keras predict bit_r50x1.distilled_in1k_224 cat.jpg",
        ),
        (
            "Classify many with a network of your own, for a program to read",
            "bit-keras predict run photos/*.jpg --json",
        ),
        (
            "Ask an exported file for its best guess",
            "bit-keras predict flowers-int8.tflite cat.jpg --top 1",
        ),
        (
            "Draw where a network looks for its three best guesses",
            "bit-keras predict bit_tiny.cifar10 cat.jpg --top 3 --explain maps.png",
        ),
    ),
    see_also=("list", "finetune", "evaluate", "export"),
    exit_statuses={1: "A image could not be read, or the work failed; standard error says why."},
)
@click.argument("source", metavar="NAME|ARTIFACT", shell_complete=complete_sources)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@click.option(
    "--top",
    default=5,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="How many classes to show for each image, the likeliest first.",
)
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw where the network looks for the best classes into FILE: .png, .jpg, .svg or .pdf.",
)
@trust_option
@nonfinite_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    source: str,
    images: tuple[str, ...],
    top: int,
    explain: Path | None,
    trust: bool,
    allow_nonfinite: bool,
    as_json: bool,
) -> None:
    """Classify images with a model of the registry, a fine-tuned or an exported one.

    NAME is a model name. ARTIFACT is the folder of a fine-tuning run, of a SavedModel or of
    OpenVINO IR, a .keras, TFLite or ONNX file, or weights of any format.

    IMAGE may be JPEG, PNG, WebP and whatever Pillow reads. One that cannot be read is reported,
    and the others are classified.
    """
    from bit_keras.inference import load_predictor, write_explanations
    from bit_keras.inference.drawing import require_drawing

    if explain is not None:
        require_drawing(explain, len(images), top)
    with progress(f"Loading {source}"):
        start_keras()
        predictor = load_predictor(source, trust=trust, allow_nonfinite=allow_nonfinite)
    if explain is None:
        predictions, failures = _classified(predictor, images, top)
    else:
        explanations, failures = _explained(predictor, images, top)
        predictions = {image: each.classes for image, each in explanations.items()}
        if explanations:
            with progress(f"Drawing {explain}"):
                write_explanations(list(explanations.values()), explain)

    if as_json:
        print_json([_document(image, predictions, failures) for image in images])
    elif predictions:
        console().print(_table(predictions))
        if explain is not None:
            click.echo(f"Wrote {explain}")
    for failure in failures.values():
        click.echo(f"Error: {failure}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


def _classified(
    predictor: "Predictor", images: tuple[str, ...], top: int
) -> tuple[dict[str, list[tuple]], dict[str, str]]:
    """The best classes of the images that can be read, and why the others cannot."""
    readable, failures = {}, {}
    with progress("Reading the images"):
        for image in images:
            try:
                readable[image] = predictor.spec.transform(Path(image))
            except ImageError as error:
                failures[image] = str(error)
    with progress("Classifying"):
        ranked = predictor(list(readable.values()), top)
    return dict(zip(readable, ranked, strict=True)), failures


def _explained(
    predictor: "Predictor", images: tuple[str, ...], top: int
) -> tuple[dict[str, "Explanation"], dict[str, str]]:
    """The explanations of the images that can be read, and why the others cannot."""
    explanations, failures = {}, {}
    with progress("Explaining"):
        for image in images:
            try:
                explanations[image] = predictor.explain(Path(image), top)
            except ImageError as error:
                failures[image] = str(error)
    return explanations, failures


def _document(image: str, predictions: dict, failures: dict) -> dict:
    if image in failures:
        return {"image": image, "error": failures[image]}
    return {
        "image": image,
        "predictions": [
            {"id": class_id, "label": label, "score": score}
            for class_id, label, score in predictions[image]
        ],
    }


def _table(predictions: dict) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("image", no_wrap=True)
    table.add_column("class")
    table.add_column("score", justify="right", no_wrap=True)
    for image, ranked in predictions.items():
        for rank, (class_id, label, score) in enumerate(ranked):
            text = label if label == class_id else f"{label} ({class_id})"
            table.add_row("" if rank else image, text, f"{score:.4f}")
    return table
