"""Weights that are not finite are refused by every reader, and taken where that is requested."""

import shutil

import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import load_keras_model, open_checkpoint
from bit_keras.checkpoints.writing import write_checkpoint
from bit_keras.errors import CheckpointError

NAME = "resnet/head/conv2d/kernel"


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A network with three such values, as npz and as .keras."""
    folder = tmp_path_factory.mktemp("broken")
    model = bit_keras.create_classifier("bit_tiny.cifar10")
    kernel = model.get_layer("head").kernel
    values = np.array(kernel)
    values[0, :2], values[5, 3] = np.nan, np.inf
    kernel.assign(values)
    bit_keras.save_weights(model, folder / "x.npz")
    bit_keras.save_weights(model, folder / "half.npz", dtype="float16")
    model.save(folder / "x.keras")
    return folder


def test_half_precision_is_refused_with_its_name_and_number(broken):
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    with pytest.raises(CheckpointError) as info:
        bit_keras.load_weights(model, broken / "half.npz")
    for fact in ("half.npz", "head", " 3 values", "10,240", "--allow-nonfinite"):
        assert fact in str(info.value)
    bit_keras.load_weights(model, broken / "half.npz", allow_nonfinite=True)
    assert np.isnan(np.array(model.get_layer("head").kernel)).sum() == 2


def test_a_keras_model_is_refused_too(broken):
    with pytest.raises(CheckpointError, match="3 values"):
        load_keras_model(broken / "x.keras")
    load_keras_model(broken / "x.keras", allow_nonfinite=True)


def test_they_are_not_written_on(broken, tmp_path):
    with open_checkpoint(broken / "x.npz") as arrays, pytest.raises(CheckpointError, match=NAME):
        arrays.verify()
    with open_checkpoint(broken / "x.npz", allow_nonfinite=True) as arrays:
        arrays.verify()
        write_checkpoint(tmp_path / "y.npz", arrays, "npz")
    assert np.isinf(np.load(tmp_path / "y.npz")[NAME]).sum() == 1


@pytest.mark.tensorflow
def test_the_commands_refuse_them_and_take_the_option(broken, tmp_path):
    from click.testing import CliRunner

    from bit_keras.cli import main

    shutil.copy(broken / "x.npz", tmp_path / "bit_tiny.npz")
    command = ["convert", str(tmp_path / "bit_tiny.npz"), str(tmp_path / "y.npz"), "--to", "npz"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "head" in result.output
    assert not (tmp_path / "y.npz").exists()
    assert CliRunner().invoke(main, [*command, "--allow-nonfinite"]).exit_code == 0
