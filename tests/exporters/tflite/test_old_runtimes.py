"""Every form in old interpreters: the lowest versions that docs/deploy.md states.

The variable `TFLITE_RUNTIMES` names, with colons between them, the Pythons of environments with an
interpreter each, for example of `python3.9 -m venv old && old/bin/pip install
tflite-runtime==2.7.0 'numpy<2'`: `TFLITE_RUNTIMES=old/bin/python make test-full TESTS=...`.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from tests.exporters.tflite.models import FORMS
from tests.exporters.tflite.test_clients import difference_to_keras

pytestmark = pytest.mark.full

PYTHONS = list(filter(None, os.environ.get("TFLITE_RUNTIMES", "").split(":")))

SCRIPT = Path(__file__).with_name("old_runtime.py")

#: Clients of docs/clients.json, by the package.
CLIENTS = {
    "tflite-runtime": "tflite-runtime",
    "ai-edge-litert": "LiteRT Interpreter, older",
    "tensorflow": "tf.lite.Interpreter, older",
}

#: The lowest version of TensorFlow and of tflite-runtime that runs a form, of those tried; every
#: version of ai-edge-litert does. tflite-runtime 2.8 and 2.9 load int8-pure and compute it wrongly.
LOWEST = dict.fromkeys(FORMS, (2, 3)) | {
    "tflite --quantize dynamic": (2, 4),
    "tflite --quantize int8-pure": (2, 10),
}


@pytest.mark.parametrize("python", PYTHONS or [None])
def test_an_old_interpreter_runs_what_the_page_says(python, file_of_form, tmp_path, client_record):
    if python is None:
        pytest.skip("TFLITE_RUNTIMES names no environment with an old interpreter.")
    paths = [file_of_form(form) for form in FORMS]
    jobs = {
        f"inputs_{n}": Artifact(path).read_reference()["inputs"] for n, path in enumerate(paths)
    }
    np.savez(tmp_path / "jobs.npz", paths=[str(path) for path in paths], **jobs)
    command = [python, SCRIPT, tmp_path / "jobs.npz", tmp_path / "outputs.npz"]
    # Without the path of the tests, which other Pythons cannot import.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, timeout=600, env=environment)
    outputs = dict(np.load(tmp_path / "outputs.npz"))
    client, version = str(outputs["client"]), str(outputs["version"])
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    for number, (form, path) in enumerate(zip(FORMS, paths, strict=True)):
        note, difference = "does not load", None
        if f"logits_{number}" in outputs:
            difference = difference_to_keras(path, outputs[f"logits_{number}"])
            note = "" if difference < (0.3 if "--quantize" in form else 1e-5) else "wrong"
        if client == "ai-edge-litert" or numbers >= LOWEST[form]:
            assert not note, f"{form}: {note}, {difference}"
        client_record(CLIENTS[client], version, form, difference, note)
