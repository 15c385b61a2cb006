"""`bit-keras list`: lists the models."""

import click

from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, flag_option
from bit_keras.cli.parameters import VTAB, complete_models
from bit_keras.errors import UnknownModelError
from bit_keras.registry import Checkpoint, list_models, model_info


@documented_command(
    "list",
    short_help="List the models",
    see_also=("info",),
)
@click.argument("pattern", required=False, shell_complete=complete_models)
@flag_option("--json", "as_json", help="Print a JSON list of names.")
def command(pattern: str | None, as_json: bool) -> None:
    """List the models whose names match PATTERN.

    In PATTERN, `*` matches any text and `?` any character; quote it to protect it from the shell.
    Without PATTERN, all models are listed except those fine-tuned on VTAB tasks, which are
    counted. `?` in a column stands for a value that no source states.

    Examples:
        List the models, with their size and published accuracy:
            bit-keras list
        List those of one architecture:
            bit-keras list 'bit_r50x1.*'
        Print the names of all models, including VTAB:
            bit-keras list '*' --json
    """
    names = list_models(pattern or "*")
    if not names:
        raise UnknownModelError(
            f"No model matches {pattern!r}; `bit-keras list` shows all models. In a pattern, `*` "
            "matches any text."
        )
    if as_json:
        printing.print_json(names)
        return
    shown = [name for name in names if pattern or VTAB not in name]
    numbers = printing.numbers("classes", "size", "parameters", "ImageNet top-1")
    columns = [*printing.names("model"), *numbers, *printing.names("file")]
    printing.print_table(columns, (_row(model_info(name)) for name in shown))
    if len(shown) < len(names):
        click.echo(
            f"\nand {len(names) - len(shown)} models fine-tuned on VTAB tasks: "
            f"bit-keras list '*{VTAB}*'"
        )


def _row(checkpoint: Checkpoint) -> tuple[str, ...]:
    top1 = [a.value for a in checkpoint.accuracies if a.dataset == "ImageNet-1k"]
    return (
        checkpoint.name,
        str(checkpoint.classes),
        str(checkpoint.size or "?"),
        f"{checkpoint.parameters / 1e6:.1f} M",
        f"{top1[0]:.1f} %" if top1 else "",
        checkpoint.file or "",
    )
