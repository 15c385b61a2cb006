"""LiteRT.js in a browser returns what the Interpreter returns, in every form.

It needs Chromium and the npm package: `npm install --no-save @litertjs/core` in the checkout.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes.litert import dequantized
from tests.browser import browser, node_module, report_of
from tests.exporters.tflite.models import FORMS, SIZE
from tests.exporters.tflite.test_clients import difference_to_keras, interpreted

pytestmark = pytest.mark.full

OF_ANY_SIZE = "tflite --size dynamic"

PAGE = Path(__file__).with_name("litert.html")


@pytest.fixture(scope="module")
def core():
    browser()
    return node_module("@litertjs/core")


@pytest.fixture(scope="module")
def report(core, file_of_form, tmp_path_factory):
    """The outputs of every form, by its number, signature, image and name."""
    files = {"/core": core, "/wasm-utils": node_module("@litertjs/wasm-utils")}
    jobs = []
    for number, form in enumerate(FORMS):
        path = file_of_form(form)
        inputs = Artifact(path).read_reference()["inputs"]
        files |= {f"/{number}.tflite": path, f"/{number}.bin": inputs.tobytes()}
        job = {"model": f"/{number}.tflite", "inputs": f"/{number}.bin"}
        jobs.append({**job, "dtype": inputs.dtype.name, "shape": [1, SIZE, SIZE, 3]})
    files["/jobs.json"] = json.dumps(jobs).encode()
    report = report_of(PAGE.read_text(), files, tmp_path_factory.mktemp("browser"))
    assert "error" not in report, report["error"]
    return report


def version_of(core):
    return json.loads((core / "package.json").read_text())["version"]


@pytest.mark.parametrize("form", [form for form in FORMS if form != OF_ANY_SIZE])
def test_litert_js_returns_what_the_interpreter_returns(
    form, core, report, file_of_form, client_record
):
    path = file_of_form(form)
    outputs = report[f"/{list(FORMS).index(form)}.tflite"]
    assert outputs.keys() == {"serving_default", "features"}, outputs
    for signature in outputs.values():
        logits = []
        for image, found in zip(Artifact(path).read_reference()["inputs"], signature, strict=True):
            expected, details = interpreted(path, image[None])
            assert found.keys() == expected.keys()
            found = {name: np.reshape(found[name], expected[name].shape) for name in found}
            for name, values in expected.items():
                difference = relative_difference(found[name], values.astype("float32"))
                # Kernels of WebAssembly add in another order, which may round to another step.
                assert difference < (0.03 if "--quantize" in form else 1e-5), name
            logits.append(dequantized(found["logits"], details["logits"]))
        difference = difference_to_keras(path, np.concatenate(logits))
        client_record("LiteRT.js", version_of(core), form, difference)


def test_litert_js_does_not_run_open_shapes(core, report, client_record):
    """It has no function that resizes an input; docs/deploy.md says so."""
    outputs = report[f"/{list(FORMS).index(OF_ANY_SIZE)}.tflite"]
    assert "does not match expected ranked tensor type Float32[-1, -1, -1, 3]" in outputs["error"]
    client_record("LiteRT.js", version_of(core), OF_ANY_SIZE, note="cannot resize")
