"""`bit-keras completion`, and what a shell gets when it asks."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bit_keras.registry import CHECKPOINTS, list_models
from tests.cli.running import run
from tests.test_structure import HEAVY

ROOT = Path(__file__).parents[2]

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")

#: Calls the function that the script has registered, as the Tab key does.
ASK = """
source {script}
compopt() {{ echo compopt "$1" "$2"; }}
COMP_WORDS=({words})
COMP_CWORD={last}
$(complete -p bit-keras | sed 's/.*-F \\([^ ]*\\) .*/\\1/') bit-keras
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Asks bash for the completions of a line whose last word is not finished."""
    folder = tmp_path_factory.mktemp("shell")
    program = folder / "bit-keras"
    program.write_text(f"#!{sys.executable}\nfrom bit_keras.cli import main\nmain()\n")
    program.chmod(0o755)
    script = folder / "completion.bash"
    script.write_text(run("completion", "bash").stdout)
    environment = {
        **os.environ,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def ask(*words):
        line = ASK.format(script=script, words=shlex.join(["bit-keras", *words]), last=len(words))
        result = subprocess.run(
            ["bash", "--norc", "-c", line],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return [line for line in result.stdout.splitlines() if line]

    return ask


@needs_bash
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["pre"], ["predict"]),
        (["co"], ["convert", "collection", "completion"]),
        (["finetune", "bit_r152x4.in1"], ["bit_r152x4.in1k"]),
        (["export", "bit_tiny.cifar10", "--to", "o"], ["onnx", "openvino"]),
        (["export", "bit_tiny.cifar10", "--calibration-i"], ["--calibration-images"]),
        (["finetune", "bit_tiny.cifar10", "--freeze", "s"], ["stem"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["list", "resnetv2_50."], ["resnetv2_50.a1h_in1k"]),
    ],
)
def test_bash_completes_commands_options_choices_and_models(complete, words, completions):
    assert complete(*words) == completions


@needs_bash
def test_bash_offers_files_where_no_model_is_meant(complete):
    # To bash this says: take files, unless there is something else.
    assert complete("predict", "run-") == ["compopt -o default"]
    assert complete("predict", "bit_tiny.cifar10", "") == ["compopt -o default"]
    assert complete("verify", "") == ["compopt -o default"]
    assert complete("predict", "bit_ti") == ["compopt -o default", "bit_tiny.cifar10"]
    weights = complete("export", "bit_tiny.cifar10", "--weights", "")
    assert weights == ["compopt -o default", "pretrained", "random"]


@needs_bash
def test_the_many_networks_of_vtab_are_offered_only_where_they_are_meant(complete):
    models = complete("finetune", "")
    assert models == [name for name in list_models() if "_vtab_" not in name]
    vtab = "bit_r50x1.in21k_ft_vtab_caltech101_run"
    assert complete("finetune", vtab) == [f"{vtab}{number}" for number in range(3)]


@pytest.mark.parametrize(
    ("shell", "registration"),
    [
        ("bash", "complete -o nosort -F _bit_keras_completion bit-keras"),
        ("zsh", "#compdef bit-keras"),
        ("fish", "complete --no-files --command bit-keras"),
    ],
)
def test_there_is_a_script_for_each_shell(shell, registration):
    script = run("completion", shell).stdout
    assert registration in script
    assert f"_BIT_KERAS_COMPLETE={shell}_complete" in script


def test_a_shell_that_is_unknown_is_wrong_usage():
    result = run("completion", "tcsh")
    assert result.exit_code == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.stderr


def answer_to(shell, words, **variables):
    """What the program returns to the script of a shell, and the frameworks that it loaded."""
    program = f"""
import atexit, sys
atexit.register(lambda: print('loaded:', *sorted(set(sys.modules) & {HEAVY!r})))
from bit_keras.cli import main
main(prog_name='bit-keras')
"""
    environment = {
        **os.environ,
        "_BIT_KERAS_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": shlex.join(["bit-keras", *words]),
        "COMP_CWORD": str(len(words)),
        **variables,
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    *output, loaded = result.stdout.splitlines()
    return output, loaded


@pytest.mark.parametrize("words", [["bit"], ["export", "bit_"], ["predict", "a", "--t"]])
def test_completing_loads_no_framework(words):
    assert answer_to("bash", words)[1] == "loaded:"


def test_zsh_gets_three_lines_for_each_completion_none_of_them_empty():
    # An empty line is dropped by click's script, and what follows is taken for something else.
    output, _ = answer_to("zsh", ["predict", ""])
    assert output[0] == "file"
    assert output[3:6:2] == ["plain", CHECKPOINTS["bit_r50x1.distilled_in1k_224"].description]
    assert len(output) % 3 == 0
    assert all(output)


def test_fish_gets_whole_descriptions():
    # What follows a comma is lost in click's script.
    output, _ = answer_to("fish", ["finetune"], COMP_CWORD="bit_r50x1.in21k_ft_in1k")
    assert output == [
        "plain,bit_r50x1.in21k_ft_in1k\t"
        "BiT-M: pre-trained on ImageNet-21k; fine-tuned on ImageNet-1k."
    ]
