"""From a path to a program: what file format it is, and what runs it."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from bit_keras.artifacts.checksums import require_intact
from bit_keras.artifacts.runtimes.program import Program
from bit_keras.errors import ExportError
from bit_keras.extras import is_importable

#: The file formats that programs run.
Format = Literal["saved_model", "tflite", "onnx", "openvino"]

#: What runs each format, the default engine first.
ENGINES: Mapping[Format, tuple[str, ...]] = MappingProxyType(
    {
        "saved_model": ("tensorflow", "openvino", "openvino-bfloat16"),
        "tflite": ("litert", "tf.lite"),
        "onnx": ("onnxruntime", "openvino", "openvino-bfloat16"),
        "openvino": ("openvino", "openvino-bfloat16"),
    }
)

#: The formats that have checksums of this package where it wrote them.
CHECKED: tuple[Format, ...] = ("onnx", "openvino")

#: What each engine is imported as.
_PACKAGES: Mapping[str, str] = MappingProxyType(
    {
        "tensorflow": "tensorflow",
        "litert": "ai_edge_litert",
        "tf.lite": "tensorflow",
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
        "openvino-bfloat16": "openvino",
    }
)

_FORMATS = (
    "a folder with a SavedModel, a TFLite file, an ONNX file, or a folder with OpenVINO's "
    "model.xml and model.bin"
)


def open_program(
    path: str | os.PathLike,
    *,
    threads: int | None = None,
    engine: str | None = None,
    trust: bool = False,
) -> Program:
    """Opens an exported file in a program that runs it.

    Args:
        path: The folder of a SavedModel, a TFLite file, an ONNX file, or a folder of
            OpenVINO IR. Its content tells the format.
        threads: int. How many threads compute, from 1. Defaults to all cores. TensorFlow
            takes the number once per process.
        engine: str. `"tensorflow"`, `"litert"`, `"tf.lite"`, `"onnxruntime"`, `"openvino"`
            or `"openvino-bfloat16"`. Defaults to the first of these that is made for the
            file format; OpenVINO runs SavedModels and ONNX files too.
        trust: bool. Run operations that this package does not export: they may read and
            write files and run code. Defaults to `False`.

    Returns:
        Program.

    Raises:
        ExportError: No such file, none of these formats, a damaged file, one that has to be
            trusted, an engine that does not run it or is not installed, or an invalid number
            of threads.

    Example:

    ```python
    from bit_keras.exporters.hub import export_hub
    from bit_keras.artifacts.runtimes import open_program

    model = bit_keras.create_classifier("bit_tiny.cifar10")
    export_hub(model, "bit_tiny")
    program = open_program("bit_tiny")
    program.signatures["serving_default"].outputs  # ('logits',)
    program(np.zeros((3, 64, 64, 3), "float32"))["logits"].shape  # (3, 10)
    ```
    """
    path = Path(path)
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ExportError(f"`threads` must be an integer from 1, or None; got {threads!r}.")
    file_format = format_of(path)
    if file_format is None:
        what = "is not there" if not path.exists() else "is not a file that a program can run"
        raise ExportError(f"{path} {what}; expected {_FORMATS}.")
    engine = engine or ENGINES[file_format][0]
    if engine not in ENGINES[file_format]:
        raise ExportError(
            f"The engine {engine!r} does not run {path}; {' and '.join(ENGINES[file_format])} do."
        )
    if file_format in CHECKED:
        require_intact(path.parent if path.suffix == ".xml" else path)
    return _open(path, threads, engine, trust)


def _open(path: Path, threads: int | None, engine: str, trust: bool) -> Program:
    # Each engine is a package of hundreds of megabytes, imported where it is used.
    if engine == "tensorflow":
        from bit_keras.artifacts.runtimes.tensorflow import SavedModelProgram

        return SavedModelProgram(path, threads, trust)
    if engine in ("litert", "tf.lite"):
        from bit_keras.artifacts.runtimes.litert import LiteRTProgram
        from bit_keras.artifacts.runtimes.tflite_file import (
            require_builtin_operators,
            require_loadable,
        )

        require_builtin_operators(path, trust)
        if engine == "litert":
            require_loadable(path)
        return LiteRTProgram(path, threads, engine)
    if engine == "onnxruntime":
        from bit_keras.artifacts.runtimes.onnx_runtime import OnnxProgram

        return OnnxProgram(path, threads)
    from bit_keras.artifacts.runtimes.openvino import OpenVinoProgram

    return OpenVinoProgram(path, threads, engine)


def format_of(path: Path) -> Format | None:
    """What file format it is that programs run, by its content.

    Args:
        path: Path of a file or a folder.

    Returns:
        `"saved_model"`, `"tflite"`, `"onnx"`, `"openvino"`, or None where it is none
        of them.

    Example:

    ```python
    from pathlib import Path

    from bit_keras.artifacts.runtimes.opening import format_of

    format_of(Path("nothing.onnx"))  # None
    ```
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "saved_model"
        return "openvino" if (path / "model.xml").is_file() else None
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(1024)
    # The file identifier of the format (`tensorflow/lite/schema/schema.fbs`).
    if head[4:8] == b"TFL3":
        return "tflite"
    if path.suffix == ".xml" and b"<net" in head:
        return "openvino"
    return "onnx" if _is_onnx(head) else None


def _is_onnx(head: bytes) -> bool:
    """Whether bytes can be the start of an ONNX model, a protobuf message without an identifier.

    Its field 1, an integer, is the version of the format, at least 3 (`onnx/onnx.proto`).
    Every writer starts with it: protobuf sorts fields.
    """
    return len(head) > 2 and head[0] == 0x08 and 3 <= head[1] < 0x80


def is_installed(engine: str) -> bool:
    """Whether an engine can be used here.

    Args:
        engine: str. What `open_program` takes as `engine`.

    Returns:
        bool.

    Example:

    ```python
    from bit_keras.artifacts.runtimes.opening import is_installed

    is_installed("tensorflow")  # True
    ```
    """
    return is_importable(_PACKAGES[engine])


def run_once(path: str) -> None:
    """Tries an ONNX file or OpenVINO IR in a process of its own; see `trial.require_runs`."""
    from bit_keras.artifacts.runtimes.trial import run

    run(open_program(path, threads=1))
