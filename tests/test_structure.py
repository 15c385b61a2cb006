"""The order of the parts: who may import whom, and what a quick command may cost."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bit_keras

PACKAGE = Path(bit_keras.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From low to high; parts of one row do not know each other.
ROWS = (
    {"errors"},
    {"registry", "archives", "atomic", "documents", "extras", "fonts", "processes", "progress"},
    {"layers", "preprocessing"},
    {"checkpoints", "rules"},
    {"artifacts"},
    {"sources"},
    {"models"},
    {"data"},
    {"exporters", "training", "evaluation"},
    {"inference", "collection", "benchmark"},
    {"cli"},
)
HEIGHT = {part: height for height, row in enumerate(ROWS) for part in row}

# What `import bit_keras` loads is the registry, but it lends the functions of the parts up to
# `models` on first use: only what is above them may ask it.
ROOT = "the root"
HEIGHT[ROOT] = HEIGHT["models"]

HEAVY = {"jax", "keras", "tensorflow", "tf_keras", "torch", "transformers"}
MAY_IMPORT_TENSORFLOW = {
    "artifacts",
    "benchmark",
    "collection",
    "data",
    "exporters",
    "inference",
    "training",
}
#: Read TensorFlow's own format, when they are asked to.
READ_SAVED_MODELS = (
    PACKAGE / "checkpoints" / "files" / "saved_model.py",
    PACKAGE / "checkpoints" / "files" / "tensor_bundle.py",
)
ON_EVERY_BACKEND = {
    "errors",
    "registry",
    "atomic",
    "progress",
    "layers",
    "checkpoints",
    "rules",
    "sources",
    "models",
}


def part_of(path):
    """The part that a file belongs to: its folder or its name below the package."""
    first = path.relative_to(PACKAGE).parts[0]
    return ROOT if first == "__init__.py" else first.removesuffix(".py")


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def imports_of(path, only_at_load=False):
    """Dotted names that a file imports; `from a.b import c` counts as `a.b.c`."""
    tree = tree_of(path)
    for node in executed_at_load(tree) if only_at_load else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def executed_at_load(tree):
    """Every node but those in functions and in `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if lazy or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            continue
        yield node
        yield from executed_at_load(node)


def parts_imported_by(path):
    for name in imports_of(path, only_at_load=part_of(path) == ROOT):
        package, _, rest = name.partition(".")
        if package == "bit_keras":
            part = rest.partition(".")[0]
            yield part if part in HEIGHT else ROOT


def external_imports(path, only_at_load=False):
    return {name.partition(".")[0] for name in imports_of(path, only_at_load)} - {"bit_keras"}


def of_every_file(check):
    """A test that makes a check of every file. One test for each of them took longer to start."""

    def test():
        for path in FILES:
            try:
                check(path)
            except AssertionError as error:
                error.add_note(path.relative_to(PACKAGE).as_posix())
                raise

    test.__name__ = check.__name__
    return test


@of_every_file
def test_every_part_has_its_place_in_the_order(path):
    assert part_of(path) in HEIGHT


@of_every_file
def test_imports_point_down(path):
    part = part_of(path)
    upward = {
        other
        for other in parts_imported_by(path)
        if other != part and HEIGHT[other] >= HEIGHT[part]
    }
    assert not upward


@of_every_file
def test_preprocessing_imports_only_the_registry(path):
    if part_of(path) == "preprocessing":
        services = {"documents", "errors", "extras"}
        assert set(parts_imported_by(path)) <= {"preprocessing", "registry", *services}


@of_every_file
def test_names_are_imported_by_string_only_where_laziness_needs_it(path):
    # What `importlib` imports by a string, the tests above cannot see.
    if re.search("import_module|resolve_name", path.read_text()):
        lazy = {
            "__init__.py",
            "checkpoints/__init__.py",
            "cli/__init__.py",
            "cli/printing.py",
            "exporters/exporting.py",
            "processes.py",
        }
        assert path.relative_to(PACKAGE).as_posix() in lazy


@of_every_file
def test_frameworks_are_imported_only_where_they_belong(path):
    part, external = part_of(path), external_imports(path)
    if path in READ_SAVED_MODELS:
        assert "tensorflow" not in external_imports(path, only_at_load=True)
    elif part not in MAY_IMPORT_TENSORFLOW:
        assert not external & {"tensorflow", "tf_keras"}
    if part in ON_EVERY_BACKEND:
        assert not external & {"jax", "torch", "transformers"}


@of_every_file
def test_nothing_private_of_keras_is_imported(path):
    assert not [name for name in imports_of(path) if name.startswith("keras.src")]


@of_every_file
def test_what_every_command_loads_imports_nothing_heavy(path):
    if part_of(path) in {ROOT, "cli", "registry", "errors", "atomic"}:
        assert not external_imports(path, only_at_load=True) & HEAVY


@pytest.mark.parametrize(
    "statement",
    [
        "import bit_keras",
        "import bit_keras; bit_keras.model_info('BiT-M-R50x1')",
        "import bit_keras.cli",
        "from bit_keras.cli import main; main(['--help'])",
        "from bit_keras.cli import main; main(['list'])",
        "from bit_keras.cli import main; main(['info', 'BiT-M-R50x1'])",
    ],
    ids=["import", "model_info", "import_cli", "help", "list", "info"],
)
def test_quick_commands_load_no_framework(statement):
    report = f"print('loaded:', *sorted(set(sys.modules) & {HEAVY!r}))"
    script = f"import atexit, sys; atexit.register(lambda: {report}); {statement}"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "loaded:"


def test_help_names_every_command_and_what_it_does():
    script = "from bit_keras.cli import main; main(['--help'])"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    commands = result.stdout.partition("COMMANDS")[2].split()
    assert {
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
        "completion",
    } <= set(commands)


@of_every_file
def test_h5py_opens_no_file_that_others_wrote(path):
    # The HDF5 library loops for ever on some files: ours are written by it, and others read by
    # our own reader. Keras opens what it is told to load, so only a clean copy is loaded.
    writers = {"checkpoints/files/keras_file.py", "checkpoints/keras_model.py"}
    name, text = path.relative_to(PACKAGE).as_posix(), path.read_text()
    if "h5py" in external_imports(path):
        assert name in writers
        assert text.count("h5py.File(") == text.count('h5py.File(weights, "w")')
    calls = [node.func.attr for node in ast.walk(ast.parse(text)) if is_method_call(node)]
    assert calls.count("load_model") == (name == "checkpoints/keras_model.py")
    assert "load_weights" not in calls


def is_method_call(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
