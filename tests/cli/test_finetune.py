"""`bit-keras finetune`, as a shell sees it."""

import json

import keras
import pytest
from click.testing import CliRunner

from bit_keras.cli import main
from tests.cifar10 import SAMPLES

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The command is tested once."
)

SHORT = ("--weights", "random", "--size", 32, "--batch", 4, "--steps", 2, "--lr", 0.01)


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Real images in two class folders: animals, and what people made."""
    root = tmp_path_factory.mktemp("photos")
    for path in SAMPLES.glob("*.jpg"):
        made = path.stem in ("airplane", "automobile", "ship", "truck")
        folder = root / ("machines" if made else "animals")
        folder.mkdir(exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    return root


@pytest.mark.slow
def test_it_says_the_rule_trains_and_says_what_is_next(photos, tmp_path):
    out = tmp_path / "run"
    result = run("finetune", "bit_tiny.cifar10", "--data", photos, "--out", out, *SHORT)
    assert result.exit_code == 0, result.output
    assert "training from random weights (this project's own): 2 steps of 4" in result.stderr
    assert "Validation, 20% (2 of 10) held out of training" in result.stderr
    assert "animals (1), machines (1)" in result.stderr
    assert "step 2/2: loss" in result.stderr
    assert "validation accuracy" in result.stdout
    assert f"bit-keras evaluate {out} --data {photos}" in result.stdout
    assert json.loads((out / "run.json").read_text())["results"]["last_step"] == 2

    again = run("finetune", "bit_tiny.cifar10", "--data", photos, "--out", out, *SHORT)
    assert again.exit_code == 0
    assert "is finished" in again.stderr

    other = run("finetune", "bit_tiny.cifar10", "--data", photos, "--out", out, *SHORT, "--seed", 1)
    assert other.exit_code == 1
    assert "options seed was 0 and is 1" in other.stderr


def test_mistakes_end_with_one_sentence(photos, tmp_path):
    out = tmp_path / "run"
    for arguments, message in (
        (("bit_tiny.cifar11", "--data", photos), "bit_tiny.cifar10"),
        (("bit_tiny.cifar10", "--data", tmp_path / "nowhere"), "nowhere"),
        (("bit_tiny.cifar10", "--data", photos, "--freeze", "roof"), "block4. Received: roof"),
        (("bit_tiny.cifar10", "--data", photos, "--validation", "2"), "between 0 and 1"),
    ):
        result = run("finetune", *arguments, "--out", out, *SHORT)
        assert result.exit_code == 1, result.output
        assert "Error: " in result.stderr
        assert message in result.stderr
        assert not out.exists()
    assert run("finetune", "bit_tiny.cifar10", "--data", photos).exit_code == 2
    assert run("finetune", "--help").exit_code == 0
