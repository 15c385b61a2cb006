"""`bit-keras finetune`: train a network on one's own images."""

import shlex
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bit_keras.cli.manual import Command, option
from bit_keras.cli.parameters import complete_models, complete_weights
from bit_keras.cli.printing import console, progress, start_keras

_PARTS = ("stem", "block1", "block2", "block3", "block4")


class _SplitOrFraction(click.ParamType):
    """The name of a split, or the share of the images to hold out."""

    name = "SPLIT|FRACTION"

    def convert(self, value: Any, *_: object) -> str | float:
        try:
            return float(value)
        except ValueError:
            return str(value)


@click.command(
    "finetune",
    cls=Command,
    short_help="Train a network on your own images",
    examples=(
        (
            "Train on a folder with a folder for each class",
            "bit-keras finetune bit_r50x1.in21k --data flowers/ --out run",
        ),
        (
            "Train a large network in little memory",
            "bit-keras finetune bit_r101x3.in21k --data flowers/ --out run \\\n"
            "    --batch 32 --accumulate 8 --precision bfloat16 --remat",
        ),
        (
            "Train the head and the last block, and stop when that helps no more",
            "bit-keras finetune bit_r50x1.in21k --data flowers/ --out run \\\n"
            "    --freeze stem --freeze block1 --freeze block2 --freeze block3 \\\n"
            "    --validation 0.2 --patience 3",
        ),
    ),
    see_also=("evaluate", "predict", "export"),
    exit_statuses={130: "Interrupted; the same command continues."},
)
@click.argument("name", shell_complete=complete_models)
@option(
    "--data",
    required=True,
    metavar="DATA",
    type=click.Path(),
    help="Images: a folder or an uncompressed tar with a folder for each class, perhaps below "
    "folders for splits, or tfds:NAME, prepared on disk.",
)
@option(
    "--skip-unreadable-classes",
    is_flag=True,
    help="Leave out classes of which no image can be read, instead of stopping.",
)
@option(
    "--out",
    required=True,
    metavar="RUN",
    type=click.Path(path_type=Path),
    help="Folder for weights, labels and log; it is made, or its training continues.",
)
@option(
    "--weights",
    default="pretrained",
    show_default=True,
    metavar="pretrained|random|FILE",
    shell_complete=complete_weights,
    help="What the training starts from; FILE is weights of any format.",
)
@option(
    "--seed",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=0),
    help="Of all that is random: the order, the crops, the images held out, random weights.",
)
@option(
    "--rule",
    group="Recipe",
    type=click.Choice(("code", "paper", "big_vision", "scratch")),
    help="BiT-HyperRule as in its code (default) or its paper, or another recipe; "
    "scratch is the default for random weights.",
)
@option(
    "--steps",
    group="Recipe",
    metavar="N",
    type=click.IntRange(min=1),
    help="Batches to train on, instead of the rule's number.",
)
@option(
    "--batch",
    group="Recipe",
    default=128,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="Images in a step.",
)
@option(
    "--lr",
    "learning_rate",
    group="Recipe",
    metavar="RATE",
    type=float,
    help="Base learning rate instead of the rule's.",
)
@option(
    "--size",
    group="Recipe",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side of the crop instead of the rule's.",
)
@option(
    "--mixup",
    group="Recipe",
    metavar="ALPHA",
    type=float,
    help="Strength of mixup instead of the rule's; 0 is none.",
)
@option(
    "--freeze",
    group="Recipe",
    multiple=True,
    metavar="PART",
    shell_complete=lambda ctx, parameter, incomplete: [
        part for part in _PARTS if part.startswith(incomplete)
    ],
    help="What does not learn: stem, block1, block2, block3 or block4; may be repeated.",
)
@option(
    "--validation",
    group="Validation",
    metavar="SPLIT|FRACTION",
    type=_SplitOrFraction(),
    help="Name of a split, or the fraction of the training images to hold out, 0 for no "
    "validation; by default the split for validation; without one 0.1 of each class, or 0.02 of "
    "20,000 images and more.",
)
@option(
    "--patience",
    group="Validation",
    metavar="N",
    type=click.IntRange(min=1),
    help="Stop after so many validations without a better one; by default never.",
)
@option(
    "--precision",
    group="Memory and speed",
    default="float32",
    show_default=True,
    type=click.Choice(("float32", "bfloat16")),
    help="Of activations; weights stay float32.",
)
@option(
    "--accumulate",
    group="Memory and speed",
    default=1,
    show_default=True,
    metavar="N",
    type=click.IntRange(min=1),
    help="Parts of a batch, which are in memory one after the other; gradients stay the same.",
)
@option(
    "--remat",
    group="Memory and speed",
    is_flag=True,
    help="Compute activations within a block twice instead of keeping them: less memory, more "
    "time.",
)
def command(name: str, data: str, out: Path, freeze: tuple[str, ...], **options: Any) -> None:
    """Train the model NAME on the images in DATA, into the folder RUN.

    BiT-HyperRule chooses steps, size and learning rate by the images, and the command says
    which and why. The same command resumes a training that was stopped, however that was.
    Without images to validate with, the last weights are the best. RUN is then taken by predict,
    evaluate, export and convert.
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
    for file, step, accuracy in (
        ("best.npz", result.best_step, result.best_accuracy),
        ("last.npz", result.last_step, result.last_accuracy),
    ):
        measured = "not measured" if accuracy is None else f"{accuracy:.4f}"
        table.add_row(str(out / file), f"{step:,}", measured)
    console().print(table)
    if result.unreadable:
        click.echo(
            f"{len(result.unreadable)} images could not be read; {out / 'run.json'} names them."
        )
    evaluate = ["bit-keras", "evaluate", str(out), "--data", data]
    if options["skip_unreadable_classes"]:
        evaluate.append("--skip-unreadable-classes")
    click.echo(f"Next: {shlex.join(evaluate)}")
    click.echo(f"      {shlex.join(['bit-keras', 'predict', str(out)])} IMAGE")
