"""Writes a model as a TFLite file with reference outputs."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Literal

import keras
import numpy as np

from bit_keras.artifacts.members import METADATA, REFERENCE
from bit_keras.artifacts.metadata import CALIBRATED, Metadata
from bit_keras.artifacts.reference import reference_bytes
from bit_keras.artifacts.runtimes.litert import LiteRTProgram
from bit_keras.artifacts.runtimes.program import DEFAULT_SIGNATURE, FEATURES
from bit_keras.atomic import replaced_file, scratch_directory
from bit_keras.exporters.calibration import required_calibration
from bit_keras.exporters.description import at_size, compared, describe
from bit_keras.exporters.outputs import ExportedNetwork, reference_outputs
from bit_keras.exporters.targets import precision_of
from bit_keras.exporters.tflite.conversion import converted
from bit_keras.exporters.tflite.interface import with_signatures
from bit_keras.exporters.tflite.mediapipe_metadata import with_metadata
from bit_keras.exporters.tflite.operators import require_fits, require_operators
from bit_keras.preprocessing import ClassifierSpec

Quantization = Literal["none", "float16", "dynamic", "int8", "int8-pure"]

#: The range of 8-bit pixels.
_PIXELS = (0.0, 255.0)


def export_tflite(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    quantize: Quantization = "none",
    size: int | Literal["dynamic"] | None = None,
    input_range: tuple[float, float] = (-1.0, 1.0),
    spec: ClassifierSpec | None = None,
    calibration: Iterable[np.ndarray] | None = None,
    allow_nonfinite: bool = False,
) -> Metadata:
    """Writes a model as a TFLite file of builtin operators only.

    The signatures `serving_default` and `features` are the same, under two names: `inputs`,
    float32 `(1, size, size, 3)`, to `probabilities` and `logits`, float32 `(1, classes)`,
    `features`, float32 `(1, channels)`, and the further output levels. A feature
    extractor returns `features` only. Callers may resize the batch. Kernels are
    standardised once, at export. What `quantize` does:

    - `"none"`: all in float32;
    - `"float16"`: weights in float16, half the size; they are unpacked to float32;
    - `"dynamic"`: weights in int8, a quarter of the size; activations are rounded to
      8 bits before each convolution, by what is in them;
    - `"int8"`: convolutions and head in int8 with scales from `calibration`; GroupNorm
      stays in float, because 8 bits do not contain its variances. Images and outputs are
      8-bit;
    - `"int8-pure"`: no float between input and output, for accelerators that compute only
      in integers; it costs more accuracy (`docs/deploy.md` has how much).

    The file contains the metadata that MediaPipe's image tasks read: normalisation, labels and
    the meaning of scores; and a stored input and output for `bit_keras.artifacts.Artifact.verify`.

    The options are described, and checked, by `bit_keras.export`, which calls this function.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError, SizeError, BitKerasError: As `bit_keras.export`.

    Reference:
        [LiteRT's quantisation](https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/post_training_quantization).
    """
    network = ExportedNetwork.of(model)
    # First: a path that cannot be written is refused before the conversion, which takes minutes.
    with replaced_file(path) as partial:
        if quantize in CALIBRATED:
            input_range = _PIXELS
        metadata = describe(network.model, "tflite", input_range, spec, allow_nonfinite)
        side = None if size == "dynamic" else size
        metadata, _ = at_size(metadata, network.model, side, spec)
        metadata = dataclasses.replace(metadata, precision=precision_of(quantize), folded=True)
        if size == "dynamic":
            metadata = dataclasses.replace(metadata, size=None)
        images = required_calibration(calibration, metadata)
        require_fits(network.model, quantize)
        content = converted(network, metadata, images)
        require_operators(content, quantize)
        content = with_signatures(content, (DEFAULT_SIGNATURE, FEATURES))
        reference = reference_outputs(network, metadata)
        if quantize != "none":
            with scratch_directory(partial) as folder:
                file = folder / "model.tflite"
                file.write_bytes(content)
                metadata = compared(metadata, lambda: LiteRTProgram(file), reference)
        members = {METADATA: metadata.to_json().encode(), REFERENCE: reference_bytes(reference)}
        partial.write_bytes(with_metadata(content, metadata, members))
    return metadata
