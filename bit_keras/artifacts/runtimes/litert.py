"""TFLite files, run by LiteRT or by its older home in TensorFlow."""

import contextlib
import importlib.metadata
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bit_keras.artifacts.runtimes.program import (
    DEFAULT_SIGNATURE,
    FEATURES,
    IMAGE_RANK,
    Intermediate,
    Program,
    Signature,
    default_first,
    dimensions,
    loaded,
)
from bit_keras.artifacts.runtimes.tflite_file import require_loadable
from bit_keras.artifacts.runtimes.trial import run
from bit_keras.errors import ExportError
from bit_keras.extras import require_extra
from bit_keras.processes import available_cores
from bit_keras.progress import without_native_notes

#: The file identifier of the format, at bytes 4 to 8 (`tensorflow/lite/schema/schema.fbs`).
IDENTIFIER = b"TFL3"

#: Largest difference between an image in a batch and the same image by itself, in units of the
#: largest value. The files of this package give the same bits; one step of 8 bits is more.
_ROUNDING = 1e-4


class LiteRTProgram(Program):
    """A TFLite file with its signatures; one without any runs as `serving_default`.

    Args:
        path: The file.
        threads: int or None. Defaults to all cores: the interpreter's own default is one.
        engine: `"litert"` (`ai_edge_litert`) or `"tf.lite"` (TensorFlow).

    Raises:
        ExportError: The file is damaged, no signature takes one batch of images, or the
            package is missing.
    """

    def __init__(
        self, path: os.PathLike, threads: int | None = None, engine: str = "litert"
    ) -> None:
        self.engine, module = _engine(engine)

        def load() -> Any:
            if engine == "tf.lite":
                _require_whole(path)
            with warnings.catch_warnings():
                # TensorFlow's interpreter says that LiteRT is its future.
                warnings.simplefilter("ignore")
                return module.Interpreter(
                    model_path=os.fspath(path), num_threads=threads or available_cores()
                )

        self._interpreter: Any = loaded(path, self.engine, load)
        # Makes the delegate. A model for images of any size may not allow the default of one.
        with without_native_notes(), contextlib.suppress(RuntimeError):
            self._interpreter.allocate_tensors()
        self._runners = loaded(path, self.engine, lambda: _runners(self._interpreter))
        self.signatures = {name: runner.signature for name, runner in self._runners.items()}
        if not self.signatures:
            raise ExportError(f"{path} has no signature that takes one batch of images.")
        #: Whether a signature that is made for another batch takes one, once that is tried.
        self._resizable: dict[tuple[str, tuple[int, ...]], bool] = {}

    def _piece(self, images: np.ndarray, signature: str) -> int | None:
        batch = self.signatures[signature].input_shape[0]
        if batch in (None, len(images)):
            return None
        trial = signature, images.shape
        if trial not in self._resizable:
            self._resizable[trial] = self._can_be_resized(images, signature)
        return None if self._resizable[trial] else batch

    def _can_be_resized(self, images: np.ndarray, signature: str) -> bool:
        """Whether a batch of other images gives the same as its last image by itself.

        A graph that was converted for one image may take others without an error and
        broadcast values of one image along the width of another, where the batch is as
        large as the width.
        """
        batch = _noise(images.shape, images.dtype)
        single = np.repeat(batch[-1:], self.signatures[signature].input_shape[0] or 1, axis=0)
        try:
            outputs, expected = self._run(batch, signature), self._run(single, signature)
        # What an operation with a shape of its own raises when it is prepared for another.
        except (RuntimeError, ValueError):
            return False
        return all(
            len(outputs[name]) == len(batch) and _are_alike(outputs[name][-1], expected[name][-1])
            for name in outputs
        )

    def _run(self, images: np.ndarray, signature: str) -> dict[str, np.ndarray]:
        return self._runners[signature].run(images)


