"""`bit-keras verify`: compare an artifact with its reference outputs."""

import dataclasses
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

    if against is not None and not by_layer:
        raise click.UsageError("--against requires --layers.")
    if not is_collection(artifact):
        passed = _verify_artifact(artifact, by_layer, against, trust, as_json)
    elif by_layer:
        raise click.UsageError("--layers takes a TFLite or ONNX file, not a collection.")
    else:
        passed = _verify_collection(artifact, trust, as_json)
    if not passed:
        raise click.exceptions.Exit(1)


def _verify_artifact(
    artifact: Path, by_layer: bool, against: str | None, trust: bool, as_json: bool
) -> bool:
    with printing.progress(f"Replaying {artifact}"):
        verification = Artifact(artifact).verify(trust)
    document = _document(str(artifact), verification)
    model = verification.metadata.model
    if not as_json:
        printing.print_table(
            [*printing.names("endpoint"), *printing.numbers("largest relative difference")],
            [(name, f"{difference:.1e}") for name, difference in verification.differences.items()],
        )
        _print_verdict(model, verification)
    if by_layer:
        with printing.progress(f"Comparing the layers of {artifact}"):
            errors = _layer_errors(artifact, model, against, trust)
        document["layers"] = [dataclasses.asdict(error) for error in errors.errors]
        if not as_json:
            _print_layers(errors)
    if as_json:
        printing.print_json(document)
    return verification.passed


def _verify_collection(folder: Path, trust: bool, as_json: bool) -> bool:
    from bit_keras.collection import verify_collection

    verifications, documents = verify_collection(folder, trust), []
    while True:
        with printing.progress(f"Replaying the artifacts of {folder}"):
            found = next(verifications, None)
        if found is None:
            break
        record, verification = found
        documents.append(_document(record.name, verification))
        if not as_json:
            _print_verdict(record.name, verification)
    if as_json:
        printing.print_json({"collection": str(folder), "models": documents})
    else:
        click.echo(f"{folder}: {len(documents)} artifacts and their archives.")
    return all(document["passed"] for document in documents)


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


def _print_verdict(name: str, verification: Verification) -> None:
    metadata = verification.metadata
    verdict = "within" if verification.passed else "ABOVE"
    click.echo(
        f"{name}, {metadata.variant}: {verification.largest:.1e}, {verdict} the tolerance of "
        f"{metadata.tolerance:.0e}."
    )


def _print_layers(errors: "LayerErrors") -> None:
    click.echo()
    printing.print_table(
        [*printing.names("layer", "stored in"), *printing.numbers("relative RMS error")],
        [(error.layer, error.dtype, f"{error.error:.1e}") for error in errors.errors],
    )
    click.echo(f"{len(errors.errors)} of {errors.layers} layers; the others are merged with these.")
