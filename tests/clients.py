"""The record of which programs read which files: docs/clients.json, and the page made of it."""

import json
import math
import os
import re
from pathlib import Path

import pytest

from tests.cifar10 import ROOT

RECORD = ROOT / "docs" / "clients.json"

#: `docs/clients.py` has a table for each of these.
TARGETS = ("tflite", "onnx", "openvino", "hub", "serving", "keras")


class ClientRecord:
    """Notes that a client read a form of export, and how well.

    Call it last in a test, when all assertions have passed:

        def test_opencv_reads_it(client_record, path):
            ...
            client_record("OpenCV", cv2.__version__, "onnx --batch 1", difference)

    Nothing is written unless the tests run with `--record-clients` (`make clients`).
    """

    def __init__(self):
        self.rows = {}

    def __call__(self, client, version, form, difference=None, note=""):
        """Notes one result; of several of one version and form, the largest difference stays.

        Args:
            client: str. The name of the program, the same for all of its versions.
            version: str. That of the program that ran.
            form: str. The target and the options of `bit-keras export` that matter to the client,
                for example `"tflite --quantize int8"`.
            difference: float or None. Largest absolute difference of an output to what Keras
                returns in float32 for the images that the artifact stores (`read_reference`), in
                units of the largest value (`relative_difference`). None where nothing was computed.
            note: str. What the page adds, for example `"does not load"`. Without a difference it is
                needed.
        """
        assert form.split()[0] in TARGETS, form
        assert re.match(r"\d", version), version
        assert note if difference is None else math.isfinite(difference)
        row = {"client": client, "version": version, "form": form}
        known = self.rows.get((client, version, form), {"difference": None})["difference"]
        if known is None or known <= difference:
            self.rows[client, version, form] = {**row, "difference": difference, "note": note}

    def write(self):
        """Replaces what the record has of the clients and forms that ran; keeps the others."""
        ran = {_key(row) for row in self.rows.values()}
        new = [row | {"difference": _rounded(row["difference"])} for row in self.rows.values()]
        rows = [row for row in json.loads(RECORD.read_text("utf-8")) if _key(row) not in ran]
        text = ",\n".join(json.dumps(row) for row in sorted([*rows, *new], key=_order))
        RECORD.write_text(f"[\n{text}\n]\n", "utf-8")


def _rounded(difference):
    """One digit: the others differ between processors."""
    return None if difference is None else float(f"{difference:.0e}")


def _key(row):
    return row["client"], row["form"]


def _order(row):
    numbers = [int(number) for number in re.findall(r"\d+", row["version"])]
    target = TARGETS.index(row["form"].split()[0])
    return target, row["client"].lower(), numbers, row["form"]


def environments(package):
    """The interpreters of the environments that have a package, below `BIT_KERAS_CLIENTS`.

    The test is skipped where there are none.
    """
    folder = os.environ.get("BIT_KERAS_CLIENTS")
    if not folder:
        pytest.skip("BIT_KERAS_CLIENTS names no folder of environments with other programs.")
    packages = Path(folder).glob(f"*/lib/python*/site-packages/{package}")
    found = sorted({path.parents[3] / "bin" / "python" for path in packages})
    if not found:
        pytest.skip(f"No environment in {folder} has {package}.")
    return found
