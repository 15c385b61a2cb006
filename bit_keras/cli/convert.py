"""`bit-keras convert`: weights from one format to another."""

from pathlib import Path

import click

from bit_keras.cli.printing import progress, start_keras

_FORMATS = ("npz", "keras")


@click.command("convert", short_help="Convert weights to another format.")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option("--to", "target", required=True, type=click.Choice(_FORMATS))
def command(source: str, destination: Path, target: str) -> None:
    """Convert the weights SRC to the file DST.

    SRC is an official npz file or a model name. npz to npz gives the array names
    their official form and the file its official layout; no network is built.

    \b
    Examples:
      bit-keras convert BiT-M-R50x1.npz r50x1.keras --to keras
      bit-keras convert bit_r50x1.in21k r50x1.npz --to npz
    """
    path = _source_path(source)
    with progress(f"Converting {path} to {target}"):
        start_keras()
        if target == "npz":
            _to_npz(path, destination)
        else:
            _to_keras(path, destination)
    click.echo(f"Wrote {destination}.")


def _source_path(source: str) -> Path:
    path = Path(source)
    if path.exists() or path.suffix == ".npz":
        return path

    from bit_keras.checkpoints import pretrained_path
    from bit_keras.registry import model_info

    return pretrained_path(model_info(source))


def _to_npz(path: Path, destination: Path) -> None:
    from bit_keras.checkpoints import NpzCheckpoint, require_known, write_npz

    with NpzCheckpoint(path) as arrays:
        require_known(arrays)
        write_npz(destination, arrays)


def _to_keras(path: Path, destination: Path) -> None:
    from bit_keras.atomic import replaced_file
    from bit_keras.errors import BitKerasError
    from bit_keras.models import network_of_file

    if destination.suffix != ".keras":
        raise BitKerasError(f"The name of a Keras file ends in .keras; {destination} does not.")
    model = network_of_file(path)
    with replaced_file(destination) as partial:
        model.save(partial)
