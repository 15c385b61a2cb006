"""`bit-keras finetune`: train a network on one's own pictures."""

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bit_keras.cli.printing import console, progress, start_keras


class _SplitOrFraction(click.ParamType):
    """The name of a split, or the share of the pictures to hold out."""

    name = "SPLIT|FRACTION"

    def convert(self, value: Any, *_: object) -> str | float:
        try:
            return float(value)
        except ValueError:
            return str(value)


@click.command("finetune", short_help="Train a network on your own pictures.")
@click.argument("name")
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="A folder or a tar of class folders, or tfds:NAME.",
)
@click.option("--out", required=True, metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--weights", default="pretrained", show_default=True, metavar="pretrained|random|FILE"
)
@click.option(
    "--rule",
    type=click.Choice(("code", "paper", "big_vision", "scratch")),
    help="BiT-HyperRule as in its code (default) or its paper, or another recipe; "
    "scratch is the default for random weights.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Instead of the rule's.")
@click.option("--batch", default=128, show_default=True, type=click.IntRange(min=1))
@click.option("--lr", "learning_rate", type=float, help="Base learning rate instead of the rule's.")
@click.option("--size", type=click.IntRange(min=1), help="Side of the crop instead of the rule's.")
@click.option("--mixup", type=float, help="Alpha instead of the rule's; 0 is none.")
@click.option(
    "--freeze", multiple=True, metavar="PART", help="stem, block1, ... block4; may be repeated."
)
@click.option(
    "--precision",
    default="float32",
    show_default=True,
    type=click.Choice(("float32", "bfloat16")),
    help="Of activations; weights stay float32.",
)
@click.option(
    "--accumulate",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Parts of a batch, one after the other in memory.",
)
@click.option(
    "--remat",
    is_flag=True,
    help="Compute activations within a block twice instead of keeping them.",
)
@click.option(
    "--validation",
    type=_SplitOrFraction(),
    help="Name of a split, or the fraction of the training pictures to hold out.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="Stop after so many validations without a better one.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
def command(name: str, data: str, out: Path, freeze: tuple[str, ...], **options: Any) -> None:
    """Train the model NAME on the pictures in DATA, into the folder RUN.

    BiT-HyperRule chooses steps, size and learning rate by the pictures, and the
    command says which and why. The same command goes on with a training that was
    stopped, however that was. RUN is then taken by predict, evaluate and export.

    \b
    Examples:
      bit-keras finetune bit_r50x1.in21k --data flowers --out run
      bit-keras finetune bit_r101x3.in21k --data flowers --out run \\
          --batch 32 --accumulate 8 --precision bfloat16 --remat
    """
    with progress("Starting Keras"):
        start_keras(data=True)
        from bit_keras.training import Interrupted, finetune

    try:
        result = finetune(name, data, out, freeze=freeze, **options)
    except Interrupted as interruption:
        click.echo(str(interruption), err=True)
        raise click.exceptions.Exit(130) from None
    table = Table(box=None, pad_edge=False)
    for column in ("weights", "step", "validation accuracy"):
        table.add_column(column, justify="left" if column == "weights" else "right")
    table.add_row(f"{out / 'best.npz'}", f"{result.best_step:,}", f"{result.best_accuracy:.4f}")
    table.add_row(f"{out / 'last.npz'}", f"{result.last_step:,}", f"{result.last_accuracy:.4f}")
    console().print(table)
    if result.unreadable:
        click.echo(
            f"{len(result.unreadable)} pictures could not be read; {out / 'run.json'} names them."
        )
    click.echo(f"Next: bit-keras evaluate {out} --data {data}\n      bit-keras predict {out} IMAGE")
