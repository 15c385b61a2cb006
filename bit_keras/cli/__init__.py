"""The command `bit-keras`: one module per subcommand, imported when it is called."""

import importlib
import logging
from typing import Any

import click

import bit_keras
from bit_keras.cli.printing import LogHandler
from bit_keras.errors import BitKerasError

_COMMANDS = (
    "list",
    "info",
    "predict",
    "finetune",
    "evaluate",
    "convert",
    "export",
    "collection",
    "verify",
    "benchmark",
    "publish",
)


class _LazyGroup(click.Group):
    """Imports a subcommand's module on use and turns our errors into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return importlib.import_module(f"bit_keras.cli.{name}").command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except BitKerasError as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(str(error)) from error
        except Exception as error:
            if ctx.params["debug"]:
                raise
            raise click.ClickException(
                f"An unexpected {type(error).__name__}: {error} "
                "(`bit-keras --debug ...` shows where it came from.)"
            ) from error


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show a traceback where something fails.")
@click.version_option(bit_keras.__version__)
def main(debug: bool) -> None:
    """BiT (Big Transfer) models: look up, predict, fine-tune, evaluate, export, serve, publish.

    \b
    Examples:
      bit-keras list '*distilled*'
      bit-keras predict bit_r50x1.distilled_in1k_224 cat.jpg
      bit-keras finetune bit_r50x1.in21k --data photos/ --out run
      bit-keras evaluate run --data photos/
      bit-keras export bit_r50x1.in21k --to hub --variant feature_extraction --out r50x1
      bit-keras export run --to serving --out models/flowers
      bit-keras export run --to tflite --quantize dynamic --out flowers.tflite
      bit-keras benchmark flowers.tflite models/flowers
      bit-keras verify r50x1
      bit-keras collection export/bit-resnet.toml --out collection
    """
    logger = logging.getLogger("bit_keras")
    logger.handlers = [LogHandler()]
    logger.setLevel(logging.INFO)
