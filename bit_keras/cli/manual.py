"""Help of commands in the form of manual pages, with examples and exit statuses.

Based on click's formatter. `rich-click` prints panels and supports neither examples nor exit
statuses.
"""

import functools
import inspect
import re
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

PROGRAM = "bit-keras"

_EXIT_STATUSES = {
    0: "Success.",
    1: "Failure; standard error states the reason.",
    2: "Wrong usage of the command line.",
}

#: Indentation of the text of a section, and of the title of a part of a section.
_INDENT = 4
_TITLE = " " * (_INDENT // 2)

#: An option whose default the help shows; one without a value, with a number from 1, with a path.
option = functools.partial(click.option, show_default=True)
flag_option = functools.partial(option, is_flag=True)
count_option = functools.partial(option, metavar="N", type=click.IntRange(min=1))
path_option = functools.partial(option, type=click.Path(path_type=Path))


class _Formatter(click.HelpFormatter):
    """Headings without a colon, terms above their definitions."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(indent_increment=_INDENT, **attributes)

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{heading}\n")

    def write_title(self, title: str) -> None:
        self.write(f"{_TITLE}{title}\n")

    def write_definitions(self, rows: Iterable[tuple[str, str]]) -> None:
        for term, definition in rows:
            self.write(f"{'':>{self.current_indent}}{term}\n")
            with self.indentation():
                self.write_text(definition)

    def write_examples(self, examples: Mapping[str, str]) -> None:
        for number, (purpose, line) in enumerate(examples.items()):
            if number:
                self.write_paragraph()
            self.write_text(f"{purpose}:")
            with self.indentation():
                # Not wrapped, so that it can be pasted into a shell.
                self.write_text(f"\b\n{line}")


class _Context(click.Context):
    formatter_class = _Formatter


class Command(click.Command):
    """A command with examples, exit statuses and related commands.

    `--help` prints them as a manual page. `help` contains them as Markdown for the
    documentation: https://github.com/mkdocs/mkdocs-click shows `help` and the options.

    The docstring of the function ends with `Examples:`: the purpose of each, indented and with a
    colon at its end, and the lines for a shell, indented further.

    Args:
        groups: dict from the title of a group of options to the names of their parameters.
            Options of no group precede these. Defaults to none.
        see_also: tuple of str. Names of related commands. Defaults to none.
        exit_statuses: dict of int to str. Meaning of exit statuses other than 0 for success, 1
            for a failure and 2 for wrong usage.
        **attributes: Arguments of `click.Command`; `short_help` is required.
    """

    context_class = _Context

    def __init__(
        self,
        *args: Any,
        groups: Mapping[str, tuple[str, ...]] | None = None,
        see_also: tuple[str, ...] = (),
        exit_statuses: Mapping[int, str] | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        description, _, examples = inspect.cleandoc(self.help or "").partition("\n\nExamples:\n")
        self.description = description
        self.examples = _examples(examples)
        self.groups = groups or {}
        self.see_also = see_also
        self.exit_statuses = exit_statuses or {}
        self.help = self._markdown()

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        assert isinstance(formatter, _Formatter)
        with formatter.section("NAME"):
            formatter.write_text(f"{ctx.command_path} - {self.get_short_help_str()}")
        with formatter.section("SYNOPSIS"):
            arguments = " ".join(self.collect_usage_pieces(ctx))
            formatter.write_usage(ctx.command_path, arguments, prefix=" " * _INDENT)
        with formatter.section("DESCRIPTION"):
            formatter.write_text(self.description)
        self.format_options(ctx, formatter)
        with formatter.section("EXAMPLES"):
            formatter.write_examples(self.examples)
        with formatter.section("EXIT STATUS"):
            statuses = {**_EXIT_STATUSES, **self.exit_statuses}
            formatter.write_dl([(str(status), text) for status, text in statuses.items()])
        if self.see_also:
            with formatter.section("SEE ALSO"):
                lines = (f"{PROGRAM} {name}" for name in self.see_also)
                formatter.write_text("\b\n" + "\n".join(lines))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options without a group, then those of each group with its title."""
        assert isinstance(formatter, _Formatter)
        titles = {name: title for title, names in self.groups.items() for name in names}
        records: dict[str | None, list[tuple[str, str]]] = {None: []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                records.setdefault(titles.get(parameter.name or ""), []).append(record)
        with formatter.section("OPTIONS"):
            for title, rows in records.items():
                if title is not None:
                    formatter.write_paragraph()
                    formatter.write_title(title)
                formatter.write_definitions(rows)

    def _markdown(self) -> str:
        examples = "\n\n".join(f"# {purpose}:\n{line}" for purpose, line in self.examples.items())
        parts = [self.description, f"**Examples:**\n\n```sh\n{examples}\n```"]
        if self.exit_statuses:
            statuses = (f"- {status}: {text}" for status, text in self.exit_statuses.items())
            parts.append("**Exit status:**\n\n" + "\n".join(statuses))
        if self.see_also:
            links = (f"[{PROGRAM} {name}](#{PROGRAM}-{name})" for name in self.see_also)
            parts.append(f"**See also:** {', '.join(links)}")
        return "\n\n".join(parts)


def _examples(text: str) -> dict[str, str]:
    """The lines for a shell by their purpose."""
    _, *parts = re.split(r"^(\S.*):\n", textwrap.dedent(text), flags=re.MULTILINE)
    return {
        purpose: textwrap.dedent(lines).strip("\n")
        for purpose, lines in zip(parts[::2], parts[1::2], strict=True)
    }


#: `click.command` with a manual page.
documented_command = functools.partial(click.command, cls=Command)


class Group(Command, click.Group):
    """A group of commands, listed by purpose.

    Args:
        purposes: dict of str to tuple of str. Names of the commands by their purpose.
        **attributes: Arguments of `Command`.
    """

    def __init__(
        self, *args: Any, purposes: Mapping[str, tuple[str, ...]], **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.purposes = purposes

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self.purposes.values() for name in names]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        assert isinstance(formatter, _Formatter)
        width = max(map(len, self.list_commands(ctx)))
        with formatter.section("COMMANDS"):
            for number, (purpose, names) in enumerate(self.purposes.items()):
                if number:
                    formatter.write_paragraph()
                formatter.write_title(purpose)
                commands = {name: self.get_command(ctx, name) for name in names}
                formatter.write_dl(
                    [
                        (f"{name:<{width}}", command.get_short_help_str(formatter.width))
                        for name, command in commands.items()
                        if command is not None
                    ]
                )

    def overview(self, ctx: click.Context) -> str:
        """Returns the short overview that is shown without a command."""
        formatter = ctx.make_formatter()
        formatter.write_text(f"{ctx.command_path} - {self.get_short_help_str()}")
        self.format_commands(ctx, formatter)
        formatter.write_paragraph()
        formatter.write_text(
            "\b\n"
            f"`{PROGRAM} COMMAND --help` explains a command, with examples.\n"
            f"`{PROGRAM} --help` shows how the commands work together."
        )
        return formatter.getvalue().rstrip("\n")
