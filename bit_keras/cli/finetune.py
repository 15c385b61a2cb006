"""`bit-keras finetune`: trains a model on labelled images."""

import shlex
from pathlib import Path
from typing import Any

import click

from bit_keras.cli import printing
from bit_keras.cli.manual import count_option, documented_command, flag_option, option, path_option
from bit_keras.cli.parameters import complete_models, complete_weights

_PARTS = ("stem", "block1", "block2", "block3", "block4")


def _split_or_fraction(value: str) -> str | float:
    """The name of a split, or the fraction of the images to hold out."""
    try:
        return float(value)
    except ValueError:
        return value


@documented_command(
    "finetune",
    short_help="Train a model on your own images",
    groups={
        "Recipe": ("rule", "steps", "batch", "learning_rate", "size", "mixup", "freeze"),
        "Validation": ("validation", "patience"),
        "Memory and speed": ("precision", "accumulate", "remat"),
    },
    see_also=("evaluate", "predict", "export"),
    exit_statuses={130: "Interrupted; run the same command to resume."},
)
@click.argument("name", shell_complete=complete_models)
@option(
    "--data",
    required=True,
    metavar="DATA",
    type=click.Path(),
    help="Images: a folder or an uncompressed tar with one folder per class, optionally inside "
    "folders for splits; or tfds:NAME, a prepared data set of TensorFlow Datasets.",
)
@flag_option(
    "--skip-unreadable-classes",
    help="Skip classes without a readable image, instead of stopping with an error.",
)
@path_option(
    "--out",
    required=True,
    metavar="RUN",
    help="Folder for weights, labels and logs. It is created; if it exists, its training is "
    "resumed.",
)
@option(
    "--weights",
    default="pretrained",
    metavar="pretrained|random|FILE",
    shell_complete=complete_weights,
    help="Initial weights; FILE is a checkpoint of any format.",
)
@option(
    "--seed",
    default=0,
    metavar="N",
    type=click.IntRange(min=0),
    help="Seed of the order, the crops, the held-out images and random weights.",
)
@option(
    "--rule",
    type=click.Choice(("code", "paper", "big_vision", "scratch")),
    help="BiT-HyperRule as in its code (default) or its paper, or another recipe; "
    "scratch is the default for random weights.",
)
@count_option(
    "--steps",
    help="Number of steps, instead of the rule's.",
)
@count_option(
    "--batch",
    default=128,
    help="Images per step.",
)
@option(
    "--lr",
    "learning_rate",
    metavar="RATE",
    type=float,
    help="Base learning rate, instead of the rule's.",
)
@option(
    "--size",
    metavar="PIXELS",
    type=click.IntRange(min=1),
    help="Side of the crop in pixels, instead of the rule's.",
)
@option(
    "--mixup",
    metavar="ALPHA",
    type=float,
    help="Parameter of mixup, instead of the rule's; 0 disables mixup.",
)
@option(
    "--freeze",
    multiple=True,
    metavar="PART",
    shell_complete=lambda ctx, parameter, incomplete: [
        part for part in _PARTS if part.startswith(incomplete)
    ],
    help="Part that is not trained: stem, block1, block2, block3 or block4; may be repeated.",
)
@option(
    "--validation",
    metavar="SPLIT|FRACTION",
    type=_split_or_fraction,
    help="Name of a split, or the fraction of the training images to hold out; 0 for no "
    "validation. Defaults to the validation split; without such a split, to 0.1 of each class, "
    "or 0.02 from 20,000 images up.",
)
@count_option(
    "--patience",
    help="Stop after N validations without improvement. Defaults to never.",
)
@option(
    "--precision",
    default="float32",
    type=click.Choice(("float32", "bfloat16")),
    help="Data type of activations; weights stay float32.",
)
@count_option(
    "--accumulate",
    default=1,
    help="Number of parts of a batch, computed one after the other to save memory; gradients stay "
    "the same.",
)
@flag_option(
    "--remat",
    help="Recompute the activations within blocks instead of keeping them: less memory, more time.",
)
def command(name: str, data: str, out: Path, **options: Any) -> None:
    """Train the model NAME on the images in DATA, and write the folder RUN.

    BiT-HyperRule chooses the number of steps, the image size and the learning rate by the
    number and the size of the images, and the command prints the reasons. Run the same command
    again to resume an interrupted training. Without validation, the last weights are the best.
    predict, evaluate, export and convert accept RUN.

    Examples:
        Train on images in one folder per class:
            bit-keras finetune bit_r50x1.in21k --data flowers/ --out run
        Train a large model with little memory:
            bit-keras finetune bit_r101x3.in21k --data flowers/ --out run \\
                --batch 32 --accumulate 8 --precision bfloat16 --remat
        Train only the head and the last block, and stop early:
            bit-keras finetune bit_r50x1.in21k --data flowers/ --out run \\
                --freeze stem --freeze block1 --freeze block2 --freeze block3 \\
                --validation 0.2 --patience 3
    """
    with printing.progress("Starting Keras"):
        printing.start_keras(data=True)
        from bit_keras.training import Interrupted, finetune

    try:
        result = finetune(name, data, out, **options)
    except Interrupted as interruption:
        click.echo(str(interruption), err=True)
        raise click.exceptions.Exit(130) from None
    rows = []
    for file, step, accuracy in (
        ("best.npz", result.best_step, result.best_accuracy),
        ("last.npz", result.last_step, result.last_accuracy),
    ):
        measured = "not measured" if accuracy is None else f"{accuracy:.4f}"
        rows.append((str(out / file), f"{step:,}", measured))
    numbers = printing.columns("step", "validation accuracy", justify="right")
    printing.print_table([*printing.columns("weights"), *numbers], rows)
    if result.unreadable:
        click.echo(
            f"{len(result.unreadable)} images could not be read; {out / 'run.json'} lists them."
        )
    evaluate = ["bit-keras", "evaluate", str(out), "--data", data]
    if options["skip_unreadable_classes"]:
        evaluate.append("--skip-unreadable-classes")
    click.echo(f"Next: {shlex.join(evaluate)}")
    click.echo(f"      {shlex.join(['bit-keras', 'predict', str(out)])} IMAGE")
