"""`bit-keras list`: the models there are."""

import click
from rich.table import Table

from bit_keras.cli.printing import console, millions, print_json
from bit_keras.errors import UnknownModelError
from bit_keras.registry import Checkpoint, list_models, model_info

_VTAB = "_vtab_"


@click.command("list", short_help="List the models.")
@click.argument("pattern", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of names.")
def command(pattern: str | None, as_json: bool) -> None:
    """List the models that match PATTERN, in which * and ? stand for anything.

    Without a pattern the many VTAB networks are only counted.

    \b
    Examples:
      bit-keras list
      bit-keras list 'bit_r50x1.*'
      bit-keras list '*' --json
    """
    names = list_models(pattern or "*")
    if not names:
        raise UnknownModelError(
            f"No model matches {pattern!r}; `bit-keras list` shows all, and `*` is any text."
        )
    if as_json:
        print_json(names)
        return
    shown = [name for name in names if pattern or _VTAB not in name]
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("classes", "size", "parameters", "ImageNet top-1"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("file", no_wrap=True)
    for name in shown:
        table.add_row(*_row(model_info(name)))
    console().print(table)
    if len(shown) < len(names):
        click.echo(
            f"\nand {len(names) - len(shown)} networks fine-tuned on VTAB tasks: "
            f"bit-keras list '*{_VTAB}*'"
        )


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    top1 = [a.value for a in checkpoint.accuracies if a.dataset == "ImageNet-1k"]
    return (
        checkpoint.name,
        str(checkpoint.classes or "?"),
        str(checkpoint.size or "?"),
        millions(checkpoint.parameters),
        f"{top1[0]:.1f} %" if top1 else "",
        checkpoint.file or "",
    )
