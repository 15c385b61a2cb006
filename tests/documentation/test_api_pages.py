"""The Python reference: every public name, on one page, with every section of its docstring."""

import importlib
import re

import griffe
import pytest

import bit_keras
from tests.documentation.snippets import ROOT

PACKAGE = griffe.load("bit_keras", search_paths=[ROOT], resolve_aliases=True)


def documented():
    """The public path of every entry, with its page."""
    return [
        (path, page.name)
        for page in sorted((ROOT / "docs" / "api").glob("*.md"))
        for path in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)
    ]


def object_at(path):
    found = PACKAGE[path.removeprefix("bit_keras.")]
    return found.final_target if found.is_alias else found


ENTRIES = documented()
FUNCTIONS = [path for path, _ in ENTRIES if object_at(path).is_function]
CLASSES = [path for path, _ in ENTRIES if object_at(path).is_class]


def subpackages():
    for member in PACKAGE.modules.values():
        if member.is_init_module and member.name != "cli":
            yield member


def public_objects():
    """What the package and its subpackages export, by the path of its definition."""
    names = [f"bit_keras.{name}" for name in bit_keras.__all__ if name != "__version__"]
    for package in subpackages():
        names += [
            alias.path
            for alias in package.members.values()
            if alias.is_alias
            and not alias.name.startswith("_")
            and alias.target_path.startswith("bit_keras.")
        ]
    found = {object_at(name).path: name for name in names if not object_at(name).is_module}
    assert len(found) > len(bit_keras.__all__)
    return found


def test_every_public_name_is_on_exactly_one_page():
    entries = [object_at(path).path for path, _ in ENTRIES]
    twice = {path for path in entries if entries.count(path) > 1}
    assert not twice
    missing = [name for path, name in public_objects().items() if path not in entries]
    assert not missing


def test_every_subpackage_has_an_entry():
    paths = [path for path, _ in ENTRIES]
    definitions = {object_at(path).path for path in paths}
    for package in subpackages():
        assert any(path.startswith(f"{package.path}.") for path in definitions), package.path


@pytest.mark.parametrize("path", [path for path, _ in ENTRIES])
def test_entries_can_be_imported_by_the_name_they_show(path):
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def sections(found):
    """The text of each section of a docstring, without its indent."""
    text = found.docstring.value
    titles = re.split(r"^([A-Z][a-z ]+):$", text, flags=re.MULTILINE)
    assert titles[0].strip(), "no summary"
    return dict(zip(titles[1::2], titles[2::2], strict=True))


def described(section):
    """The names that a section describes."""
    return re.findall(r"^    \**(\w[\w., ]*):", section, re.MULTILINE)


def parameters(found):
    return [parameter.name for parameter in found.parameters if parameter.name != "self"]


@pytest.mark.parametrize("path", FUNCTIONS)
def test_docstrings_of_functions_follow_the_house_template(path):
    found = object_at(path)
    parts = sections(found)
    assert described(parts.get("Args", "")) == parameters(found)
    returns = str(found.returns) not in ("None", "NoReturn")
    assert returns == bool({"Returns", "Yields"} & parts.keys())
    if re.search(r"^ +raise \w", found.source, re.MULTILINE):
        assert "Raises" in parts
    for name in described(parts.get("Raises", "")):
        for error in name.split(", "):
            assert error.endswith("Error") or error == "Interrupted", name
    assert "Example" in parts


@pytest.mark.parametrize("path", CLASSES)
def test_docstrings_of_classes_describe_what_they_take_or_contain(path):
    found = object_at(path)
    parts = sections(found)
    if "Args" in parts:
        assert described(parts["Args"]) == parameters(found)
    elif "dataclass" in found.labels:
        fields, properties = parameters(found), described(parts["Attributes"])
        assert properties[: len(fields)] == fields
        assert set(properties) <= found.members.keys()


def test_docstrings_are_read_as_the_house_writes_them():
    """The sections of sentences stay sentences: no colon in them makes a type."""
    extensions = griffe.load_extensions(str(ROOT / "docs" / "docstrings.py"))
    package = griffe.load("bit_keras", search_paths=[ROOT], extensions=extensions)
    function = package["models.class_maps.create_class_maps"]
    parsed = function.docstring.parse("google")
    assert [section.kind.value for section in parsed] == [
        "text",
        "parameters",
        "text",
        "raises",
        "text",
    ]
    assert "**Returns:**\n\nkeras.Model. Input: that of the classifier." in parsed[2].value
    assert "**Example:**\n\n```python" in parsed[4].value
    assert "**Reference:**\n\n[Zhou et al., 2015]" in parsed[4].value
