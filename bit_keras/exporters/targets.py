"""The targets of exports: what each takes and writes."""

from typing import Any

from bit_keras.artifacts.metadata import CALIBRATED, Metadata
from bit_keras.artifacts.runtimes.program import LAYOUTS
from bit_keras.errors import ExportError

PRECISIONS = ("float32", "bfloat16")

#: What the signature `serving_default` of a SavedModel for servers can take.
DEFAULT_SIGNATURES = ("inputs", "image_bytes")

#: How the weights and the arithmetic of a file can be changed, by target. What is in int8 is
#: calibrated with images; such TFLite files take 8-bit pixels.
QUANTIZATIONS = {
    "tflite": ("none", "float16", "dynamic", "int8", "int8-pure"),
    "onnx": ("none", "float16", "int8"),
    "openvino": ("none", "float16"),
}

#: The version of the operators in an ONNX file unless another is given, read by ONNX Runtime
#: from 1.12 on.
OPSET = 17

#: The versions that there are: `Pad` takes its widths as an input
#: from 11 on, `DequantizeLinear` a scale for each channel from 13 on, and 23 is the newest that
#: ONNX Runtime 1.23 reads in float; int8 needs 1.24.1, the lowest of the extra `onnx`.
_OLDEST_OPSETS = {"none": 11, "float16": 11, "int8": 13}

_NEWEST_OPSET = 23

#: The most images at once that an ONNX file can be fixed to.
_LARGEST_BATCH = 1024

#: The input ranges an artifact can take: BiT's own, and that of TF Hub's common
#: image signature (`tensorflow/hub`, `docs/common_saved_model_apis/images.md`).
INPUT_RANGES: tuple[tuple[float, float], ...] = ((-1.0, 1.0), (0.0, 1.0))


def precision_of(target: str, quantize: str) -> str:
    """The precision of a file that is quantised so.

    Raises:
        ExportError: The target has no such quantisation.
    """
    if quantize not in QUANTIZATIONS[target]:
        raise ExportError(
            f"quantize must be one of {', '.join(QUANTIZATIONS[target])} for the target {target}. "
            f"Received: quantize={quantize!r}"
        )
    return "float32" if quantize == "none" else quantize


def require_onnx_options(
    quantize: str, batch: int | None = None, opset: int = OPSET, layout: str = "nhwc"
) -> None:
    """Raises ExportError where an ONNX file cannot be written with these options.

    Args:
        quantize: str. One of those in `QUANTIZATIONS`.
        batch: int or None. The only number of images that the file takes at once.
        opset: int. Version of the operators.
        layout: str. Of the images.
    """
    if batch is not None and not _is_integer_in(batch, 1, _LARGEST_BATCH):
        raise ExportError(
            f"batch must be an integer from 1 to {_LARGEST_BATCH}, or left out for any number of "
            f"images. Received: batch={batch!r}"
        )
    oldest = _OLDEST_OPSETS[quantize]
    if not _is_integer_in(opset, oldest, _NEWEST_OPSET):
        raise ExportError(
            f"opset must be an integer from {oldest} to {_NEWEST_OPSET} with quantize={quantize}. "
            f"Received: opset={opset!r}"
        )
    if layout not in LAYOUTS:
        raise ExportError(f"layout must be {' or '.join(LAYOUTS)}. Received: layout={layout!r}")


def _is_integer_in(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def require_class_maps(metadata: Metadata) -> None:
    """Raises ExportError where an artifact cannot carry class activation maps."""
    if metadata.variant != "classification":
        raise ExportError(
            f"Class maps show where classes are seen, and {metadata.model} is exported without its "
            "head; export the classifier (--variant classification)."
        )
    if metadata.takes_pixels:
        floats = [name for name in QUANTIZATIONS["tflite"] if name not in CALIBRATED]
        raise ExportError(
            f"A TFLite file carries class maps in float32, with quantize {', '.join(floats)}; "
            f"{metadata.precision} came."
        )
