"""`bit-keras verify`: compare an artifact with its reference outputs."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bit_keras.artifacts import Artifact, Verification
from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, flag_option, option
from bit_keras.cli.parameters import complete_sources, trust_option
from bit_keras.errors import BitKerasError, ExportError

if TYPE_CHECKING:
    from bit_keras.exporters.layer_errors import LayerErrors


@documented_command(
    "verify",
    short_help="Check an exported artifact or a collection",
    see_also=("export", "collection", "benchmark"),
    exit_statuses={1: "A difference is above the tolerance, or something cannot be read."},
)
@click.argument("artifact", metavar="ARTIFACT|COLLECTION", type=click.Path(path_type=Path))
@flag_option(
    "--layers",
    "by_layer",
    help="Show the error of every layer of a TFLite or ONNX file against Keras, too.",
)
@option(
    "--against",
    metavar="NAME|RUN",
    shell_complete=complete_sources,
    help="With --layers: the model name, run or .keras file that the artifact was exported "
    "from; by default the model that it names.",
)
@trust_option
@flag_option("--json", "as_json", help="Print one JSON document.")
def command(
    artifact: Path, by_layer: bool, against: str | None, trust: bool, as_json: bool
) -> None:
    """Reload ARTIFACT in a fresh process and compare it with its reference output.

    ARTIFACT is a SavedModel, a folder of its versions, of which the newest counts, a .keras,
    TFLite or ONNX file, or a folder of OpenVINO IR. Each contains inputs and the outputs of
    Keras for them; the largest relative difference counts. A TFLite file is run by LiteRT and
    by TensorFlow.

    COLLECTION is a folder that `bit-keras collection` wrote. All of its artifacts are compared,
    and their archives checked.

    Examples:
        Check a SavedModel:
            bit-keras verify r50x1
        See in which layers a quantised file differs most:
            bit-keras verify r50x1-int8.tflite --layers
        Do so with a file that a fine-tuned network was exported to:
            bit-keras verify flowers-int8.tflite --layers --against run
        Check all of a collection, and its archives:
            bit-keras verify collection
    """
    from bit_keras.collection.manifest import is_collection

    in_collection = is_collection(artifact)
    if against is not None and not by_layer:
        raise click.UsageError("--against requires --layers.")
    if by_layer and in_collection:
        raise click.UsageError("--layers takes a TFLite or ONNX file, not a collection.")
    verifications = []
    for name, verification in _verified(artifact, in_collection, trust):
        verifications.append((name, verification))
        if not as_json:
            _print(name, verification, in_collection)
    documents = [_document(name, verification) for name, verification in verifications]
    if by_layer:
        with printing.progress(f"Comparing the layers of {artifact}"):
            errors = _layer_errors(artifact, verifications[0][1].metadata.model, against, trust)
        documents[0]["layers"] = [dataclasses.asdict(error) for error in errors.errors]
        if not as_json:
            _print_layers(errors)
    if as_json:
        printing.print_json(
            {"collection": str(artifact), "models": documents} if in_collection else documents[0]
        )
    elif in_collection:
        click.echo(f"{artifact}: {len(verifications)} artifacts and their archives.")
    if not all(verification.passed for _, verification in verifications):
        raise click.exceptions.Exit(1)


def _layer_errors(artifact: Path, model: str, against: str | None, trust: bool) -> "LayerErrors":
    printing.start_keras()
    from bit_keras.exporters.layer_errors import layer_errors
    from bit_keras.inference import load_network

    try:
        network, _ = load_network(against or model, trust)
    except BitKerasError as error:
        if against is not None:
            raise
        raise ExportError(
            f"{error} Without the weights of {model} layers cannot be compared; name with "
            "--against the model, run or file that the artifact was exported from."
        ) from error
    return layer_errors(artifact, network)


def _verified(
    artifact: Path, in_collection: bool, trust: bool
) -> Iterator[tuple[str, Verification]]:
    if not in_collection:
        with printing.progress(f"Replaying {artifact}"):
            verification = Artifact(artifact).verify(trust)
        yield str(artifact), verification
        return

    from bit_keras.collection import verify_collection

    verifications = verify_collection(artifact, trust)
    while True:
        with printing.progress(f"Replaying the artifacts of {artifact}"):
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
        printing.print_table(
            [*printing.names("endpoint"), *printing.numbers("largest relative difference")],
            [(name, f"{difference:.1e}") for name, difference in verification.differences.items()],
        )
    verdict = "within" if verification.passed else "ABOVE"
    click.echo(
        f"{name if in_collection else metadata.model}, {metadata.variant}: "
        f"{verification.largest:.1e}, {verdict} the tolerance of {metadata.tolerance:.0e}."
    )


def _print_layers(errors: "LayerErrors") -> None:
    click.echo()
    printing.print_table(
        [*printing.names("layer", "stored in"), *printing.numbers("relative RMS error")],
        [(error.layer, error.dtype, f"{error.error:.1e}") for error in errors.errors],
    )
    click.echo(f"{len(errors.errors)} of {errors.layers} layers; the others are merged with these.")
