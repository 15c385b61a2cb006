"""The page of the models and the table of the README are what the registry says."""

import importlib.util
import re

import pytest

from bit_keras.registry import CHECKPOINTS
from tests.documentation.snippets import ROOT

COMMAND = "python docs/models.py"


@pytest.fixture(scope="module")
def writer():
    """The module docs/models.py, which no package contains."""
    specification = importlib.util.spec_from_file_location("models", ROOT / "docs" / "models.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_page_is_what_the_registry_gives_now(writer):
    assert (ROOT / "docs" / "models.md").read_text("utf-8") == writer.page(), f"Run: {COMMAND}"


def test_the_table_of_the_readme_is_what_the_registry_gives_now(writer):
    readme = (ROOT / "README.md").read_text("utf-8")
    assert writer.with_table(readme) == readme, f"Run: {COMMAND}"
    assert writer.readme_table().count("\n") <= 2 + 9


def test_a_readme_without_the_markers_is_refused(writer):
    with pytest.raises(SystemExit, match="needs the lines <!-- models --> and <!-- /models -->"):
        writer.with_table("# Another README\n")


def test_every_model_belongs_to_one_family(writer):
    patterns = [pattern for pattern, _ in writer.FAMILIES.values()] + [writer.VTAB.pattern]
    for name in CHECKPOINTS:
        assert sum(bool(re.fullmatch(pattern, name)) for pattern in patterns) == 1, name


def test_the_page_names_all_that_is_known_of_every_model(writer):
    page = writer.page()
    for checkpoint in CHECKPOINTS.values():
        if "_vtab_" in checkpoint.name:
            continue
        for name in (checkpoint.name, *checkpoint.aliases):
            assert f"`{name}`" in page
        for accuracy in checkpoint.accuracies:
            assert f" {accuracy.value} % " in page
        if checkpoint.bytes:
            assert f" {checkpoint.bytes:,} (" in page


def test_names_and_files_of_vtab_networks_follow_the_pattern_of_the_page(writer):
    _, _, vtab = writer.page().partition("## VTAB")
    tasks = dict(re.findall(r"^\| `(\w+)` \| `([\w-]+)` \|", vtab, re.MULTILINE))
    for name, checkpoint in CHECKPOINTS.items():
        if "_vtab_" in name:
            architecture, task, seed = re.fullmatch(
                r"(\w+)\.in21k_ft_vtab_(\w+)_run(\d)", name
            ).groups()
            official = architecture.removeprefix("bit_").upper().replace("X", "x")
            assert f"`{architecture}`" in vtab
            assert checkpoint.file == f"vtab/BiT-M-{official}-run{seed}-{tasks[task]}.npz"
