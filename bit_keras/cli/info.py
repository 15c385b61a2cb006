"""`bit-keras info`: everything that is known about a model."""

import dataclasses

import click
from rich.table import Table

from bit_keras.cli.printing import console, print_json
from bit_keras.registry import Checkpoint, model_info


@click.command("info", short_help="Show all that is known about a model.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(name: str, as_json: bool) -> None:
    """Show everything that is known about the model NAME, with its sources.

    \b
    Examples:
      bit-keras info bit_r50x1.in21k
      bit-keras info https://tfhub.dev/google/bit/m-r50x1/1
    """
    checkpoint = model_info(name)
    if as_json:
        fields = dataclasses.asdict(checkpoint)
        # JSON has no infinity; the only one is the border of a max-pool.
        fields["architecture"]["pool_border"] = str(checkpoint.architecture.pool_border)
        print_json({**fields, "file": checkpoint.file, "parameters": checkpoint.parameters})
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for label, text in _rows(checkpoint):
        table.add_row(label, text)
    console().print(table, markup=False)


def _rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    architecture = checkpoint.architecture
    layers = "GroupNorm and weight standardisation"
    if architecture.normalization == "batch":
        layers = "BatchNorm and plain convolutions"
    rows = [
        ("model", checkpoint.name),
        ("", checkpoint.description),
        (
            "architecture",
            f"{architecture.name}: units {architecture.units}, width x{architecture.width}, "
            + layers,
        ),
        ("parameters", f"{checkpoint.parameters:,}"),
        ("features", f"{architecture.features} channels"),
        ("classes", _classes(checkpoint)),
        ("images", _images(checkpoint)),
        ("input", "RGB, channels last, float32 in [-1, 1], (batch, height, width, 3)"),
        ("weights", checkpoint.url or "no known address"),
        ("bytes", f"{checkpoint.bytes:,}" if checkpoint.bytes else "unknown"),
        ("licence", checkpoint.license),
    ]
    for accuracy in checkpoint.accuracies:
        size = f" at {accuracy.size}" if accuracy.size else ""
        text = f"{accuracy.value} % {accuracy.metric} on {accuracy.dataset}{size}"
        rows.append(("published", f"{text} ({accuracy.source})"))
    rows += [("also known as", alias) for alias in checkpoint.aliases]
    return rows


def _classes(checkpoint: Checkpoint) -> str:
    if checkpoint.classes is None:
        return "unknown"
    labels = f", labels {checkpoint.labels}" if checkpoint.labels else ""
    return f"{checkpoint.classes}, {checkpoint.activation}{labels}"


def _images(checkpoint: Checkpoint) -> str:
    if checkpoint.size is None:
        return "no size is published"
    if checkpoint.resizing is None:
        return f"{checkpoint.size} pixels; how to resize to them is not published"
    resizing = checkpoint.resizing
    how = "short side to" if resizing.mode == "short_side" else "both sides to"
    return (
        f"{how} {resizing.side} ({resizing.interpolation}), centre {checkpoint.size} "
        f"({resizing.source})"
    )
