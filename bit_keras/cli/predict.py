"""`bit-keras predict`: what is on these pictures?"""

from pathlib import Path

import click
from rich.table import Table

from bit_keras.cli.printing import console, print_json, progress, start_keras
from bit_keras.errors import ImageError


@click.command("predict", short_help="Classify pictures.")
@click.argument("source", metavar="NAME|ARTIFACT")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(source: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Classify pictures with a model of the registry, a fine-tuned or an exported one.

    NAME is a model name, ARTIFACT the folder of a fine-tuning run, of a SavedModel or
    of OpenVINO IR, a .keras, TFLite or ONNX file, or weights of any format. Pictures
    may be JPEG, PNG, WebP and whatever Pillow reads. One that cannot be read is
    reported, the others are classified, and the exit status is 1.

    \b
    Examples:
      bit-keras predict bit_r50x1.distilled_in1k_224 cat.jpg
      bit-keras predict run/ *.png --json
      bit-keras predict r50x1-int8.tflite cat.jpg
    """
    from bit_keras.inference import load_predictor

    with progress(f"Loading {source}"):
        start_keras()
        predictor = load_predictor(source)
    readable, failures = {}, {}
    with progress("Reading the pictures"):
        for image in images:
            try:
                readable[image] = predictor.task.transform(Path(image))
            except ImageError as error:
                failures[image] = str(error)
    with progress("Classifying"):
        predictions = dict(zip(readable, predictor(list(readable.values()), top), strict=True))

    if as_json:
        print_json([_document(image, predictions, failures) for image in images])
    elif predictions:
        console().print(_table(predictions))
    for failure in failures.values():
        click.echo(f"Error: {failure}", err=True)
    if failures:
        raise click.exceptions.Exit(1)


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
