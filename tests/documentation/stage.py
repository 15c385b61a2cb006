"""The folder that a page is followed in, from its first block to its last."""

import doctest
import re
from typing import NamedTuple

from tests.documentation.server import Server
from tests.documentation.shell import commands_of, execute, words_of
from tests.documentation.snippets import run_python, strings_in
from tests.documentation.standing import checkout, inputs_of, prints_the_same

#: Lines of dots stand for omitted lines, and the width of columns does not matter.
_ELISION = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

#: Packages that Python of pages imports and that need an environment of their own.
ELSEWHERE = {"coremltools": "tests/exporters/test_saved_model_clients.py runs it there"}


class Printed(NamedTuple):
    """What commands print, and the line that their block ends in."""

    text: str
    end: int


class Stage:
    """Follows a page: its commands and its Python, in one folder, one after the other.

    Args:
        folder: Path of an empty folder, which is the current one.
        pantry: Pantry. Where the standing things come from.
        closing: contextlib.ExitStack. Stops what the page starts.
    """

    def __init__(self, folder, pantry, closing):
        self.folder, self.pantry, self.closing = folder, pantry, closing
        self.namespace = {}
        self.printed = self.server = None
        checkout(folder)

    def follow(self, block):
        """Does what a block says; a text right after commands must be what they print."""
        printed, self.printed = self.printed, None
        if block.language == "sh":
            self.printed = self._run_commands(block)
        elif block.language == "python" and not any(
            f"import {package}" in block.source for package in ELSEWHERE
        ):
            self._run_python(block)
        elif block.language == "text" and printed and block.line <= printed.end + 2:
            alike = doctest.OutputChecker().check_output(
                _rounded(block.source), _rounded(printed.text), _ELISION
            )
            assert alike, f"{block.place} is not what is printed:\n{printed.text}"

    def _run_commands(self, block):
        """What the commands print, if it is the same everywhere."""
        outputs, same = [], True
        for command in commands_of(block):
            _, words, _ = words_of(command)
            self.pantry.provide(inputs_of(words))
            if words[0] == "docker":
                self.server = Server(self.folder, self.closing)
            outputs.append(execute(command, self.pantry.run, self.server))
            same = same and words[0] == "bit-keras" and prints_the_same(words[1:])
        return Printed("".join(outputs), block.end) if same else None

    def _run_python(self, block):
        self.pantry.provide(strings_in(block.source))
        self.pantry.provide_weights(block.source)
        if self.server:
            block = block._replace(source=self.server.seen_by(block.source))
        run_python(block, self.namespace)


def _rounded(text):
    """A text with two decimals in its numbers: the last ones differ between machines."""
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text)
