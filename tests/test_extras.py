"""Optional packages: what is missing, and the command that installs it."""

import ast
import configparser
import sys
from pathlib import Path

import pytest

import bit_keras
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.extras import install_command, is_importable, require_extra

PACKAGE = Path(bit_keras.__file__).parent


def test_what_is_installed_is_not_imported():
    require_extra("train", "turtledemo")
    assert "turtledemo" not in sys.modules


def test_every_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportError) as raised:
        require_extra("onnx", "json", "onnx", "nowhere.below", purpose="A file", error=ExportError)
    assert (
        str(raised.value) == "A file needs onnx and nowhere.below: pip install 'bit_keras[onnx]'."
    )
    with pytest.raises(BitKerasError, match="nowhere"):
        require_extra("onnx", "nowhere")


def test_a_package_below_a_missing_one_is_missing():
    assert is_importable("json.decoder")
    assert not is_importable("nowhere.below")


def test_every_extra_that_the_library_names_exists():
    setup = configparser.ConfigParser()
    setup.read(PACKAGE.parent / "setup.cfg")
    extras = set(setup["options.extras_require"])
    called = {require_extra.__name__, install_command.__name__}
    named = {
        node.args[0].value
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in called
        and isinstance(node.args[0], ast.Constant)
    }
    assert {"onnx", "tflite", "openvino", "train", "heic"} <= named <= extras
