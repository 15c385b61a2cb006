"""What the package needs: declared, bounded on both sides, and run at both ends of its ranges."""

import ast
import configparser
import os
import subprocess
import sys
import venv

import keras
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.installing import ROOT, checkout

#: The lowest version of every dependency, for pip's `--constraint`.
LOWEST = ROOT / "tests" / "lowest.txt"

#: Distributions of modules that are named otherwise.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "google": "protobuf",
    "tensorflow_serving": "tensorflow-serving-api",
}

#: What takes part where it is installed, and what comes with a data set of another library.
NOT_OURS = {"array-record", "timm"}

#: What both ends of all ranges run: every library that reads or writes a format. PyTorch is left
#: out, which is gigabytes and is exact in the extra `dev`.
EXTRAS = "demo,explain,huggingface,jax,onnx,openvino,publish,serving,tfds,tflite"
TESTS = (
    "tests/checkpoints/files/test_keras_file.py",
    "tests/checkpoints/files/test_npz.py",
    "tests/checkpoints/test_every_reader.py",
    "tests/checkpoints/test_transfer.py",
    "tests/cli/test_commands.py",
    "tests/collection/test_pages.py",
    "tests/data",
    "tests/evaluation",
    "tests/exporters/onnx",
    "tests/exporters/test_every_target.py",
    "tests/exporters/test_hub.py",
    "tests/exporters/test_keras_file.py",
    "tests/exporters/test_openvino.py",
    "tests/exporters/test_serving.py",
    "tests/exporters/tflite/test_export.py",
    "tests/inference/test_predictor.py",
    "tests/layers",
    "tests/models/test_every_builder.py",
    "tests/models/test_folding.py",
    "tests/models/test_resnet_v2.py",
    "tests/preprocessing",
)
TESTS_ON_JAX = [
    "tests/layers",
    "tests/models/test_every_builder.py",
    "tests/models/test_resnet_v2.py",
    "tests/checkpoints/test_transfer.py",
]

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The dependencies know no backend."
)


def test_the_tests_of_both_ends_exist():
    assert [path for path in (*TESTS, *TESTS_ON_JAX) if not (ROOT / path).exists()] == []


def requirements():
    """Every requirement of setup.cfg, of the package and of its extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    texts = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    lines = [line for text in texts for line in text.splitlines() if line.strip("# ")]
    return [
        Requirement(line)
        for line in lines
        if not line.startswith("#") and not line.startswith("bit_keras[")
    ]


def bounds(requirement):
    return {bound.operator: bound.version for bound in requirement.specifier}


def imported_modules():
    for path in (ROOT / "bit_keras").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.partition(".")[0]


def test_everything_that_is_imported_is_declared():
    modules = set(imported_modules()) - sys.stdlib_module_names - {"bit_keras"}
    imported = {canonicalize_name(DISTRIBUTIONS.get(module, module)) for module in modules}
    declared = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert imported - declared <= NOT_OURS


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_range_has_two_ends(requirement):
    # What needs an exact version, or has only an upper bound, says why in setup.cfg.
    assert bounds(requirement).keys() in ({">=", "<"}, {"=="}, {"<"})


def test_the_lowest_versions_are_those_of_the_ranges():
    lowest = {
        f"{canonicalize_name(requirement.name)}=={bounds(requirement)['>=']}"
        for requirement in requirements()
        if ">=" in bounds(requirement)
    }
    assert LOWEST.read_text().splitlines() == sorted(lowest)


@pytest.mark.full
@pytest.mark.parametrize("end", ["lowest", "highest"])
def test_both_ends_of_the_ranges_pass(end, tmp_path):
    """Installs into a new environment, from the index that pip is set up with."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pinned = ["--constraint", str(LOWEST)] if end == "lowest" else []
    package = f"{checkout(tmp_path / 'bit_keras')}[{EXTRAS}]"
    tools = ["pytest>=8,<10", "pyyaml>=6,<7"]
    install = [python, "-m", "pip", "install", "--quiet", *pinned, package, *tools]
    installed = subprocess.run(install, capture_output=True, text=True, check=False)
    if "Could not find a version" in installed.stderr and "from versions: none" in installed.stderr:
        pytest.skip("pip reaches no package index.")
    assert installed.returncode == 0, installed.stderr
    run(python, "tensorflow", TESTS)
    run(python, "jax", TESTS_ON_JAX)


def run(python, backend, tests):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Other versions warn of other things.
    options = ["-q", "-m", "not long and not full", "-o", "filterwarnings=default"]
    tested = subprocess.run(
        [python, "-m", "pytest", *options, "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**variables, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout[-10_000:]
