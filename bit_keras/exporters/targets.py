"""The targets of exports: what each writes, which options it takes, and which go together.

`bit_keras.export`, the command line, the recipes of collections and the documentation read
this table. Nothing here imports Keras.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from bit_keras.artifacts.metadata import CALIBRATED, VARIANTS, Variant
from bit_keras.artifacts.runtimes.program import LAYOUTS
from bit_keras.errors import ExportError

PRECISIONS = ("float32", "bfloat16")

#: What the signature `serving_default` of a SavedModel for servers can take.
DEFAULT_SIGNATURES = ("inputs", "image_bytes")

#: The layout of a folder in Triton's model repository, next to those of images.
TRITON = "triton"

#: The input ranges an artifact can take: BiT's own, and that of TF Hub's common
#: image signature (`tensorflow/hub`, `docs/common_saved_model_apis/images.md`).
INPUT_RANGES: tuple[tuple[float, float], ...] = ((-1.0, 1.0), (0.0, 1.0))

#: The version of the operators in an ONNX file unless another is given, read by ONNX Runtime
#: from 1.12 on.
OPSET = 17

#: The oldest versions with each quantisation: `Pad` takes its widths as an input from 11 on,
#: `DequantizeLinear` a scale for each channel from 13 on.
_OLDEST_OPSETS = MappingProxyType({"none": 11, "float16": 11, "int8": 13})

#: The lowest and the highest value of options that are integers. An ONNX file is fixed to 1024
#: images at most; 23 is the newest opset that ONNX Runtime 1.23 reads in float, and int8 needs
#: 1.24.1, the lowest of the extra `onnx`.
_INTEGERS: Mapping[str, tuple[int, int | None]] = MappingProxyType(
    {
        "version": (1, None),
        "max_pixels": (1, None),
        "batch_sizes": (1, None),
        "batch": (1, 1024),
        "opset": (min(_OLDEST_OPSETS.values()), 23),
    }
)

#: The options that every target takes.
COMMON_OPTIONS = ("spec", "allow_nonfinite")

#: What a target does without an option that others depend on.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"quantize": "none", "folded": False, "layout": LAYOUTS[0]}
)


@dataclasses.dataclass(frozen=True)
class Target:
    """A format that models are exported to.

    Attributes:
        writes: str. What is written.
        writer: str. The function that writes it, as `module:function`.
        options: Mapping from the name of each option to the values that it can have, or to
            None where these cannot be listed.
        is_saved_model: bool. Whether it writes a SavedModel. Defaults to `False`.
        suffix: str. What the name of the file ends in. Defaults to `""`, anything.
    """

    writes: str
    writer: str
    options: Mapping[str, tuple[Any, ...] | None]
    is_saved_model: bool = False
    suffix: str = ""


TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        "hub": Target(
            "a new folder, a SavedModel that TF Hub's layers load",
            "bit_keras.exporters.hub:export_hub",
            {"input_range": INPUT_RANGES, "folded": None, "class_maps": None, "max_pixels": None},
            is_saved_model=True,
        ),
        "serving": Target(
            "a folder that gets a version, a SavedModel for TF Serving",
            "bit_keras.exporters.serving:export_serving",
            {
                "input_range": INPUT_RANGES,
                "size": None,
                "precision": PRECISIONS,
                "class_maps": None,
                "layout": (TRITON,),
                "version": None,
                "batch_sizes": None,
                "default_signature": DEFAULT_SIGNATURES,
                "max_pixels": None,
            },
            is_saved_model=True,
        ),
        "tflite": Target(
            "a file for LiteRT, on phones",
            "bit_keras.exporters.tflite:export_tflite",
            {
                "input_range": INPUT_RANGES,
                "size": None,
                "quantize": ("none", "float16", "dynamic", "int8", "int8-pure"),
                "calibration": None,
                "class_maps": None,
            },
        ),
        "onnx": Target(
            "a file for ONNX Runtime; its name ends in .onnx",
            "bit_keras.exporters.onnx:export_onnx",
            {
                "input_range": INPUT_RANGES,
                "size": None,
                "quantize": ("none", "float16", "int8"),
                "calibration": None,
                "class_maps": None,
                "batch": None,
                "opset": None,
                "layout": (*LAYOUTS, TRITON),
                "version": None,
            },
            suffix=".onnx",
        ),
        "openvino": Target(
            "a new folder of OpenVINO IR",
            "bit_keras.exporters.openvino_ir:export_openvino",
            {
                "input_range": INPUT_RANGES,
                "size": None,
                "quantize": ("none", "float16"),
                "class_maps": None,
            },
        ),
        "keras": Target(
            "a file for Keras; its name ends in .keras",
            "bit_keras.exporters.keras_archive:export_keras",
            {},
            suffix=".keras",
        ),
    }
)

#: Writes a folder of Triton's model repository, with the layout `"triton"`.
TRITON_WRITER = "bit_keras.exporters.triton:export_triton"

#: What TFLite computes in float, whose images are floats too.
_TFLITE_FLOATS = tuple(
    name for name in TARGETS["tflite"].options["quantize"] or () if name not in CALIBRATED
)


class Need(NamedTuple):
    """An option of a target that goes with certain values of another option only."""

    target: str
    option: str
    other: str
    values: tuple[Any, ...]


NEEDS = (
    Need("hub", "max_pixels", "folded", (True,)),
    Need("onnx", "version", "layout", (TRITON,)),
    Need("tflite", "class_maps", "quantize", _TFLITE_FLOATS),
    # Files in 8 bits take pixels.
    Need("tflite", "input_range", "quantize", _TFLITE_FLOATS),
    Need("tflite", "calibration", "quantize", CALIBRATED),
    Need("onnx", "calibration", "quantize", ("int8",)),
)


def in_python(name: str, *values: Any) -> str:
    """An option as a caller in Python writes it, for messages: `quantize='int8'`."""
    return f"{name}={' or '.join(map(repr, values))}" if values else name


def on_command_line(name: str, *values: Any) -> str:
    """An option as `bit-keras export` takes it, for messages: `--quantize int8`."""
    flag = {"target": "--to", "calibration": "--calibrate"}.get(name, f"--{name.replace('_', '-')}")
    if values in ((), (True,)):
        return flag
    return f"{flag} {' or '.join(map(_argument, values))}"


def _argument(value: Any) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(_argument, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_options(
    target: str,
    variant: Variant | None,
    options: Mapping[str, Any],
    spelled: Callable[..., str] = in_python,
) -> None:
    """Checks that a target takes options, and that these go together.

    Args:
        target: str. One of `TARGETS`.
        variant: `"classification"` or `"feature_extraction"`; None where it is not known.
        options: Mapping of options by name; those that are None or False are not set.
        spelled: Callable. Writes an option in the messages: `in_python` or
            `on_command_line`. Defaults to `in_python`.

    Raises:
        ExportError: An unknown target, an option that the target does not take, a value
            that is not allowed, or options that do not go together.
    """
    if target not in TARGETS:
        raise ExportError(
            f"{spelled('target')} must be one of {', '.join(TARGETS)}. "
            f"Received: {spelled('target', target)}"
        )
    given = given_options(options)
    for name, value in given.items():
        if name not in COMMON_OPTIONS:
            _check_taken(target, name, value, spelled)
    _check_quantization(target, given, spelled)
    for name, value in given.items():
        _check_value(target, name, value, given, spelled)
    _check_needs(target, given, spelled)
    if "class_maps" in given and variant not in (None, VARIANTS[0]):
        raise ExportError(
            f"{spelled('class_maps')} goes with a classifier, and the model has no head: export "
            f"it with {spelled('variant', VARIANTS[0])}."
        )
    if given.get("layout") == TRITON and "batch_sizes" in given:
        raise ExportError(
            f"{spelled('batch_sizes')} is for TensorFlow Serving; with "
            f"{spelled('layout', TRITON)} edit config.pbtxt."
        )


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are set: neither None nor False."""
    # By identity: zero equals False, and is refused as a value.
    return {
        name: value for name, value in options.items() if value is not None and value is not False
    }


