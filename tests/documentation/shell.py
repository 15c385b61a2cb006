"""The commands of a page: how they are read, and what is done with each."""

import configparser
import contextlib
import itertools
import os
import re
import subprocess
import sys
from typing import NamedTuple

import click

from bit_keras.cli import main
from tests.documentation.snippets import ROOT, Block
from tests.documentation.standing import arguments_of

#: How commands begin that no test can run, and why. Their grammar is checked, and programs in
#: Python must print their `--help`.
CANNOT_RUN = {
    "docker": "it starts a server from an image of a registry; server.py stands in for it",
    "python benchmarks/": "it measures for minutes, and its figures need idle cores",
    "bit-keras benchmark r50x1-int8.tflite --batch 1 --peers": "so does this",
    "bit-keras completion": "it writes into one's home; tests/cli/test_completion.py",
    "bit-keras evaluate R50x1_224 --data imagenet/val --real": "it reads ImageNet",
    "bit-keras publish collection --to huggingface --owner my-lab": "it sends gigabytes",
    "bit-keras publish collection --to kaggle": "so does this",
    "tensorflowjs_converter": "see tests/exporters/test_saved_model_clients.py",
    "jupyter": "it opens a browser; tests/test_notebooks.py executes the notebooks",
    "eval": "it changes one's shell; tests/cli/test_completion.py",
    "echo": "so does this, in a file of one's home",
}

#: What is run in a process of its own, and how it is started there.
PROCESSES = {name: (name,) for name in ("cat", "cp", "head", "ls", "mkdir", "mv", "tar", "unzip")}
PROCESSES["python"] = (sys.executable,)
#: `bit-keras` where a page sets a variable for it; else it runs in this process.
PROCESSES["bit-keras"] = (sys.executable, "-c", "from bit_keras.cli import main; main()")

#: The program that asks a server.
CLIENT = "export/serving/client.py"

_ASSIGNMENT = re.compile(r"[A-Z_]+=")


class Command(NamedTuple):
    """One command of a block.

    Attributes:
        place: str. File and line.
        text: str. What stands there, in one line.
    """

    place: str
    text: str

    @property
    def reason_not_to_run(self):
        """The entry of `CANNOT_RUN` that it is one of, or None."""
        program = re.sub(r"^([A-Z_]+=\S* +)+", "", self.text)
        return next((start for start in CANNOT_RUN if program.startswith(start)), None)


def commands_of(block):
    """The commands of a block: one in a line, or in several with a backslash at the end."""
    text, start = "", None
    for number, line in enumerate(block.source.splitlines(), block.line + 1):
        start = start if text else number
        text += line.strip().removeprefix("$ ")
        if text.endswith("\\"):
            text = text.removesuffix("\\")
        elif text.startswith("#"):
            text = ""
        elif text:
            yield Command(f"{block.path.relative_to(ROOT)}:{start}", text)
            text = ""
    assert not text, f"{block.place}: the last line of this block continues nowhere"


def examples_of_commands():
    """(name and purpose, block) of every example in the help of the commands."""
    for name in main.list_commands(None):
        path = ROOT / "bit_keras" / "cli" / f"{name}.py"
        for purpose, source in main.get_command(None, name).examples.items():
            yield f"{name}: {purpose}", Block(path, 0, "sh", source)


def require_grammar(block):
    """Fails where bash would not read a block."""
    checked = subprocess.run(["bash", "-n"], input=block.source, capture_output=True, text=True)
    assert checked.returncode == 0, f"{block.place}: {checked.stderr}"


def words_of(command):
    """(dict of assignments, words, what follows the first `|` or `>`) as bash reads a command."""
    text, *rest = re.split(r"\s(?=[|>])", command.text, maxsplit=1)
    print_words = ["bash", "-c", f"printf '%s\\0' {text}"]
    printed = subprocess.run(print_words, capture_output=True, text=True)
    assert printed.returncode == 0, f"{command.place}: {printed.stderr}"
    words, environment = printed.stdout.split("\0")[:-1], {}
    while _ASSIGNMENT.match(words[0]):
        name, _, environment[name] = words.pop(0).partition("=")
    return environment, words, "".join(rest)


