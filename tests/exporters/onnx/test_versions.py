"""The lowest versions of ONNX Runtime, OpenVINO and OpenCV that read each form.

They are in environments of their own, below a folder that `BIT_KERAS_CLIENTS` names. Each takes
part with what it has, for example

    python3.9 -m venv clients/onnxruntime-1.12
    clients/onnxruntime-1.12/bin/pip install "numpy<2" onnxruntime==1.12.0
    python3.10 -m venv clients/openvino-2023.1
    clients/openvino-2023.1/bin/pip install "numpy<2" openvino==2023.1.0
    python3.10 -m venv clients/opencv-4.7
    clients/opencv-4.7/bin/pip install "numpy<2" opencv-python-headless==4.7.0.72
    make clients BIT_KERAS_CLIENTS=clients TESTS=tests/exporters/onnx
"""

import json
import re
import subprocess

import numpy as np
import pytest

from bit_keras.models import create_classifier
from bit_keras.preprocessing import eval_transform
from tests.cifar10 import SAMPLES
from tests.clients import environments
from tests.exporters.onnx import client, forms

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

pytestmark = pytest.mark.full

#: From these versions on a form is read; some versions before them read it too. Where a library
#: is not named, it reads no such form in any version.
LOWEST = {
    "onnx": {"onnxruntime": (1, 12), "openvino": (2022, 1), "cv2": (5,)},
    "onnx --class-maps": {"onnxruntime": (1, 12), "openvino": (2022, 1), "cv2": (5,)},
    "onnx --opset 11": {"onnxruntime": (1, 2), "openvino": (2022, 1), "cv2": (5,)},
    "onnx --opset 23": {"onnxruntime": (1, 23), "openvino": (2022, 1), "cv2": (5,)},
    "onnx --quantize float16": {"onnxruntime": (1, 12), "openvino": (2022, 1), "cv2": (5,)},
    "onnx --quantize int8": {"onnxruntime": (1, 12), "openvino": (2022, 1), "cv2": (5,)},
    forms.FIXED: {"onnxruntime": (1, 12), "openvino": (2022, 1), "cv2": (4, 7)},
    f"{forms.FIXED} --quantize float16": {
        "onnxruntime": (1, 12),
        "openvino": (2022, 1),
        "cv2": (4, 7),
    },
    f"{forms.FIXED} --quantize int8": {
        "onnxruntime": (1, 12),
        "openvino": (2023, 1),  # 2023.0 ends with "could not create a primitive".
        "cv2": (4, 7),
    },
    "openvino": {"openvino": (2023, 1)},
    "openvino --class-maps": {"openvino": (2023, 1)},
    "openvino --quantize float16": {"openvino": (2023, 1)},
}

NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "cv2": "OpenCV"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Every form in one folder, with its inputs next to it; and its artifact elsewhere."""
    model = create_classifier("bit_tiny.cifar10")
    transform = eval_transform("bit_tiny.cifar10")
    samples = [transform(path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))]
    folder, written = tmp_path_factory.mktemp("forms"), {}
    for number, form in enumerate(forms.FORMS):
        path = forms.write(model, form, tmp_path_factory.mktemp("form"), samples)
        written[form] = path, folder / f"form_{number}"
        for file in path.parent.glob("model.*"):
            (folder / f"form_{number}{file.suffix}").write_bytes(file.read_bytes())
        np.savez(folder / f"form_{number}.npz", **forms.inputs_of(path))
    return folder, written


@pytest.mark.parametrize("library", NAMES)
def test_each_form_is_read_from_its_lowest_version_on(files, library, client_record):
    folder, written = files
    for python in environments(library):
        process = subprocess.run(
            [str(python), client.__file__, library, str(folder)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert process.returncode == 0, (python, process.stderr[-1000:])
        document = json.loads(process.stdout.splitlines()[-1])
        version = re.match(r"[\d.]*\d", document["version"]).group()
        for form, (path, copy) in written.items():
            if library not in LOWEST[form]:
                continue
            result, name = copy.with_name(f"{copy.name}.{library}.npz"), f"{NAMES[library]}, older"
            if copy.name in document["errors"]:
                assert numbers(version) < LOWEST[form][library], (form, document)
                client_record(name, version, form, note="does not load")
                continue
            with np.load(result) as outputs:
                found = forms.difference(path, dict(outputs))
            forms.require_close(form, found, library)
            client_record(name, version, form, found)


def numbers(version):
    return tuple(int(part) for part in version.split("."))
