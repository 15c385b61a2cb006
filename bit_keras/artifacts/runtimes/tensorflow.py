"""SavedModels, run by TensorFlow."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bit_keras.artifacts.runtimes.program import (
    INPUTS,
    Program,
    Signature,
    default_first,
    dimensions,
    loaded,
)
from bit_keras.artifacts.runtimes.saved_model_graph import (
    KNOWN_OPERATIONS,
    operations_of,
    require_same_graph,
)
from bit_keras.artifacts.runtimes.trust import require_known_operations
from bit_keras.checkpoints.files.tensor_bundle import checked_index
from bit_keras.errors import ExportError


class SavedModelProgram(Program):
    """A SavedModel with its signatures that take `inputs`.

    Args:
        path: The folder.
        threads: int or None. TensorFlow takes the number once per process.
        trust: bool. Run operations that this package does not export. Defaults to `False`.

    Raises:
        ExportError: It cannot be loaded, no signature takes `inputs`, or TensorFlow runs
            with another number of threads already.
    """

    def __init__(self, path: os.PathLike, threads: int | None = None, trust: bool = False) -> None:
        self.engine = f"TensorFlow {tf.__version__}"
        if threads is not None:
            _set_threads(threads)
        # The functions do not keep alive what they are attached to.
        self._loaded: Any = load_saved_model(path, trust)
        functions = getattr(self._loaded, "signatures", {})
        self._functions = {
            name: functions[name]
            for name in default_first(functions)
            if list(functions[name].structured_input_signature[1]) == [INPUTS]
        }
        if not self._functions:
            raise ExportError(f"{path} has no signature that takes only images, called {INPUTS!r}.")
        self.signatures = {name: _signature(function) for name, function in self._functions.items()}

    def _run(self, images: np.ndarray, signature: str) -> dict[str, np.ndarray]:
        outputs = self._functions[signature](**{INPUTS: tf.constant(images)})
        return {name: output.numpy() for name, output in outputs.items()}


def load_saved_model(path: str | os.PathLike, trust: bool = False) -> Any:
    """What `tf.saved_model.load` returns, after a look at what would crash it or is not known.

    Args:
        path: The folder.
        trust: bool. Load operations that this package does not export. Defaults to `False`.

    Raises:
        ExportError: It is damaged, or has to be trusted.
    """
    path = Path(path)

    def load() -> Any:
        operations = operations_of(path)
        require_same_graph(path)
        require_known_operations(path, operations, KNOWN_OPERATIONS, trust)
        checked_index(path / "variables" / "variables")
        return tf.saved_model.load(os.fspath(path))

    return loaded(path, f"TensorFlow {tf.__version__}", load)


def _signature(function: Any) -> Signature:
    spec = function.structured_input_signature[1][INPUTS]
    return Signature(
        input_shape=dimensions(spec.shape),
        input_dtype=spec.dtype.name,
        outputs=tuple(sorted(function.structured_outputs)),
    )


def _set_threads(threads: int) -> None:
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        # Operations of one network hardly run side by side; their threads would be extra.
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        raise ExportError(
            "TensorFlow takes its number of threads before its first computation, once per "
            f"process; start another process to run it on {threads}."
        ) from None
