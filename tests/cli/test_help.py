"""What the commands say about themselves: pages of help, versions, mistakes in what is typed."""

import shlex
import subprocess
import sys

import click
import pytest

from bit_keras.cli import main
from bit_keras.cli.manual import PROGRAM
from bit_keras.errors import UnknownModelError
from bit_keras.registry import model_info
from tests.cli.running import run
from tests.test_structure import HEAVY

GROUP = main.context_class(main, info_name=PROGRAM, **main.context_settings)
COMMANDS = {name: main.get_command(GROUP, name) for name in main.list_commands(GROUP)}
EVERYTHING = {PROGRAM: main, **COMMANDS}

#: Commands whose first argument can be a model.
TAKE_MODELS = {"info", "predict", "finetune", "evaluate", "convert", "export"}
FILES = ("run", "exported/", ".npz", ".tflite", ".keras")

SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS"]


@pytest.fixture(params=EVERYTHING)
def command(request):
    return EVERYTHING[request.param]


def context_of(command):
    if command is main:
        return GROUP
    return command.context_class(command, info_name=command.name, parent=GROUP)


def headings(text):
    return [line for line in text.splitlines() if line and not line.startswith(" ")]


def lines_of(command):
    """The calls of this program in the examples of a command, as lists of words."""
    for example in command.examples.values():
        for line in example.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(">")[0])
            if words[0] == PROGRAM:
                yield words[1:]


def test_every_page_has_its_sections_in_order(command):
    found = headings(command.get_help(context_of(command)))
    assert [heading for heading in found if heading in SECTIONS] == SECTIONS
    assert set(found) - set(SECTIONS) <= {"COMMANDS", "SEE ALSO"}


def test_every_option_is_explained(command):
    context = context_of(command)
    for parameter in command.get_params(context):
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.opts
            assert parameter.opts[0] in command.get_help(context)


def test_every_command_has_two_to_five_examples_and_says_what_each_does(command):
    assert 2 <= len(command.examples) <= 5
    page = command.get_help(context_of(command))
    for purpose, line in command.examples.items():
        assert purpose.split()[0] in page
        assert all(part in page for part in line.splitlines())


def test_what_documentation_is_made_of_has_the_examples_as_well(command):
    # mkdocs-click shows `help`, whatever the page in a terminal looks like.
    assert command.help.startswith(command.description)
    assert all(line in command.help for line in command.examples.values())


def test_every_example_is_understood(command):
    calls = list(lines_of(command))
    assert calls
    for name, *arguments in calls:
        assert command in (main, COMMANDS[name])
        # Parses without doing anything; raises where an option or a value is unknown.
        COMMANDS[name].make_context(name, list(arguments), parent=GROUP)


def test_every_model_of_an_example_exists(command):
    for name, *arguments in lines_of(command):
        if name in TAKE_MODELS and not arguments[0].endswith(FILES):
            assert model_info(arguments[0]), arguments[0]


def test_a_model_that_does_not_exist_would_be_found():
    with pytest.raises(UnknownModelError):
        model_info("bit_r50x1.in22k")


def test_related_commands_exist_and_are_others(command):
    assert set(command.see_also) <= set(COMMANDS) - {command.name}


@pytest.mark.parametrize("width", [80, 100])
def test_pages_fit_the_terminal(command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = command.get_help(context_of(command)).splitlines()
    assert max(map(len, lines)) <= width
    # Paragraphs use the width that there is.
    assert max(map(len, lines)) > 60


def test_groups_contain_options_that_exist(command):
    names = {parameter.name for parameter in command.params}
    assert {name for group in command.groups.values() for name in group} <= names


def test_options_stand_in_the_groups_that_they_name():
    page = COMMANDS["export"].get_help(context_of(COMMANDS["export"]))
    _, serving, smaller = page.replace("  Smaller files\n", "  Serving\n").split("  Serving\n")
    assert "--batch-sizes" in serving
    assert "--batch-sizes" not in smaller
    assert "--calibrate" in smaller


def test_the_page_says_what_else_an_exit_status_means():
    assert "130  Interrupted" in run("finetune", "--help").stdout
    assert "above the tolerance" in run("verify", "-h").stdout


def test_help_of_no_command_imports_a_framework():
    script = f"""
import contextlib, io, sys
from bit_keras.cli import main
for name in {[[name, "--help"] for name in COMMANDS] + [["--help"], ["--version"], []]!r}:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main(name, standalone_mode=False)
    assert len(output.getvalue()) > 40, name
    print(name, sorted(set(sys.modules) & {HEAVY!r}))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(COMMANDS) + 3
    assert all(line.endswith(" []") for line in lines), result.stdout


def test_the_program_without_a_command_lists_the_commands():
    result = run()
    assert result.exit_code == 0
    for name, command in COMMANDS.items():
        assert f"    {name}" in result.stdout
        assert command.short_help in result.stdout
    assert len(result.stdout.splitlines()) < 30


def test_versions_are_those_that_a_report_needs():
    import keras

    lines = run("--version").stdout.splitlines()
    assert lines[0].startswith("bit-keras, version ")
    assert f"Keras {keras.__version__}, TensorFlow " in lines[1]
    assert f"Python {sys.version.split()[0]}" in lines[1]


def test_a_missing_framework_is_no_reason_to_hide_the_versions(monkeypatch):
    monkeypatch.setattr("bit_keras.cli._FRAMEWORKS", {"TensorFlow": "no-such-distribution"})
    assert "TensorFlow is not installed" in run("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predct"], "There is no command 'predct'. Did you mean predict?"),
        (["finetuning", "--help"], "Did you mean finetune?"),
        (["zebra"], "There is no command 'zebra'. Commands: list, info, predict,"),
        (["predict", "--tpo", "3"], "No such option '--tpo'. Did you mean '--top'?"),
    ],
)
def test_what_is_mistyped_gets_a_suggestion(arguments, sentence):
    result = run(*arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""
