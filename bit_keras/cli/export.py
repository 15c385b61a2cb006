"""`bit-keras export`: an artifact that other programs load."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bit_keras.cli.printing import megabytes, progress, start_keras
from bit_keras.errors import BitKerasError
from bit_keras.export.artifact import VARIANTS
from bit_keras.registry import model_info

if TYPE_CHECKING:
    import keras

    from bit_keras.preprocessing import Task

_TARGETS = ("hub", "keras")
_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}


@click.command("export", short_help="Export a model for other programs.")
@click.argument("source", metavar="NAME|RUN")
@click.option("--to", "target", required=True, type=click.Choice(_TARGETS))
@click.option("--variant", default=VARIANTS[0], show_default=True, type=click.Choice(VARIANTS))
@click.option(
    "--weights",
    default="pretrained",
    show_default=True,
    metavar="pretrained|random|FILE",
    help="random: reproducible values, for trying things out.",
)
@click.option(
    "--input-range",
    default="-1,1",
    show_default=True,
    type=click.Choice(tuple(_RANGES)),
    help="What callers scale pixels to: BiT's own range, or the common one of TF Hub.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def command(
    source: str, target: str, variant: str, weights: str, input_range: str, out: Path
) -> None:
    """Export the model NAME, or a fine-tuned one, to --out, which must not exist.

    RUN is the folder of a fine-tuning run, a .keras file or an official npz file.
    --to hub writes a folder, --to keras a file whose name ends in .keras.

    \b
    Examples:
      bit-keras export bit_r50x1.in21k --to hub --out r50x1
      bit-keras export run --to keras --out flowers.keras
      bit-keras export R50x1_160 --to hub --variant feature_extraction \\
          --weights R50x1_160.npz --out r50x1_160
    """
    if target != "hub" and input_range != "-1,1":
        raise click.UsageError("--input-range goes with --to hub.")
    stored = Path(source).exists()
    if stored and weights != "pretrained":
        raise click.UsageError(f"{source} has weights of its own; --weights goes with a NAME.")
    name = source if stored else model_info(source).name
    if out.exists():  # Before the minutes that a large network takes.
        raise BitKerasError(f"{out} exists already; remove it or choose another path.")

    start = time.perf_counter()
    with progress(f"Building {name}"):
        start_keras()
        from bit_keras.export.keras_file import require_keras_name

        if target == "keras":
            require_keras_name(out)
        model, task = _load(name, variant) if stored else (_build(name, variant, weights), None)
    with progress(f"Writing {out}"):
        _write(model, task, target, _RANGES[input_range], out)
    files = [out] if out.is_file() else [file for file in out.rglob("*") if file.is_file()]
    click.echo(
        f"Wrote {out}: {model.name}, {variant}, input in [{input_range}], "
        f"{megabytes(sum(file.stat().st_size for file in files))} "
        f"in {time.perf_counter() - start:.0f} s."
    )
    if target == "hub":
        click.echo(f"Check it with `bit-keras verify {out}`.")


def _load(source: str, variant: str) -> "tuple[keras.Model, Task | None]":
    import keras

    from bit_keras.inference.sources import load_network

    model, task = load_network(source)
    if variant == "feature_extraction":
        features = model.get_layer("features").output
        return keras.Model(model.input, features, name=model.name), None
    if not any(layer.name == "head" for layer in model.layers):
        raise BitKerasError(f"{source} has no head; export it with --variant feature_extraction.")
    return model, task


def _build(name: str, variant: str, weights: str) -> "keras.Model":
    from bit_keras.checkpoints import fill_with_seeded_values
    from bit_keras.models import create_classifier, create_feature_extractor

    builder = create_classifier if variant == "classification" else create_feature_extractor
    if weights != "random":
        return builder(name, weights=weights)
    model = builder(name, weights=None)
    fill_with_seeded_values(model)
    return model


def _write(
    model: "keras.Model",
    task: "Task | None",
    target: str,
    input_range: tuple[float, float],
    out: Path,
) -> None:
    if target == "keras":
        from bit_keras.export.keras_file import export_keras

        export_keras(model, out, task)
    else:
        from bit_keras.export.hub import export_hub

        export_hub(model, out, input_range, task)
