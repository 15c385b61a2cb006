"""`bit-keras export`: an artifact that other programs load."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bit_keras.cli.printing import megabytes, progress, start_keras
from bit_keras.errors import BitKerasError
from bit_keras.export.artifact import PRECISIONS, VARIANTS
from bit_keras.registry import model_info

if TYPE_CHECKING:
    import keras

    from bit_keras.preprocessing import Task

_TARGETS = ("hub", "serving", "keras")
_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}


class _BatchSizes(click.ParamType):
    name = "batch sizes"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(size) for size in value.split(",")) if value != "none" else ()
        except ValueError:
            self.fail(f"{value!r} is not a list like 1,2,4,8, nor none.", param, ctx)


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
    type=click.Choice(tuple(_RANGES)),
    help="What callers scale pixels to: BiT's own range -1,1 (the default), or 0,1, the common "
    "one of TF Hub.  [hub, serving]",
)
@click.option(
    "--folded",
    is_flag=True,
    help="Add the signatures of a server, with kernels standardised on loading.  [hub]",
)
@click.option("--size", type=int, help="Side of the images, where it is another.  [serving]")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What convolutions compute in; float32 by default.  [serving]",
)
@click.option("--version", type=int, help="Number of the version, 1 by default.  [serving]")
@click.option(
    "--batch-sizes",
    type=_BatchSizes(),
    help="Batch sizes to warm a server up with, 1,2,4,8 by default, or none.  [serving]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def command(
    source: str,
    target: str,
    variant: str,
    weights: str,
    input_range: str | None,
    out: Path,
    **options: Any,
) -> None:
    """Export the model NAME, or a fine-tuned one, to --out.

    RUN is the folder of a fine-tuning run, a .keras file, or a file or a folder of
    weights of any format.
    --to hub writes a folder that does not exist yet, --to serving the folder of one
    version into --out, --to keras a file whose name ends in .keras.

    \b
    Examples:
      bit-keras export bit_r50x1.in21k --to hub --out r50x1
      bit-keras export run --to keras --out flowers.keras
      bit-keras export R50x1_160 --to serving --weights R50x1_160.npz --out r50x1_160
      bit-keras export run --to serving --version 2 --precision bfloat16 --out flowers
    """
    # Not `in (None, False)`: zero equals False, and is to be refused in a sentence.
    options = {name: value for name, value in options.items() if value is not None}
    if not options["folded"]:
        del options["folded"]
    if input_range is not None:
        options["input_range"] = _RANGES[input_range]
    _require_fitting(target, options)
    stored = Path(source).exists()
    if stored and weights != "pretrained":
        raise click.UsageError(f"{source} has weights of its own; --weights goes with a NAME.")
    name = source if stored else model_info(source).name
    written = out / str(options.get("version", 1)) if target == "serving" else out
    if written.exists():  # Before the minutes that a large network takes.
        raise BitKerasError(f"{written} exists already; remove it or choose another path.")

    start = time.perf_counter()
    with progress(f"Building {name}"):
        start_keras()
        from bit_keras.export.keras_file import require_keras_name

        if target == "keras":
            require_keras_name(out)
        model, task = _load(name, variant) if stored else (_build(name, variant, weights), None)
    with progress(f"Writing {written}"):
        _write(model, task, target, out, options)
    files = [out] if out.is_file() else [file for file in written.rglob("*") if file.is_file()]
    click.echo(
        f"Wrote {written}: {model.name}, {variant}, input in [{input_range or '-1,1'}], "
        f"{megabytes(sum(file.stat().st_size for file in files))} "
        f"in {time.perf_counter() - start:.0f} s."
    )
    click.echo(f"Check it with `bit-keras verify {written}`.")


#: The options that only some targets take.
_OPTIONS = {
    "hub": {"input_range", "folded"},
    "serving": {"input_range", "size", "precision", "version", "batch_sizes"},
    "keras": set(),
}


def _require_fitting(target: str, options: dict[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS[target]:
            fitting = [target for target, names in _OPTIONS.items() if name in names]
            raise click.UsageError(
                f"--{name.replace('_', '-')} goes with --to {' or '.join(fitting)}."
            )


def _load(source: str, variant: str) -> "tuple[keras.Model, Task | None]":
    import keras

    from bit_keras.inference.sources import load_network

    model, task = load_network(source)
    if variant == "feature_extraction":
        features = model.get_layer("features").output
        return keras.Model(model.input, features, name=model.name), task
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
    model: "keras.Model", task: "Task | None", target: str, out: Path, options: dict[str, Any]
) -> None:
    if target == "keras":
        from bit_keras.export.keras_file import export_keras

        export_keras(model, out, task)
    elif target == "serving":
        from bit_keras.export.serving import export_serving

        export_serving(model, out, task=task, **options)
    else:
        from bit_keras.export.hub import export_hub

        export_hub(model, out, task=task, **options)
