"""The forms of ONNX and OpenVINO files that other programs are given, and what Keras returns."""

import shlex

import numpy as np

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import reference_difference
from bit_keras.exporters import export
from bit_keras.exporters.onnx.graph import INPUTS
from bit_keras.preprocessing.decoding import scores_of

#: Of fixed shape, as programs need it that read no open one.
FIXED = "onnx --layout nchw --batch 1 --size 64"

#: What `bit-keras export --to` takes; each of these is written of the small network.
FORMS = (
    "onnx",
    "onnx --class-maps",
    "onnx --opset 11",
    "onnx --opset 23",
    "onnx --quantize float16",
    "onnx --quantize int8",
    FIXED,
    f"{FIXED} --quantize float16",
    f"{FIXED} --quantize int8",
    "openvino",
    "openvino --class-maps",
    "openvino --quantize float16",
)

#: Largest difference to Keras by the quantisation: the contract of float32, and what the trained
#: network loses on its stored images, twice.
TOLERANCES = {"none": 1e-5, "float16": 2e-3, "int8": 1e-1}


def options_of(form):
    """The options of a form as the exporters take them."""
    _, *words = shlex.split(form)
    options = {}
    while words:
        name = words.pop(0).removeprefix("--").replace("-", "_")
        value = True if name == "class_maps" else words.pop(0)
        options[name] = int(value) if name in ("batch", "opset", "size") else value
    return options


def write(model, form, folder, calibration):
    """Writes a form below a folder; returns the file that programs are given."""
    options = options_of(form)
    if form.startswith("openvino"):
        export(model, folder / "ir", "openvino", **options)
        return folder / "ir" / "model.xml"
    if options.get("quantize") == "int8":
        options["calibration"] = calibration
    export(model, folder / "model.onnx", "onnx", **options)
    return folder / "model.onnx"


def artifact_of(path):
    """What the package calls the artifact of a file."""
    return path.parent if path.suffix == ".xml" else path


def inputs_of(path):
    """The stored images in the layout and the number that a file takes, by the input's name."""
    layout = Artifact(artifact_of(path)).metadata.layout
    images = Artifact(artifact_of(path)).read_reference()["inputs"]
    if layout == "nchw":  # The form that takes one image.
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2)[:1])
    return {INPUTS[layout]: images}


def difference(path, outputs):
    """The largest difference of any output to what Keras returned."""
    reference = Artifact(artifact_of(path)).read_reference()
    count = len(outputs["logits"])
    expected = {name: array[:count] for name, array in reference.items()}
    expected["probabilities"] = scores_of(expected["logits"], "softmax")
    assert {"logits", "probabilities", "features"} <= set(outputs) <= set(expected)
    return max(reference_difference(name, outputs[name], expected) for name in outputs)


def require_close(form, value, library=""):
    """Requires that an output differs from Keras's by no more than the form brings about."""
    # OpenCV computes convolutions by Winograd's method, which costs a digit.
    allowed = 1e-4 if library == "cv2" else 0.0
    allowed = max(allowed, TOLERANCES[options_of(form).get("quantize", "none")])
    assert value < allowed, (form, library, value)
