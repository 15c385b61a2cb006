"""`bit-keras convert`: weights from one format to another."""

from pathlib import Path

import click

from bit_keras.cli.printing import progress, start_keras
from bit_keras.errors import BitKerasError

_FORMATS = ("npz", "keras")
_DTYPES = ("float32", "float16")


@click.command("convert", short_help="Convert weights to another format.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, type=click.Choice(_FORMATS))
@click.option(
    "--dtype",
    default="float32",
    show_default=True,
    type=click.Choice(_DTYPES),
    help="Of the arrays in an npz; float16 halves the file, and is read back as float32.",
)
def command(source: str, destination: Path, target: str, dtype: str) -> None:
    """Convert the weights SRC to the file DST.

    SRC is a model name, the folder of a fine-tuning run, a .keras file or an
    official npz file. A .keras file takes labels and transform along; npz holds
    weights alone. npz to npz gives the array names their official form and the
    file its official layout; no network is built.

    \b
    Examples:
      bit-keras convert BiT-M-R50x1.npz r50x1.keras --to keras
      bit-keras convert bit_r50x1.in21k r50x1.npz --to npz
      bit-keras convert run flowers.npz --to npz --dtype float16
    """
    if target == "keras" and dtype != "float32":
        raise BitKerasError("--dtype is for npz; a .keras file holds float32.")
    with progress(f"Converting {source} to {target}"):
        start_keras()
        if target == "npz":
            _to_npz(source, destination, dtype)
        else:
            _to_keras(source, destination)
    click.echo(f"Wrote {destination}.")


def _to_npz(source: str, destination: Path, dtype: str) -> None:
    from bit_keras.checkpoints import open_checkpoint, require_known, save_weights, write_npz
    from bit_keras.inference.sources import is_keras_file, load_network

    path = Path(source)
    if path.is_dir() or is_keras_file(path):
        model, _ = load_network(path)
        save_weights(model, destination, dtype=dtype)
        return
    with open_checkpoint(_npz_path(source)) as arrays:
        require_known(arrays)
        write_npz(destination, arrays, dtype)


def _npz_path(source: str) -> Path:
    path = Path(source)
    if path.exists() or path.suffix == ".npz":
        return path

    from bit_keras.checkpoints import pretrained_path
    from bit_keras.registry import model_info

    return pretrained_path(model_info(source))


def _to_keras(source: str, destination: Path) -> None:
    from bit_keras.export.keras_file import export_keras, require_keras_name
    from bit_keras.inference.sources import load_network

    require_keras_name(destination)
    model, task = load_network(source)
    export_keras(model, destination, task)