def _noise(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Images that differ from each other in their contrast too."""
    noise = np.random.default_rng(0).random(shape, np.float32)
    noise *= np.linspace(0.2, 1, shape[0], dtype=np.float32)[:, None, None, None]
    return (255 * noise if np.issubdtype(dtype, np.integer) else noise).astype(dtype)


def _are_alike(output: np.ndarray, single: np.ndarray) -> bool:
    """Whether they differ by rounding at most."""
    return bool(np.abs(output - single).max() <= _ROUNDING * np.abs(single).max())


class _Runner(NamedTuple):
    """A signature of an interpreter, or all of a model that has none."""

    signature: Signature
    run: Callable[[np.ndarray], dict[str, np.ndarray]]


def _runner(
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Mapping[str, Any]],
    call: Callable[[np.ndarray], Mapping[str, np.ndarray]],
) -> _Runner:
    """A runner from the interpreter's descriptions of the images and of the outputs by name."""

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        arrays = call(images)
        return {name: dequantized(arrays[name], details) for name, details in outputs.items()}

    shape, dtype = dimensions(inputs["shape_signature"].tolist()), np.dtype(inputs["dtype"]).name
    return _Runner(Signature(shape, dtype, tuple(outputs)), run)


def _runners(interpreter: Any) -> dict[str, _Runner]:
    """The ways to give one batch of images to a model."""
    names = default_first(interpreter.get_signature_list())
    runners = {name: _signed(interpreter, name) for name in names}
    runners = runners or {DEFAULT_SIGNATURE: _unsigned(interpreter)}
    return {name: runner for name, runner in runners.items() if runner is not None}


def _signed(interpreter: Any, name: str) -> _Runner | None:
    runner = interpreter.get_signature_runner(name)
    inputs = runner.get_input_details()
    if not _are_images(list(inputs.values())):
        return None
    ((key, details),) = inputs.items()
    outputs = runner.get_output_details()
    if name == FEATURES and FEATURES in outputs:
        # Every signature of a file names all outputs; `features` returns only these.
        outputs = {FEATURES: outputs[FEATURES]}
    return _runner(details, outputs, lambda images: runner(**{key: images}))


def _unsigned(interpreter: Any) -> _Runner | None:
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if not _are_images(inputs):
        return None
    index = inputs[0]["index"]
    # The converter names tensors after the operation and the number of its output.
    named = {details["name"].removesuffix(":0"): details for details in outputs}

    def call(images: np.ndarray) -> dict[str, np.ndarray]:
        interpreter.resize_tensor_input(index, images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, images)
        interpreter.invoke()
        return {name: interpreter.get_tensor(details["index"]) for name, details in named.items()}

    return _runner(inputs[0], named, call)


def _are_images(inputs: Sequence[Mapping[str, Any]]) -> bool:
    return len(inputs) == 1 and len(inputs[0]["shape_signature"]) == IMAGE_RANK


def dequantized(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """The numbers that the integers of a tensor stand for, in float32."""
    scale, zero_point = details["quantization"]
    if scale == 0.0:
        return array
    return ((array.astype(np.float32) - zero_point) * scale).astype(np.float32)


def run_once(path: str) -> None:
    """Tries a file in a process of its own, for `require_loadable`."""
    run(LiteRTProgram(Path(path)))


def intermediate_tensors(path: os.PathLike, images: np.ndarray) -> Iterator[Intermediate]:
    """The result of every operation of `serving_default`, in the order of execution.

    The kernels are those of the interpreter itself: a delegate such as XNNPACK keeps what
    it computes between its own operations to itself.

    Args:
        path: A TFLite file.
        images: What its signature takes, as many as it takes at once.

    Yields:
        Intermediate. Its name is that of an output, or what the converter made of the
        names of the layers.

    Raises:
        ExportError: The file is damaged, or the package is missing.
    """
    require_loadable(path)
    engine, module = _engine("litert")
    with warnings.catch_warnings():
        # That it takes memory to keep all tensors is known here.
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
        interpreter = loaded(
            path,
            engine,
            lambda: module.Interpreter(
                model_path=os.fspath(path),
                num_threads=available_cores(),
                experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
                experimental_preserve_all_tensors=True,
            ),
        )
    runners = _runners(interpreter)
    if DEFAULT_SIGNATURE not in runners:
        raise ExportError(f"{path} has no signature {DEFAULT_SIGNATURE} that takes images.")
    runners[DEFAULT_SIGNATURE].run(images)
    from ai_edge_litert import schema_py_generated as schema

    model = _tables(path, schema)
    signatures = model.signatureDefs or []
    key = DEFAULT_SIGNATURE.encode()
    index = next((one.subgraphIndex for one in signatures if one.signatureKey == key), 0)
    # Signatures may share a subgraph, and each names some of its outputs.
    outputs = {
        output.tensorIndex: output.name.decode()
        for one in signatures
        if one.subgraphIndex == index
        for output in one.outputs
    }
    details = {entry["index"]: entry for entry in interpreter.get_tensor_details(index)}
    for tensor in itertools.chain(*(each.outputs for each in model.subgraphs[index].operators)):
        name = outputs.get(tensor, details[tensor]["name"])
        values = dequantized(interpreter.get_tensor(tensor, index), details[tensor])
        yield Intermediate(name, details[tensor]["dtype"].__name__, values)


def _engine(name: str) -> tuple[str, Any]:
    """An engine with its version, and the module with its interpreter."""
    if name == "tf.lite":
        import tensorflow as tf
        from tensorflow.lite.python import interpreter

        return f"TensorFlow Lite {tf.__version__}", interpreter
    require_extra("tflite", "ai_edge_litert", purpose="A TFLite file", error=ExportError)
    from ai_edge_litert import interpreter

    return f"LiteRT {importlib.metadata.version('ai-edge-litert')}", interpreter


def _require_whole(path: os.PathLike) -> None:
    """Reads every table of a file, which raises where one points beyond its end.

    LiteRT does so itself; the interpreter of TensorFlow 2.21 reads what is not there.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    _tables(path, schema)


def _tables(path: os.PathLike, schema: Any) -> Any:
    """All tables of a file, as the objects of its schema."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(Path(path).read_bytes()))
