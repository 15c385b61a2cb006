"""`bit-keras info`: everything that is known about a model, or about a file of weights."""

import dataclasses
import json
import math
import shlex
from typing import TYPE_CHECKING, Any

import click

from bit_keras.artifacts.members import size_of
from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, flag_option
from bit_keras.cli.parameters import complete_sources
from bit_keras.registry import (
    ARCHITECTURES,
    HUGGING_FACE,
    RGB,
    Architecture,
    Checkpoint,
)
from bit_keras.sources import Source, resolve

if TYPE_CHECKING:
    from bit_keras.checkpoints import CheckpointFile

#: Names of arrays that are shown before the rest is only counted.
_SHOWN = 3


@documented_command(
    "info",
    short_help="Show all that is known about a model or a file of weights",
    see_also=("list", "convert"),
    exit_statuses={1: "NAME is unknown, or the weights are not a network of the registry."},
)
@click.argument("name", metavar="NAME|WEIGHTS", shell_complete=complete_sources)
@flag_option("--json", "as_json", help="Print one JSON document.")
def command(name: str, as_json: bool) -> None:
    """Show all that is known about the model NAME, with its sources, or about WEIGHTS.

    NAME is a model name or another name that people know it by: a timm id, a TF Hub handle, an
    official file name.

    WEIGHTS are a file or a folder of any format that bit_keras reads, the folder of a
    fine-tuning run, or a repository of the Hugging Face hub, `hf://OWNER/NAME` or `timm/NAME`,
    which is downloaded unless the registry knows it as a model.

    Examples:
        Show a model: its network, images, weights, accuracy:
            bit-keras info bit_r50x1.in21k
        Show which model another name stands for:
            bit-keras info https://tfhub.dev/google/bit/m-r50x1/1
        Look into a file of weights:
            bit-keras info BiT-M-R50x1.npz
    """
    source = resolve(name)
    # `hf://` stands for the files there, whatever the registry knows of them.
    if source.checkpoint is None or name.startswith(HUGGING_FACE):
        _show_weights(source, as_json)
    else:
        _show_model(source.checkpoint, as_json)


def _show_model(checkpoint: Checkpoint, as_json: bool) -> None:
    if not as_json:
        printing.print_table([], _rows(checkpoint), show_header=False)
        return
    architecture = _architecture_fields(checkpoint.architecture)
    fields = {**dataclasses.asdict(checkpoint), "architecture": architecture}
    printing.print_json({**fields, "file": checkpoint.file, "parameters": checkpoint.parameters})


def _architecture_fields(architecture: Architecture) -> dict[str, Any]:
    # JSON has no infinity; the only one is the border of a max-pool.
    return {**dataclasses.asdict(architecture), "pool_border": str(architecture.pool_border)}


def _show_weights(source: Source, as_json: bool) -> None:
    with printing.progress(f"Reading {source.name}"):
        printing.start_keras()
        from bit_keras.checkpoints import open_checkpoint

        arrays = open_checkpoint(source.weights())
    with arrays:
        document = _weights_document(source, arrays)
        if as_json:
            printing.print_json(document)
        else:
            printing.print_table([], _weights_rows(document, arrays), show_header=False)
        if document["architecture"] is None:
            _refuse(arrays)


def _weights_document(source: Source, arrays: "CheckpointFile") -> dict[str, Any]:
    from bit_keras.checkpoints.names import head_classes, identify, input_channels
    from bit_keras.checkpoints.published import published_checkpoint, published_spec

    name, spec = source.name, source.spec
    checkpoint = published_checkpoint(name, arrays.shapes) if spec is None else None
    spec = spec or published_spec(name, arrays.shapes)
    architecture, classes = identify(arrays.shapes), head_classes(arrays.shapes)
    # BatchNorm's moving statistics are not parameters.
    trained = [shape for array, shape in arrays.shapes.items() if "/moving_" not in array]
    known = architecture is not None
    return {
        "path": str(arrays.path),
        "format": arrays.format,
        "architecture": _architecture_fields(architecture) if architecture else None,
        "model": checkpoint.name if checkpoint else None,
        "in_channels": input_channels(arrays.shapes),
        "classes": classes,
        "labels": spec.labels.name if spec else None,
        "parameters": sum(math.prod(shape) for shape in trained),
        "arrays": len(arrays),
        "dtypes": sorted(set(arrays.dtypes.values())),
        "bytes": size_of(arrays.path),
        "left_out": list(arrays.left_out),
        "python": _python(name, checkpoint, classes) if known else None,
        "command": f"bit-keras convert {shlex.quote(name)} weights.npz --to npz" if known else None,
    }


