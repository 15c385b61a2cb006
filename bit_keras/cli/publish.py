"""`bit-keras publish`: a built collection to the places that host models."""

import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, flag_option, option
from bit_keras.collection.uploads import PLACES, Upload, plan, send


@documented_command(
    "publish",
    short_help="Send a collection to Hugging Face or Kaggle",
    see_also=("collection", "verify"),
)
@click.argument("folder", metavar="COLLECTION", type=click.Path(path_type=Path))
@option(
    "--to",
    "place",
    required=True,
    type=click.Choice(PLACES),
    help="The place that hosts the models.",
)
@option(
    "--owner",
    metavar="OWNER",
    help="User or organisation there; by default the collection's publisher.",
)
@flag_option("--dry-run", help="Show what would be sent, and send nothing.")
@flag_option("--json", "as_json", help="Print one JSON document.")
def command(folder: Path, place: str, owner: str | None, dry_run: bool, as_json: bool) -> None:
    """Send the folder COLLECTION, which `bit-keras collection` wrote.

    First every artifact is compared with its archive and with the manifest; where one
    is damaged, nothing is sent. What is new at the place is private until its owner
    makes it public. The same command resumes a publication that broke off.

    --to huggingface makes a repository of each model, OWNER/NAME: the card and the
    SavedModel, in one commit with a tag such as v1. Other files in the repository are
    deleted by that commit. Log in with `hf auth login` or HF_TOKEN.

    --to kaggle makes a variation of one Kaggle model of each SavedModel. The folder then contains
    sent-to-kaggle.json, by which the next run skips what was sent; without it,
    everything becomes a new version. Title, description and usage are not sent: Kaggle's
    own command does that, as is shown at the end; it also makes a public model private
    while model-metadata.json says so. Log in with
    KAGGLE_API_TOKEN or ~/.kaggle/access_token.

    Examples:
        See what would be sent:
            bit-keras publish collection --to huggingface --dry-run
        Send it to an organisation on the Hugging Face hub:
            bit-keras publish collection --to huggingface --owner my-lab
        Send it to Kaggle:
            bit-keras publish collection --to kaggle
    """
    with printing.progress(f"Checking {folder}"):
        uploads = plan(folder, place, owner)
    if not dry_run:
        _hide_progress_of_libraries()
        send(uploads)
    if as_json:
        printing.print_json(_document(place, uploads, dry_run))
        return
    if dry_run:
        columns = [*printing.names("address", "file"), *printing.numbers("bytes")]
        printing.print_table(columns, itertools.chain.from_iterable(map(_rows, uploads)))
    _print_summary(uploads, dry_run)


def _hide_progress_of_libraries() -> None:
    """Keeps the client libraries, which are imported later, from writing progress into a log."""
    if not sys.stderr.isatty():
        for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
            os.environ.setdefault(name, "1")


def _document(place: str, uploads: Sequence[Upload], dry_run: bool) -> dict[str, Any]:
    return {
        "to": place,
        "dry_run": dry_run,
        "uploads": [
            {
                "address": upload.address,
                "version": upload.version,
                "sent": upload.sent or not dry_run,
                "bytes": upload.bytes,
                "files": [
                    {"source": str(file.source), "target": file.target, "bytes": file.bytes}
                    for file in upload.files
                ],
                "not_sent": [str(path) for path in upload.not_sent],
            }
            for upload in uploads
        ],
    }


def _rows(upload: Upload) -> list[tuple[str, str, str]]:
    if upload.sent:
        return [(upload.address, "sent before", "")]
    return [
        ("" if number else upload.address, file.target, f"{file.bytes:,}")
        for number, file in enumerate(upload.files)
    ]


def _print_summary(uploads: Sequence[Upload], dry_run: bool) -> None:
    waiting = [upload for upload in uploads if not upload.sent]
    count = sum(len(upload.files) for upload in waiting)
    size = printing.megabytes(sum(upload.bytes for upload in waiting))
    click.echo(
        f"{'To send' if dry_run else 'Sent'}: {count} files, {size}, to {len(waiting)} of "
        f"{len(uploads)} addresses." + (" Nothing was sent." if dry_run else "")
    )
    # Every variation has the page of the model, too.
    pages = list(dict.fromkeys(path for upload in uploads for path in upload.not_sent))
    if pages:
        click.echo("These pages are not sent; Kaggle's own command does that after the files:")
    for path in pages:
        what = "models" if path.name == "model-metadata.json" else "models instances"
        click.echo(f"  kaggle {what} update -p {shlex.quote(str(path.parent))}")
