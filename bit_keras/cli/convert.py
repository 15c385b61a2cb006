"""`bit-keras convert`: weights from one format to another."""

from pathlib import Path

import click

from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, option
from bit_keras.cli.parameters import complete_sources, nonfinite_option, trust_option
from bit_keras.errors import BitKerasError

_FORMATS = ("npz", "flax", "timm", "transformers", "keras")
_DTYPES = ("float32", "float16")


@documented_command(
    "convert",
    short_help="Convert weights to another format",
    see_also=("info", "export"),
)
@click.argument("source", metavar="NAME|WEIGHTS", shell_complete=complete_sources)
@click.argument("destination", metavar="OUT", type=click.Path(path_type=Path))
@option(
    "--to",
    "target",
    required=True,
    type=click.Choice(_FORMATS),
    help="Format of OUT, as above.",
)
@option(
    "--dtype",
    default="float32",
    type=click.Choice(_DTYPES),
    help="Dtype of the arrays; float16 halves the file, and is read as float32. Not for keras.",
)
@trust_option
@nonfinite_option
def command(
    source: str,
    destination: Path,
    target: str,
    dtype: str,
    trust: bool,
    allow_nonfinite: bool,
) -> None:
    """Convert the weights of the model NAME, or those in WEIGHTS, to OUT.

    WEIGHTS are a file or a folder of any format that bit_keras reads, the folder of a
    fine-tuning run, or a repository of the Hugging Face hub, `hf://OWNER/NAME` or `timm/NAME`.
    The format is recognised by the content.

    --to is the format of OUT:

    \b
    - npz: a file in the layout of the official ones
    - flax: an npz file for big_vision's bit_paper
    - timm: a .safetensors file for timm
    - transformers: a new folder for BitForImageClassification.from_pretrained
    - keras: a .keras file

    Labels and transform of a classifier, where they are known, are written to transformers and
    keras. One array at a time is in memory, and no network is run: `bit-keras export NAME
    --to keras` writes a file with reference outputs.

    Examples:
        Make a Keras file of official weights:
            bit-keras convert BiT-M-R50x1.npz r50x1.keras --to keras
        Fetch weights from the Hugging Face hub into a file of the official layout:
            bit-keras convert timm/resnetv2_50x1_bit.goog_in21k r50x1.npz --to npz
        Give a fine-tuned network to transformers, in half the bytes:
            bit-keras convert run flowers-transformers --to transformers \\
                --dtype float16
    """
    if target == "keras" and dtype != "float32":
        raise BitKerasError(
            "--dtype goes with --to npz, flax, timm or transformers; a .keras file is float32."
        )
    with printing.progress(f"Converting {source} to {target}"):
        printing.start_keras()
        _convert(source, destination, target, dtype, trust, allow_nonfinite)
    click.echo(f"Wrote {destination}.")


def _convert(
    source: str,
    destination: Path,
    target: str,
    dtype: str,
    trust: bool,
    allow_nonfinite: bool,
) -> None:
    from bit_keras.checkpoints import open_checkpoint
    from bit_keras.checkpoints.published import published_spec
    from bit_keras.checkpoints.transfer import require_known
    from bit_keras.checkpoints.writing import write_checkpoint
    from bit_keras.exporters.keras_archive import convert_to_keras, export_keras
    from bit_keras.exporters.targets import require_suffix
    from bit_keras.inference import load_network
    from bit_keras.sources import resolve

    if target == "keras":
        require_suffix("keras", destination)
    named = resolve(source)
    # Networks with a name, and maybe with more layers, which arrays would not tell.
    if target == "keras" and named.format in ("keras", "run"):
        model, spec = load_network(named, trust, allow_nonfinite)
        export_keras(model, destination, spec, allow_nonfinite)
        return
    with open_checkpoint(named.weights(), allow_nonfinite) as arrays:
        require_known(arrays)
        # All values first: nothing is written of a damaged file.
        arrays.verify()
        spec = named.spec or published_spec(source, arrays.shapes)
        if target == "keras":
            convert_to_keras(source, arrays, destination, spec)
        else:
            write_checkpoint(destination, arrays, target, dtype, spec)
