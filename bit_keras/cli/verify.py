"""`bit-keras verify`: does the artifact still compute what Keras computed?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bit_keras.cli.printing import console, print_json, progress
from bit_keras.export.verify import Verification, verify


@click.command("verify", short_help="Check an exported artifact or a collection.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(artifact: Path, as_json: bool) -> None:
    """Reload ARTIFACT in a fresh process and compare it with its stored output.

    ARTIFACT is a SavedModel, a folder of its versions, of which the newest counts, a
    .keras file, or the folder of a collection. Each carries inputs and what Keras
    answered to them. In a collection the archives are checked as well. The exit status
    is 1 when a largest relative difference is above the tolerance.

    \b
    Examples:
      bit-keras verify r50x1
      bit-keras verify collection
    """
    from bit_keras.collection import is_collection

    in_collection = is_collection(artifact)
    verifications = []
    for name, verification in _verified(artifact, in_collection):
        verifications.append((name, verification))
        if not as_json:
            _print(name, verification, in_collection)
    if as_json:
        documents = [_document(name, verification) for name, verification in verifications]
        print_json(
            {"collection": str(artifact), "models": documents} if in_collection else documents[0]
        )
    elif in_collection:
        click.echo(f"{artifact}: {len(verifications)} artifacts and their archives.")
    if not all(verification.passed for _, verification in verifications):
        raise click.exceptions.Exit(1)


def _verified(artifact: Path, in_collection: bool) -> Iterator[tuple[str, Verification]]:
    if not in_collection:
        with progress(f"Replaying {artifact}"):
            verification = verify(artifact)
        yield str(artifact), verification
        return

    from bit_keras.collection import verify_collection

    verifications = verify_collection(artifact)
    while True:
        with progress(f"Replaying the artifacts of {artifact}"):
            found = next(verifications, None)
        if found is None:
            return
        record, verification = found
        yield record.name, verification


def _document(name: str, verification: Verification) -> dict[str, Any]:
    metadata = verification.metadata
    return {
        "artifact": name,
        "model": metadata.model,
        "target": metadata.target,
        "variant": metadata.variant,
        "differences": verification.differences,
        "tolerance": metadata.tolerance,
        "passed": verification.passed,
    }


def _print(name: str, verification: Verification, in_collection: bool) -> None:
    metadata = verification.metadata
    if not in_collection:
        table = Table(box=None, pad_edge=False)
        table.add_column("endpoint", no_wrap=True)
        table.add_column("largest relative difference", justify="right", no_wrap=True)
        for endpoint, difference in verification.differences.items():
            table.add_row(endpoint, f"{difference:.1e}")
        console().print(table)
    verdict = "within" if verification.passed else "ABOVE"
    click.echo(
        f"{name if in_collection else metadata.model}, {metadata.variant}: "
        f"{verification.largest:.1e}, {verdict} the tolerance of {metadata.tolerance:.0e}."
    )
