"""Writes the table of clients in docs/deploy.md from docs/clients.json: python docs/clients.py

The tests that run the clients write the record (`make clients`, `tests/clients.py`).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "docs" / "clients.json"
PAGE = ROOT / "docs" / "deploy.md"

#: The tables are between these lines.
MARKERS = ("<!-- clients -->", "<!-- /clients -->")

#: The title of the column of exports without options.
_NO_OPTIONS = "no options"

Row = Mapping[str, str | float | None]


def tables(rows: Sequence[Row]) -> str:
    """Returns one table for each target of `bit-keras export`: its clients and its options."""
    targets = dict.fromkeys(_target(row) for row in rows)
    return "\n".join(
        _table(target, [r for r in rows if _target(r) == target]) for target in targets
    )


def _target(row: Row) -> str:
    return str(row["form"]).partition(" ")[0]


def _options(row: Row) -> str:
    return str(row["form"]).partition(" ")[2]


def _table(target: str, rows: Sequence[Row]) -> str:
    # The plain form is the first column.
    options = sorted({_options(row) for row in rows}, key=lambda text: (text != "", text))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        line = cells.setdefault((str(row["client"]), str(row["version"])), {})
        line[_options(row)] = _cell(row)
    titles = [f"`--to {target}`", "version", *(f"`{o}`" if o else _NO_OPTIONS for o in options)]
    lines = [
        [client, version, *(line.get(option, "") for option in options)]
        for (client, version), line in sorted(cells.items(), key=lambda item: _order(*item[0]))
    ]
    return "".join(_line(cells) for cells in (titles, ["---"] * len(titles), *lines))


def _cell(row: Row) -> str:
    difference = "" if row["difference"] is None else f"{row['difference']:.0e}"
    return " ".join(filter(None, (difference, str(row["note"]))))


def _order(client: str, version: str) -> tuple[str, list[int]]:
    return client.lower(), [int(number) for number in re.findall(r"\d+", version)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """Returns the text of docs/deploy.md with the tables of a record."""
    before, start, rest = page.partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not start or not end:
        raise SystemExit(f"{PAGE.name} needs the lines {' and '.join(MARKERS)} around its tables.")
    return f"{before}{start}\n{tables(rows)}{end}{after}"


def main() -> None:
    """Writes the tables of docs/deploy.md."""
    rows = json.loads(RECORD.read_text("utf-8"))
    PAGE.write_text(with_tables(PAGE.read_text("utf-8"), rows), "utf-8")


if __name__ == "__main__":
    main()