def _check_taken(target: str, name: str, value: Any, spelled: Callable[..., str]) -> None:
    fitting = [other for other, known in TARGETS.items() if name in known.options]
    dynamic = (name, value) == ("size", "dynamic")
    if dynamic:
        fitting = ["tflite"]
    if not fitting:
        raise ExportError(
            f"{target} takes the options {', '.join((*TARGETS[target].options, *COMMON_OPTIONS))}."
            f" Received: {spelled(name)}"
        )
    if target not in fitting:
        option = spelled(name, value) if dynamic else spelled(name)
        remedy = ""
        if (target, name) == ("keras", "class_maps"):
            remedy = " bit_keras.create_class_maps computes the maps of a network in a .keras file."
        raise ExportError(f"{option} goes with {spelled('target', *fitting)}.{remedy}")


def _check_quantization(target: str, given: Mapping[str, Any], spelled: Callable[..., str]) -> None:
    quantize = given.get("quantize", "none")
    _check_choice(target, "quantize", quantize, spelled)
    if quantize in CALIBRATED and "calibration" not in given:
        raise ExportError(
            f"{spelled('quantize', quantize)} is calibrated with images, and none were given. "
            f"Set {spelled('calibration')}: on the command line a folder, a tar or tfds:NAME, in "
            "Python what bit_keras.exporters.calibration.calibration_images returns."
        )


