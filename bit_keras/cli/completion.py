"""`bit-keras completion`: let the shell complete commands, options and names."""

import click
from click.shell_completion import get_completion_class

from bit_keras.cli.manual import PROGRAM, documented_command

#: The variable by which a shell calls click: https://click.palletsprojects.com/shell-completion
_VARIABLE = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"


@documented_command("completion", short_help="Print the script that completes commands in a shell")
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print a script by which the shell completes commands, options, their choices and names.

    Write the script to a file that the shell reads when it starts, as the examples do, and
    open another terminal: the Tab key then completes. bash has to be 4.4 or newer; macOS
    has an older one. In ~/.zshrc the line has to come after `autoload -U compinit && compinit`,
    which turns completion on; add that before it where it is missing.

    Where a model or a file can be given, zsh offers both, fish also from the first letter on, and
    bash offers files where what is typed does not begin the name of a model. Models fine-tuned on
    VTAB tasks are offered where no other name fits.

    Examples:
        bash:
            bit-keras completion bash > ~/.bit-keras-completion.bash
            echo 'source ~/.bit-keras-completion.bash' >> ~/.bashrc
        zsh:
            bit-keras completion zsh > ~/.bit-keras-completion.zsh
            echo 'source ~/.bit-keras-completion.zsh' >> ~/.zshrc
        fish:
            bit-keras completion fish > ~/.config/fish/completions/bit-keras.fish
        bash, only in this terminal:
            eval "$(bit-keras completion bash)"
    """
    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(ctx.find_root().command, {}, PROGRAM, _VARIABLE).source())
