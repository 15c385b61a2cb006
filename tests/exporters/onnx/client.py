"""Runs files in one library, for tests: python client.py LIBRARY FOLDER

Needs NumPy and the library, and takes Python 3.7 and newer: it runs in the environments that old
versions are installed in. For each NAME.npz in the folder, one array that is called like the
input, it runs the file NAME.onnx or NAME.xml and writes the outputs to NAME.LIBRARY.npz. It prints
a JSON object: the version of the library, and what went wrong by the name of the file.
"""

import json
import os
import sys

import numpy


def onnxruntime(path, images):
    """Outputs by name from ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, images)))  # noqa: B905 (Python 3.10)


def openvino(path, images):
    """Outputs by name from OpenVINO, in float32."""
    try:
        from openvino import Core
    except ImportError:  # Before 2023.1.
        from openvino.runtime import Core

    core = Core()
    if "INFERENCE_PRECISION_HINT" in core.get_property("CPU", "SUPPORTED_PROPERTIES"):
        core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(core.read_model(path), "CPU")
    outputs = compiled.create_infer_request().infer(images)
    return {output.get_any_name(): array for output, array in outputs.items()}


def cv2(path, images):
    """Outputs by name from the module `dnn` of OpenCV."""
    import cv2

    network = cv2.dnn.readNetFromONNX(path)
    for name, array in images.items():
        network.setInput(array, name)
    names = network.getUnconnectedOutLayersNames()
    return dict(zip(names, network.forward(names)))  # noqa: B905 (Python 3.10)


def main(library, folder):
    """Runs all files of a folder and prints what happened."""
    errors = {}
    for entry in sorted(os.listdir(folder)):  # noqa: PTH208
        stem, *ending = entry.split(".")
        if ending != ["npz"]:  # Neither a model nor the outputs of a library.
            continue
        stem = os.path.join(folder, stem)  # noqa: PTH118
        path = next(stem + end for end in (".onnx", ".xml") if os.path.exists(stem + end))  # noqa: PTH110
        with numpy.load(stem + ".npz") as arrays:
            images = dict(arrays)
        try:
            outputs = globals()[library](path, images)
        except Exception as error:
            errors[os.path.basename(stem)] = str(error) or repr(error)  # noqa: PTH119
        else:
            numpy.savez("{}.{}.npz".format(stem, library), **outputs)  # noqa: UP032
    print(json.dumps({"version": version_of(library), "errors": errors}))


def version_of(library):
    """The version of a library; OpenVINO has no `__version__` before 2023.1."""
    module = __import__(library)
    if not hasattr(module, "__version__"):
        from openvino.runtime import get_version

        return get_version()
    return module.__version__


if __name__ == "__main__":
    main(*sys.argv[1:])
