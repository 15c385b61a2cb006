"""The tables of clients in docs/deploy.md are what docs/clients.json says; how that is written."""

import importlib.util
import json

import pytest

from tests import clients
from tests.documentation.snippets import ROOT

ROW = {"client": "B", "version": "2.10", "form": "onnx", "difference": 2e-7, "note": ""}


@pytest.fixture(scope="module")
def writer():
    """The module docs/clients.py, which no package contains."""
    specification = importlib.util.spec_from_file_location("clients", ROOT / "docs" / "clients.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def record(tmp_path, monkeypatch):
    """A function that notes results in a record of its own, and what that record is then."""
    monkeypatch.setattr(clients, "RECORD", tmp_path / "clients.json")
    clients.RECORD.write_text(json.dumps([ROW]))

    def noted(*results):
        record = clients.ClientRecord()
        for result in results:
            record(*result)
        record.write()
        return json.loads(clients.RECORD.read_text())

    return noted


def test_the_page_has_the_tables_of_the_record(writer):
    page = writer.PAGE.read_text("utf-8")
    rows = json.loads(writer.RECORD.read_text("utf-8"))
    assert writer.with_tables(page, rows) == page, "Run: python docs/clients.py"


def test_a_target_is_a_table_with_a_column_for_each_form(writer):
    rows = [
        ROW,
        ROW | {"version": "2.9", "form": "onnx --batch 1", "difference": 0.0123},
        ROW | {"client": "A", "difference": None, "note": "does not load"},
        ROW | {"form": "tflite"},
    ]
    assert writer.tables(rows).splitlines() == [
        "| `--to onnx` | version | no options | `--batch 1` |",
        "| --- | --- | --- | --- |",
        "| A | 2.10 | does not load |  |",
        "| B | 2.9 |  | 1e-02 |",
        "| B | 2.10 | 2e-07 |  |",
        "",
        "| `--to tflite` | version | no options |",
        "| --- | --- | --- |",
        "| B | 2.10 | 2e-07 |",
    ]


def test_a_run_replaces_what_it_ran_and_keeps_the_rest(record):
    rows = record(
        ("B", "2.11", "onnx", 1.26e-7),
        ("B", "2.11", "onnx", 1e-9),
        ("A", "1.0", "tflite", None, "does not load"),
    )
    assert [(row["client"], row["version"], row["difference"]) for row in rows] == [
        ("A", "1.0", None),
        ("B", "2.11", 1e-7),
    ]
    assert record(("C", "1", "onnx", 0.0)) == [
        *rows,
        rows[1]
        | {
            "client": "C",
            "version": "1",
            "difference": 0.0,
        },
    ]


@pytest.mark.parametrize(
    "result",
    [
        ("B", "2", "caffe", 0.0),
        ("B", "latest", "onnx", 0.0),
        ("B", "2", "onnx", float("nan")),
        ("B", "2", "onnx", None),
    ],
)
def test_a_result_that_the_page_cannot_show_fails_its_test(record, result):
    with pytest.raises(AssertionError):
        record(result)
