"""Fenced blocks of Markdown: where they are, and how those of Python and of data are taken."""

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parents[2]

#: Folders of pages that are not documentation of this package: tests/collection/test_pages.py
#: has what we publish with models.
ELSEWHERE = ("export/pages",)

#: What is a block of data is parsed as that.
PARSERS = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda source: list(yaml.safe_load_all(source)),
}

#: Every language that a block may have; `text` is what a program prints, or a sketch.
LANGUAGES = {"js", "python", "sh", "text", *PARSERS}

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>.*)$")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        path: Path of the file that it is in.
        line: int. The line of its fence, from 1; its first line is the next one.
        language: str. The word after the fence, without attributes.
        source: str. Its lines, without what the fence is indented by.
    """

    path: Path
    line: int
    language: str
    source: str

    @property
    def place(self):
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def end(self):
        """The line of the fence that closes it."""
        return self.line + self.source.count("\n") + 1


def blocks_of(text, path, first_line=1) -> Iterator[Block]:
    """The blocks of a text that begins in a line of a file."""
    opening, lines = None, []
    for number, line in enumerate(text.splitlines(), first_line):
        fence = _FENCE.match(line)
        if opening is None:
            if fence:
                opening, start, lines = fence, number, []
        elif line.strip() == opening["fence"]:
            language = opening["info"].strip().partition(" ")[0]
            yield Block(path, start, language, "".join(f"{line}\n" for line in lines))
            opening = None
        else:
            lines.append(line.removeprefix(opening["indent"]))
    assert opening is None, f"{path}:{start}: this block has no end"


def pages():
    """Every page of the documentation: the Markdown in the root, in docs/ and next to files."""
    listed = [
        *ROOT.glob("*.md"),
        *(path for part in ("docs", "demo", "export") for path in (ROOT / part).rglob("*.md")),
        *(ROOT / "bit_keras").rglob("*.md"),
    ]
    elsewhere = tuple(f"{ROOT / folder}/" for folder in ELSEWHERE)
    return sorted(path for path in listed if not str(path).startswith(elsewhere))


def blocks_of_page(page):
    return list(blocks_of(page.read_text(), page))


def mentions_of(page):
    """(place, command) of every `bit-keras ...` in the sentences of a page."""
    hidden = {n for block in blocks_of_page(page) for n in range(block.line, block.end + 1)}
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if number not in hidden:
            for text in re.findall(r"`bit-keras ([^`]+)`", line):
                yield f"{page.relative_to(ROOT)}:{number}", text


def docstrings():
    """(file:name, blocks) of every docstring of the package that has an example."""
    for path in sorted((ROOT / "bit_keras").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                continue
            if ast.get_docstring(node):
                text = node.body[0].value
                found = list(blocks_of(inspect.cleandoc(text.value), path, text.lineno))
                if found:
                    name = getattr(node, "name", "")
                    yield f"{path.relative_to(ROOT)}:{name}", found


def run_python(block, namespace):
    """Executes a block; a comment after or below an expression must be its value."""
    lines = block.source.splitlines()
    tree = ast.parse(block.source)
    for statement in tree.body:
        end = statement.end_lineno
        ast.increment_lineno(statement, block.line)  # Tracebacks show the line of the page.
        if not isinstance(statement, ast.Expr):
            module = ast.Module([statement], type_ignores=[])
            exec(compile(module, str(block.path), "exec"), namespace)
            continue
        value = eval(compile(ast.Expression(statement.value), str(block.path), "eval"), namespace)
        claim = re.search(r"#\s*(.*)$", lines[end - 1])
        if claim is None and len(lines) > end:
            claim = re.match(r"#\s*(.*)$", lines[end])
        if claim:
            true = claim.group(1) in (repr(value), repr(_tuple_of(value)))
            assert true, f"{block.path}:{statement.end_lineno}: it is {value!r}"


def strings_in(source):
    """The texts that a program in Python has in quotes."""
    constants = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return [constant.value for constant in constants if isinstance(constant.value, str)]


def _tuple_of(value):
    """Shapes of TensorFlow are not tuples, but look like them."""
    return tuple(value) if type(value).__name__ == "TensorShape" else value
