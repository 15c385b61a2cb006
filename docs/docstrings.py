"""A Griffe extension that converts the sections of this package's docstrings for mkdocstrings."""

import inspect
import re
from typing import Any

import griffe

#: Sections of sentences, which are shown as written. Griffe's Google style would turn the last
#: three into admonitions, and read the text before a colon in the first two as a type.
_SENTENCES = re.compile(
    r"^(Returns|Yields|Call arguments|Input shape|Output shape|Reference):\n"
    r"((?:(?: +.*)?(?:\n|\Z))+)",
    re.MULTILINE,
)

#: The block of code after it is not indented.
_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)


class HouseSections(griffe.Extension):
    """Shows docstring sections that consist of sentences or code under plain titles."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites the docstring of an object when it is collected."""
        if obj.docstring is not None:
            text = _SENTENCES.sub(_titled, inspect.cleandoc(obj.docstring.value))
            obj.docstring.value = _EXAMPLE.sub("**Example:**", text)


def _titled(section: re.Match[str]) -> str:
    title, content = section.groups()
    return f"**{title}:**\n\n{inspect.cleandoc(content)}\n\n"