def _python(name: str, checkpoint: Checkpoint | None, classes: int | None) -> str:
    """What makes a network of the weights."""
    if checkpoint is None:
        return f"model, spec = bit_keras.inference.load_network({json.dumps(name)})"
    create = "create_feature_extractor" if classes is None else "create_classifier"
    return f"bit_keras.{create}({json.dumps(checkpoint.name)}, weights={json.dumps(name)})"


def _weights_rows(document: dict[str, Any], arrays: "CheckpointFile") -> list[tuple[str, str]]:
    known, channels, classes = (document[key] for key in ("architecture", "in_channels", "classes"))
    labels = f", labels {document['labels']}" if document["labels"] else ""
    skipped = ", ".join(arrays.left_out[:_SHOWN])
    rows = {
        "file": document["path"],
        "format": document["format"],
        "model": document["model"],
        "architecture": known and _described(ARCHITECTURES[known["name"]]),
        "input": channels != RGB and f"{channels} channels",
        "classes": f"{classes}{labels}" if classes else "none: no head",
        "parameters": f"{document['parameters']:,}",
        "arrays": f"{document['arrays']}, {' and '.join(document['dtypes'])}",
        "bytes": f"{document['bytes']:,}",
        "skipped": skipped and f"{len(arrays.left_out)} arrays, not weights: {skipped} ...",
        "in Python": document["python"],
        "to convert": document["command"],
    }
    return [(label, text) for label, text in rows.items() if text]


def _refuse(arrays: "CheckpointFile") -> None:
    """Raises CheckpointError with the difference to the nearest network."""
    from bit_keras.checkpoints.names import head_classes, input_channels, official_shapes
    from bit_keras.checkpoints.transfer import require_equal

    classes, channels = head_classes(arrays.shapes), input_channels(arrays.shapes)
    networks = {
        name: official_shapes(architecture, classes, channels)
        for name, architecture in ARCHITECTURES.items()
    }
    nearest = max(networks, key=lambda name: len(networks[name].items() & arrays.shapes.items()))
    require_equal(networks[nearest], arrays.shapes, nearest, arrays)


def _described(architecture: Architecture) -> str:
    layers = "GroupNorm and weight standardisation"
    if architecture.normalization == "batch":
        layers = "BatchNorm and plain convolutions"
    return f"{architecture.name}: units {architecture.units}, width x{architecture.width}, {layers}"


def _rows(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    architecture = checkpoint.architecture
    rows = [
        ("model", checkpoint.name),
        ("", checkpoint.description),
        ("architecture", _described(architecture)),
        ("parameters", f"{checkpoint.parameters:,}"),
        ("features", f"{architecture.features} channels"),
        ("classes", _classes(checkpoint)),
        ("images", _images(checkpoint)),
        ("input", "RGB, channels last, float32 in [-1, 1], (batch, height, width, 3)"),
        ("weights", checkpoint.url),
        ("bytes", f"{checkpoint.bytes:,}" if checkpoint.bytes else "unknown"),
        ("sha256", checkpoint.sha256 or "not published; recorded on first use"),
        ("licence", checkpoint.license),
    ]
    for accuracy in checkpoint.accuracies:
        size = f" at {accuracy.size}" if accuracy.size else ""
        text = f"{accuracy.value} % {accuracy.metric} on {accuracy.dataset}{size}"
        rows.append(("published", f"{text} ({accuracy.source})"))
    rows += [("also known as", alias) for alias in checkpoint.aliases]
    return rows


def _classes(checkpoint: Checkpoint) -> str:
    labels = f", labels {checkpoint.labels}" if checkpoint.labels else ""
    return f"{checkpoint.classes}, {checkpoint.activation}{labels}"


def _images(checkpoint: Checkpoint) -> str:
    if checkpoint.size is None:
        return "no size is published"
    if checkpoint.resizing is None:
        return f"{checkpoint.size} pixels; how to resize to them is not published"
    resizing = checkpoint.resizing
    how = "short side to" if resizing.mode == "short_side" else "both sides to"
    return (
        f"{how} {resizing.side} ({resizing.interpolation}), centre {checkpoint.size} "
        f"({resizing.source})"
    )
