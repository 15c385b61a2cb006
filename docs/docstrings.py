"""How the site reads our docstrings: an extension of Griffe, which mkdocstrings calls."""

import inspect
import re
from typing import Any

import griffe

#: Sections of sentences, which are shown as they are written. Griffe's Google style would make
#: boxes of the last three, and take what precedes a colon in the first two for a type.
_SENTENCES = re.compile(
    r"^(Returns|Yields|Call arguments|Input shape|Output shape|Reference):\n"
    r"((?:(?: +.*)?(?:\n|\Z))+)",
    re.MULTILINE,
)

#: A block of code follows it, which is not indented.
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class HouseSections(griffe.Extension):
    """Shows the sections of our docstrings that are sentences or code below plain titles."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object as it is collected."""
        if obj.docstring is not None:
            text = _SENTENCES.sub(_titled, inspect.cleandoc(obj.docstring.value))
            obj.docstring.value = _EXAMPLE.sub("**Example:**", text)


def _titled(section: re.Match[str]) -> str:
    title, content = section.groups()
    return f"**{title}:**\n\n{inspect.cleandoc(content)}\n\n"
