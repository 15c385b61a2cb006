"""OpenVINO IR, ONNX files and SavedModels, run by OpenVINO."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from bit_keras.artifacts.runtimes.onnx_runtime import require_contained
from bit_keras.artifacts.runtimes.program import GraphInput, Program, loaded, signatures_of
from bit_keras.errors import ExportError
from bit_keras.extras import require_extra

#: The file of a folder of OpenVINO IR that is opened; the weights are in `model.bin`.
MODEL = "model.xml"

_PRECISIONS = {"openvino": "f32", "openvino-bfloat16": "bf16"}

_DTYPES = {"f32": "float32", "u8": "uint8"}


class OpenVinoProgram(Program):
    """A model as `serving_default`, and as `features` where it has an output of that name.

    Args:
        path: A folder of OpenVINO IR or its `.xml` file, an ONNX file, or the folder of a
            SavedModel, of which OpenVINO sees `serving_default`.
        threads: int or None. Defaults to OpenVINO's own choice, all cores.
        engine: `"openvino"`, which computes in float32 whatever the processor offers, or
            `"openvino-bfloat16"`.

    Raises:
        ExportError: It is damaged, takes something else than one batch of images, or the
            package is missing.
    """

    def __init__(
        self, path: os.PathLike, threads: int | None = None, engine: str = "openvino"
    ) -> None:
        require_extra("openvino", "openvino", purpose="An OpenVINO model", error=ExportError)
        import openvino

        version = openvino.__version__.partition("-")[0]
        precision = _PRECISIONS[engine]
        self.engine = f"OpenVINO {version}" + (", bfloat16" if precision == "bf16" else "")
        self._options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._core = openvino.Core()
        file = _file(Path(path))
        if file.suffix != ".xml" and file.is_file():
            require_contained(file)
        elif file.suffix == ".xml" and not file.with_suffix(".bin").is_file():
            raise ExportError(f"{file} has no weights: {file.stem}.bin is not an ordinary file.")
        self._network = loaded(path, self.engine, lambda: self._core.read_model(file))
        inputs = [_input(port) for port in self._network.inputs]
        outputs = tuple(_name(port) for port in self._network.outputs)
        self.signatures = signatures_of(path, inputs, outputs)
        self._compiled: tuple[tuple[int, ...], Any] = ((), None)

    def _run(self, images: np.ndarray, signature: str) -> dict[str, np.ndarray]:
        request = self._request(images.shape)
        results = request.infer([images], share_inputs=True)
        outputs = {_name(output): output for output in request.model_outputs}
        # A copy: the outputs of the next images are written to the same memory.
        return {
            name: np.array(results[outputs[name]], np.float32)
            for name in self.signatures[signature].outputs
        }

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The compiled model for images of a shape; the last one is kept.

        A graph that leaves the batch open runs an R50x1 at 3/4 of the speed in float32, and
        at 3/5 in bfloat16 (OpenVINO 2026.4).
        """
        known, request = self._compiled
        if known != shape:
            self._network.reshape(list(shape))
            request = self._core.compile_model(self._network, "CPU", self._options)
            request = request.create_infer_request()
            self._compiled = (shape, request)
        return request


def _file(path: Path) -> Path:
    return path / MODEL if (path / MODEL).is_file() else path


def _input(port: Any) -> GraphInput:
    dtype, shape = port.element_type.get_type_name(), port.partial_shape
    sides = list(shape) if shape.rank.is_static else []
    return GraphInput(
        _name(port),
        _DTYPES.get(dtype, dtype),
        tuple(side.get_length() if side.is_static else None for side in sides),
    )


def _name(port: Any) -> str:
    """The name of an input or output; of several, the one without the number of a tensor."""
    return min(port.get_names(), key=lambda name: (":" in name, len(name), name))
