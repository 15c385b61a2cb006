"""The command `bit-keras`. Each subcommand is a module, imported when it is called."""

import contextlib
import difflib
import importlib
import importlib.metadata
import logging
import os
import platform
from collections.abc import Iterator
from typing import Any

import click

import bit_keras
from bit_keras.cli.interrupts import heeded_interrupts
from bit_keras.cli.manual import PROGRAM, Group, flag_option
from bit_keras.cli.printing import LogHandler, accept_any_name
from bit_keras.errors import BitKerasError

_PURPOSES = {
    "Look up": ("list", "info"),
    "Use and train": ("predict", "finetune", "evaluate"),
    "Export": ("export", "verify", "benchmark", "convert"),
    "Publish": ("collection", "publish"),
    "Shell": ("completion",),
}
_COMMANDS = tuple(name for names in _PURPOSES.values() for name in names)

#: The frameworks whose versions `--version` prints, for reports of errors.
_FRAMEWORKS = {"Keras": "keras", "TensorFlow": "tensorflow"}


class _LazyGroup(Group):
    """Imports the module of a subcommand on use, and prints errors without a traceback."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        return importlib.import_module(f"bit_keras.cli.{name}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, _COMMANDS, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Commands: {', '.join(_COMMANDS)}."
            ctx.fail(f"There is no command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            message = str(error)
            if not isinstance(error, BitKerasError):
                message = (
                    f"An unexpected {type(error).__name__}: {error} "
                    "(`bit-keras --debug ...` prints the traceback.)"
                )
            raise click.ClickException(message) from error


def _print_versions(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    click.echo(f"{PROGRAM}, version {bit_keras.__version__}")
    frameworks = [f"{title} {_version(name)}" for title, name in _FRAMEWORKS.items()]
    click.echo(f"{', '.join(frameworks)}, Python {platform.python_version()}")
    ctx.exit()


def _version(distribution: str) -> str:
    """Returns the installed version without importing the framework, which takes seconds."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Sets the environment variable, which child processes inherit."""
    before = os.environ.get("BIT_KERAS_LOCKED")
    os.environ["BIT_KERAS_LOCKED"] = "1"
    try:
        yield
    finally:
        del os.environ["BIT_KERAS_LOCKED"]
        if before is not None:
            os.environ["BIT_KERAS_LOCKED"] = before


@click.group(
    cls=_LazyGroup,
    name=PROGRAM,
    purposes=_PURPOSES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    short_help="Look up, use, train, export and publish BiT (Big Transfer) models",
)
@flag_option("--debug", help="Print the traceback of errors.")
@flag_option(
    "--locked",
    help="Accept published weights only if their sha256 is known, from an earlier download or from "
    "the file in BIT_KERAS_DIGESTS. The same as BIT_KERAS_LOCKED=1.",
)
@flag_option(
    "--version",
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show the versions of bit-keras, Keras, TensorFlow and Python, and exit.",
)
@click.pass_context
def main(ctx: click.Context, debug: bool, locked: bool) -> None:
    """BiT (Big Transfer) models are ResNet-v2 image classifiers, pre-trained for fine-tuning.

    Most commands take a model name, as shown by `bit-keras list`, or the path of a fine-tuning
    run, an exported artifact or a file of weights. The weights of a model are downloaded on
    first use and cached.

    Results go to standard output, progress and errors to standard error.

    Examples:
        Find a model:
            bit-keras list '*distilled*'
        Classify an image:
            bit-keras predict bit_r50x1.distilled_in1k_224 cat.jpg
        Train on your own images, in one folder per class, and evaluate the result:
            bit-keras finetune bit_r50x1.in21k --data flowers/ --out run
            bit-keras evaluate run --data flowers/
        Export the trained network, and verify the file:
            bit-keras export run --to tflite --quantize dynamic --out flowers.tflite
            bit-keras verify flowers.tflite
        Build a collection of SavedModels, with archives and model pages:
            bit-keras collection bit-resnet --out collection
    """
    logger = logging.getLogger("bit_keras")
    logger.handlers = [LogHandler()]
    accept_any_name()
    logger.setLevel(logging.INFO)
    ctx.with_resource(heeded_interrupts())
    if locked:
        ctx.with_resource(_locked())
    if ctx.invoked_subcommand is None:
        click.echo(main.overview(ctx))
