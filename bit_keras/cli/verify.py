"""`bit-keras verify`: does the artifact still compute what Keras computed?"""

from pathlib import Path

import click
from rich.table import Table

from bit_keras.cli.printing import console, print_json, progress
from bit_keras.export.verify import verify


@click.command("verify", short_help="Check an exported artifact.")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(artifact: Path, as_json: bool) -> None:
    """Reload ARTIFACT in a fresh process and compare it with its stored output.

    Every exported artifact carries an input and what Keras answered to it. The
    exit status is 1 when the largest relative difference is above the tolerance.

    \b
    Example:
      bit-keras verify r50x1
    """
    with progress(f"Replaying {artifact}"):
        verification = verify(artifact)
    metadata = verification.metadata
    if as_json:
        print_json(
            {
                "artifact": str(artifact),
                "model": metadata.model,
                "variant": metadata.variant,
                "differences": verification.differences,
                "tolerance": metadata.tolerance,
                "passed": verification.passed,
            }
        )
    else:
        table = Table(box=None, pad_edge=False)
        table.add_column("endpoint", no_wrap=True)
        table.add_column("largest relative difference", justify="right", no_wrap=True)
        for endpoint, difference in verification.differences.items():
            table.add_row(endpoint, f"{difference:.1e}")
        console().print(table)
        verdict = "within" if verification.passed else "ABOVE"
        click.echo(
            f"{metadata.model}, {metadata.variant}: {verification.largest:.1e}, "
            f"{verdict} the tolerance of {metadata.tolerance:.0e}."
        )
    if not verification.passed:
        raise click.exceptions.Exit(1)
