"""What the documentation shows, runs, and gives the results it claims."""

import ast
import re
from pathlib import Path

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import SeededArrays, official_shapes, write_npz

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="The examples are run once; what they show is tested on every backend elsewhere.",
)


def blocks(text):
    """The fenced Python blocks of a text."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def docstrings():
    """Every docstring of the package that has an example, by file and name."""
    for path in sorted((ROOT / "bit_keras").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                if blocks(text):
                    yield pytest.param(text, id=f"{path.relative_to(ROOT)}:{node.name}")


def run(source, namespace):
    """Executes a block; a comment behind or below an expression must be its value."""
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        code = ast.unparse(statement)
        if not isinstance(statement, ast.Expr):
            exec(code, namespace)
            continue
        value = eval(code, namespace)
        claim = re.search(r"#\s*(.*)$", lines[statement.end_lineno - 1])
        if claim is None and len(lines) > statement.end_lineno:
            claim = re.match(r"#\s*(.*)$", lines[statement.end_lineno])
        if claim:
            assert repr(value) == claim.group(1) or repr(tuple_of(value)) == claim.group(1)


def tuple_of(value):
    """Shapes of TensorFlow are no tuples, but look like them."""
    return tuple(value) if type(value).__name__ == "TensorShape" else value


@pytest.mark.parametrize("text", list(docstrings()))
def test_examples_in_docstrings_run_and_are_true(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"bit_keras": bit_keras, "np": np, "keras": keras}
    for block in blocks(text):
        run(block, namespace)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_the_pages_run_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks(page.read_text()):
        run(block, namespace)


@pytest.mark.long
def test_the_readme_runs_from_top_to_bottom(tmp_path, monkeypatch):
    # Seeded values stand in for the published files, which the tests do not fetch.
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(ROOT)
    for name in ("bit_r50x1.distilled_in1k_224", "bit_r50x1.in21k"):
        checkpoint = bit_keras.model_info(name)
        shapes = official_shapes(checkpoint.architecture, checkpoint.classes)
        write_npz(tmp_path / Path(checkpoint.file).name, SeededArrays(shapes))
    namespace = {}
    for block in blocks((ROOT / "README.md").read_text()):
        run(block, namespace)


def test_every_public_name_is_documented():
    for name in bit_keras.__all__:
        if name != "__version__":
            assert (getattr(bit_keras, name).__doc__ or "").strip(), name


def test_the_readme_names_models_that_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\bbit_r\d+x\d\.\w+", text):
        assert bit_keras.model_info(name).name == name
