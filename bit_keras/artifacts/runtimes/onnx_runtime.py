"""ONNX files, run by ONNX Runtime."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bit_keras.artifacts.runtimes.program import (
    GraphInput,
    Intermediate,
    Program,
    channels_last,
    dimensions,
    in_layout,
    loaded,
    signatures_of,
)
from bit_keras.errors import ExportError
from bit_keras.extras import require_extra
from bit_keras.processes import available_cores

_DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}

#: Only errors: warnings are about what the optimiser removes.
_LOG_SEVERITY = 3


class OnnxProgram(Program):
    """An ONNX file as `serving_default`, and as `features` where it has an output of that name.

    Args:
        path: The file.
        threads: int or None. Defaults to all cores.

    Raises:
        ExportError: The file is damaged, takes something else than one batch of images, or
            the package is missing.
    """

    def __init__(self, path: os.PathLike, threads: int | None = None) -> None:
        runtime = _runtime()
        self.engine = f"ONNX Runtime {runtime.__version__}"
        require_contained(path)
        self._session = loaded(path, self.engine, lambda: _session(runtime, path, threads))
        inputs = [
            GraphInput(entry.name, _DTYPES.get(entry.type, entry.type), tuple(entry.shape))
            for entry in self._session.get_inputs()
        ]
        outputs = tuple(output.name for output in self._session.get_outputs())
        self.signatures = signatures_of(path, inputs, outputs)
        self._input = inputs[0].name

    def _run(self, images: np.ndarray, signature: str) -> dict[str, np.ndarray]:
        outputs = list(self.signatures[signature].outputs)
        results = self._session.run(outputs, {self._input: images})
        return {
            name: result.astype(np.float32, copy=False)
            for name, result in zip(outputs, results, strict=True)
        }


def require_contained(path: os.PathLike) -> None:
    """Raises where a graph is not valid, or has weights that are not in ordinary files next to it.

    Raises:
        ExportError: It says what is wrong.
    """
    require_extra("onnx", "onnx", purpose="An ONNX file", error=ExportError)
    import onnx

    loaded(path, f"onnx {onnx.__version__}", lambda: onnx.checker.check_model(os.fspath(path)))


def intermediate_tensors(path: os.PathLike, images: np.ndarray) -> Iterator[Intermediate]:
    """The result of every operation, in the order of execution.

    Args:
        path: An ONNX file.
        images: What it takes, with channels last, in any number.

    Yields:
        Intermediate, for each operation whose result is of floats.

    Raises:
        ExportError: The file is damaged, or a package is missing.
    """
    require_extra("onnx", "onnx", purpose="An ONNX file", error=ExportError)
    import onnx

    runtime = _runtime()
    engine = f"ONNX Runtime {runtime.__version__}"
    model = loaded(path, engine, lambda: onnx.load(path, load_external_data=False))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    present = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    session = loaded(path, engine, lambda: _plain_session(runtime, path, model))
    (images_input,) = session.get_inputs()
    _, layout = channels_last(dimensions(images_input.shape))
    inputs = {images_input.name: np.ascontiguousarray(in_layout(images, layout))}
    results = dict(zip(names, session.run(names, inputs), strict=True))
    for node in model.graph.node:
        # What is quantised comes in pairs of operations, of which the second has the numbers.
        source = node.input[0] if node.op_type == "DequantizeLinear" else node.output[0]
        if source in results and np.issubdtype(results[node.output[0]].dtype, np.floating):
            values = results[node.output[0]].astype(np.float32)
            yield Intermediate(node.output[0], results[source].dtype.name, values)


def _session(runtime: Any, path: os.PathLike, threads: int | None) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_SEVERITY
    options.intra_op_num_threads = threads or available_cores()
    return runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def _plain_session(runtime: Any, path: os.PathLike, model: Any) -> Any:
    """A session that runs every operation by itself, as it is written."""
    options = runtime.SessionOptions()
    options.log_severity_level = _LOG_SEVERITY
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Where weights are that are too large for the file: what is in memory has no folder.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(Path(path).absolute().parent)
    )
    return runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _runtime() -> Any:
    require_extra("onnx", "onnxruntime", purpose="An ONNX file", error=ExportError)
    import onnxruntime

    return onnxruntime