def check(command):
    """Fails where a command cannot be right: an unknown option, target, extra or program."""
    _, (program, *arguments), _ = words_of(command)
    known = program in CHECKS or program in PROCESSES or command.reason_not_to_run
    assert known, f"{command.place}: {program} is neither known nor in CANNOT_RUN"
    if program in CHECKS:
        CHECKS[program](arguments, command.place)


def _check_bit_keras(arguments, place):
    """The command, its options and its arguments, as click reads them."""
    options = list(itertools.takewhile(lambda word: word.startswith("-"), arguments))
    with contextlib.suppress(click.exceptions.Exit), main.make_context("bit-keras", [*options]):
        pass
    if arguments == options:
        return
    name, *rest = arguments[len(options) :]
    command = main.get_command(None, name)
    assert command, f"{place}: there is no command {name}"
    try:
        # click keeps the help option of the first context, whose names the parent's settings are.
        command.make_context(name, rest, parent=click.Context(main, **main.context_settings))
    except click.exceptions.Exit as stopped:  # --help
        assert stopped.exit_code == 0, place
    except click.ClickException as error:
        raise AssertionError(f"{place}: {error.format_message()}") from error


def check_mention(text, place):
    """Fails where `bit-keras`, in a sentence, has a command or an option that there is not."""
    name, *words = text.split()
    if name.startswith("-") or not name.islower():  # NAME is none, nor is `...`.
        return
    command = main.get_command(None, name)
    assert command, f"{place}: there is no command {name}"
    known = {"--help"}.union(*(option.opts for option in command.params))
    options = {word.partition("=")[0].rstrip(",") for word in words if word.startswith("--")}
    assert options <= known, f"{place}: {name} has no {options - known}"


def _check_make(arguments, place):
    makefile = (ROOT / "Makefile").read_text()
    for target in arguments:
        name, assigned, _ = target.partition("=")
        wanted = rf"^{name} \?=" if assigned else rf"^{name}:"
        assert re.search(wanted, makefile, re.MULTILINE), f"{place}: the Makefile has no {target}"


def _check_pip(arguments, place):
    """This package comes from a checkout, with extras that it has."""
    action, *requirements = arguments
    assert action == "install", place
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for requirement in requirements:
        assert not requirement.startswith("bit_keras"), f"{place}: {requirement} is on no index"
        extras = re.fullmatch(r"\.\[([\w,]+)\]", requirement)
        known = set(setup["options.extras_require"])
        assert not extras or set(extras[1].split(",")) <= known, f"{place}: {requirement}"


def _check_python(arguments, place):
    if arguments[0] != "-m":
        assert (ROOT / arguments[0]).is_file(), f"{place}: there is no {arguments[0]}"


#: What a command of a program is checked against before any is run.
CHECKS = {
    "bit-keras": _check_bit_keras,
    "make": _check_make,
    "pip": _check_pip,
    "python": _check_python,
}


def execute(command, bit_keras, server=None):
    """Runs a command in the current folder, and returns what it prints.

    `bit_keras` runs that program, and clients ask the server.
    """
    environment, (program, *arguments), rest = words_of(command)
    arguments = arguments_of(arguments) if program == "bit-keras" else arguments
    if program == "python" and arguments[0] == CLIENT:
        arguments += server.options
    if command.reason_not_to_run:
        return _ask_for_help(program, arguments)
    if program == "bit-keras" and not environment:
        output = bit_keras(arguments)
    elif program in PROCESSES:
        output = _output_of([*PROCESSES[program], *arguments], environment)
    else:
        return ""  # What `check` looks at is all.
    return _output_of(["bash", "-c", f"cat {rest}"], {}, output) if rest else output


def _ask_for_help(program, arguments):
    """A program in Python that is not run must load, and know its options."""
    if program == "python":
        _output_of([sys.executable, ROOT / arguments[0], "--help"], {})
    return ""


def _output_of(words, environment, given=None):
    process = subprocess.run(
        words,
        env={**os.environ, **environment},
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, f"{words}: {process.stderr}"
    return process.stdout
