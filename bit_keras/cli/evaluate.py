"""`bit-keras evaluate`: measure accuracy on labelled images."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bit_keras.cli import printing
from bit_keras.cli.manual import count_option, documented_command, flag_option, option, path_option
from bit_keras.cli.parameters import complete_sources, nonfinite_option, trust_option
from bit_keras.registry import MINIMUM_SIZE

if TYPE_CHECKING:
    from bit_keras.data.data_source import DataSource
    from bit_keras.data.splits import Role
    from bit_keras.evaluation import Evaluation

_WORST = 5

_logger = logging.getLogger("bit_keras")


@documented_command(
    "evaluate",
    short_help="Measure accuracy on labelled images",
    see_also=("finetune", "predict", "benchmark"),
)
@click.argument("source", metavar="NAME|ARTIFACT", shell_complete=complete_sources)
@option(
    "--data",
    required=True,
    metavar="DATA",
    type=click.Path(),
    help="Images: a folder or an uncompressed tar with a folder for each class, perhaps below "
    "folders for splits, or tfds:NAME, prepared on disk.",
)
@option(
    "--split",
    metavar="SPLIT",
    help="Name of a split; by default that for tests, then validation, then training.",
)
@flag_option(
    "--skip-unreadable-classes",
    help="Skip classes without a readable image, instead of stopping.",
)
@flag_option(
    "--real",
    help="Measure ImageNet ReaL accuracy, too: by the labels of Beyer et al., 2020.",
)
@count_option(
    "--batch",
    default=32,
    help="Images in a call of the network.",
)
@option(
    "--size",
    metavar="PIXELS",
    type=click.IntRange(min=MINIMUM_SIZE),
    help="Side of the images; by default what the model was made for.",
)
@path_option(
    "--out",
    metavar="OUT",
    help="A new folder for a report: HTML and JSON.",
)
@trust_option
@nonfinite_option
@flag_option("--json", "as_json", help="Print one JSON document.")
def command(
    source: str,
    data: str,
    split: str | None,
    skip_unreadable_classes: bool,
    real: bool,
    batch: int,
    size: int | None,
    out: Path | None,
    trust: bool,
    allow_nonfinite: bool,
    as_json: bool,
) -> None:
    """Measure the accuracy of a model, a fine-tuned or an exported one.

    NAME is a model name. ARTIFACT is the folder of a fine-tuning run, of a SavedModel or of
    OpenVINO IR, a .keras, TFLite or ONNX file, or weights of any format.

    Every image that can be read counts once; the others are listed.

    Examples:
        Measure a fine-tuned network, and write a report to look through:
            bit-keras evaluate run --data flowers/ --out report
        See what an exported file has lost:
            bit-keras evaluate flowers-int8.tflite --data flowers/
        Measure a published model on ImageNet, with the reassessed labels, too:
            bit-keras evaluate R50x1_224 --data imagenet/val --real
        Let a program read the result:
            bit-keras evaluate exported/ --data flowers/ --json
    """
    with printing.progress(f"Loading {source}"):
        printing.start_keras(data=True)
        from bit_keras.data.datasets import open_data_source
        from bit_keras.data.listing import shown
        from bit_keras.evaluation import evaluate, write_report
        from bit_keras.evaluation.report import PAGE, require_report
        from bit_keras.inference import load_predictor

        if out is not None:
            require_report(out)
        opened = open_data_source(data, skip_unreadable_classes=skip_unreadable_classes)
        split = split or _default_split(opened)
        images = opened.images(split)
        described = shown(f"{data}, {f'split {split}' if split else 'all of it'}")
        _logger.info("%s: %s.", described, images.describe())
        predictor = load_predictor(source, size, trust, allow_nonfinite)
    with printing.progress_bar("Evaluating", len(images)) as advance:
        evaluation = evaluate(predictor.network, predictor.spec, images, batch, real, advance)

    # Before the report, which may fail.
    if as_json:
        printing.print_json({"model": source, "data": described, **evaluation.to_json()})
    else:
        click.echo(f"{source} on {described}, at {predictor.spec.transform.size} pixels")
        _print_summary(evaluation)
        _print_worst(evaluation)
    if out is not None:
        with printing.progress(f"Writing {out}"):
            write_report(evaluation, images, out, source, described)
        if not as_json:
            click.echo(f"\nThe report is {out / PAGE}.")


def _default_split(source: "DataSource") -> str | None:
    roles: tuple[Role, ...] = ("test", "validation", "train")
    found = (source.split_for(role) for role in roles)
    return next((split for split in found if split), next(iter(source.splits), None))


def _print_summary(evaluation: "Evaluation") -> None:
    shares = {"top-1": evaluation.top1, "top-5": evaluation.top5, "ReaL": evaluation.real}
    rows = [
        *((name, f"{100 * share:.2f} %") for name, share in shares.items() if share is not None),
        ("images", f"{evaluation.images:,}"),
        ("unreadable", f"{len(evaluation.unreadable):,}"),
        ("images/s", f"{evaluation.images_per_second:,.0f}"),
        ("network only", f"{evaluation.network_images_per_second:,.0f}"),
    ]
    columns = [*printing.columns(""), *printing.columns("", justify="right")]
    printing.print_table(columns, rows, show_header=False)


def _print_worst(evaluation: "Evaluation") -> None:
    rows = []
    for result in sorted(evaluation.classes, key=lambda result: result.accuracy)[:_WORST]:
        mistake = f"{result.mistaken_for} ({result.mistaken})" if result.mistaken_for else ""
        share = f"{100 * result.accuracy:.1f} %"
        rows.append((result.label, share, f"{result.images:,}", mistake))
    click.echo()
    classes, predicted = printing.columns("worst classes", "most often predicted as")
    printing.print_table([classes, *printing.numbers("accuracy", "images"), predicted], rows)