def _check_choice(target: str, name: str, value: Any, spelled: Callable[..., str]) -> None:
    allowed = TARGETS[target].options.get(name)
    if allowed is not None and value not in allowed:
        raise ExportError(
            f"{spelled(name)} must be {' or '.join(map(_argument, allowed))} with "
            f"{spelled('target', target)}. Received: {spelled(name, value)}"
        )


def _check_value(
    target: str, name: str, value: Any, given: Mapping[str, Any], spelled: Callable[..., str]
) -> None:
    if name not in _INTEGERS:
        _check_choice(target, name, tuple(value) if name == "input_range" else value, spelled)
        return
    (low, high), condition = _INTEGERS[name], ""
    if name == "opset":
        quantize = given.get("quantize", "none")
        low, condition = _OLDEST_OPSETS[quantize], f" with {spelled('quantize', quantize)}"
    for number in value if name == "batch_sizes" else [value]:
        is_integer = isinstance(number, int) and not isinstance(number, bool)
        if not is_integer or number < low or (high is not None and number > high):
            allowed = f"{low} or more" if high is None else f"{low} to {high}"
            received = spelled(name, number) if number is not True else in_python(name, number)
            raise ExportError(
                f"{spelled(name)} must be an integer, {allowed}{condition}. Received: {received}"
            )


def _check_needs(target: str, given: Mapping[str, Any], spelled: Callable[..., str]) -> None:
    for need in NEEDS:
        if need.target != target or need.option not in given:
            continue
        if need.option == "input_range" and tuple(given["input_range"]) == INPUT_RANGES[0]:
            continue
        if given.get(need.other, _DEFAULTS[need.other]) not in need.values:
            raise ExportError(
                f"With {spelled('target', target)}, {spelled(need.option)} goes with "
                f"{spelled(need.other, *need.values)}."
            )


def require_suffix(target: str, path: str | os.PathLike) -> None:
    """Raises ExportError where a target writes files of other names."""
    suffix = TARGETS[target].suffix
    if suffix and Path(path).suffix != suffix:
        raise ExportError(f"The name of a file for {target} ends in {suffix}; {path} does not.")


def precision_of(quantize: str) -> str:
    """The precision of a file that is quantised so."""
    return "float32" if quantize == "none" else quantize


def artifact_path(path: Path, target: str, options: Mapping[str, Any]) -> Path:
    """Where the artifact is below the path that is given: servers keep versions in a folder."""
    if target == "serving" or options.get("layout") == TRITON:
        return path / str(options.get("version", 1))
    return path
