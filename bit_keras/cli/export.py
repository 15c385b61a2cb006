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

_TARGETS = ("hub",)
_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}


@click.command("export", short_help="Export a model for other programs.")
@click.argument("name")
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
    name: str, target: str, variant: str, weights: str, input_range: str, out: Path
) -> None:
    """Export the model NAME to the folder given by --out, which must not exist.

    \b
    Examples:
      bit-keras export bit_r50x1.in21k --to hub --out r50x1
      bit-keras export R50x1_160 --to hub --variant feature_extraction \\
          --weights R50x1_160.npz --out r50x1_160
    """
    checkpoint = model_info(name)
    if out.exists():  # Before the minutes that a large network takes.
        raise BitKerasError(f"{out} exists already; remove it or choose another path.")

    start = time.perf_counter()
    with progress(f"Building {checkpoint.name}"):
        start_keras()
        model = _build(checkpoint.name, variant, weights)
    from bit_keras.export.hub import export_hub

    with progress(f"Writing {out}"):
        export_hub(model, out, _RANGES[input_range])
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    click.echo(
        f"Wrote {out}: {checkpoint.name}, {variant}, input in [{input_range}], "
        f"{megabytes(size)} in {time.perf_counter() - start:.0f} s.\n"
        f"Check it with `bit-keras verify {out}`."
    )


def _build(name: str, variant: str, weights: str) -> "keras.Model":
    from bit_keras.checkpoints import fill_with_seeded_values
    from bit_keras.models import create_classifier, create_feature_extractor

    builder = create_classifier if variant == "classification" else create_feature_extractor
    if weights != "random":
        return builder(name, weights=weights)
    model = builder(name, weights=None)
    fill_with_seeded_values(model)
    return model
