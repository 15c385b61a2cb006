"""Reference inputs and outputs, which an artifact carries and is checked with."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.errors import UnknownModelError
from bit_keras.registry import RGB, model_info

if TYPE_CHECKING:
    import keras

#: Side of the reference images, where nothing states their size.
REFERENCE_SIZE = 224

#: Classes whose maps are stored as reference: all of an ImageNet-21k network take 8 MB. The means
#: of the others are checked, which are the logits.
REFERENCE_CLASSES = 10

#: Largest relative difference between an artifact that computes in float32 and Keras,
#: and of one in half precision, whose numbers have 8 (bfloat16) or 11 bits.
TOLERANCE = 1e-5

HALF_PRECISION_TOLERANCE = 5e-2

#: What is quantised may differ by what it did when it was written, twice: rounding goes
#: another way on another processor. At least by this.
SMALLEST_QUANTISED_TOLERANCE = 1e-4


def reference_images(
    height: int, width: int, input_range: tuple[float, float], channels: int = RGB
) -> np.ndarray:
    """Two images of coloured waves, the same everywhere and always.

    Returns:
        float32 array `(2, height, width, channels)` in `input_range`; the values are
        those of 8-bit pixels.
    """
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.zeros((2, height, width, channels))
    for frequency in (1, 3, 9, 27):
        fx, fy, phase = generator.uniform(-1, 1, (3, 2, 1, 1, channels))
        angle = frequency * (fx * x[..., None] + fy * y[..., None]) + phase
        waves += np.sin(2 * np.pi * angle)
    pixels = np.round(255 * (waves - waves.min()) / np.ptp(waves))
    low, high = input_range
    return (low + pixels / 255 * (high - low)).astype("float32")


def encoded_reference_images(size: int) -> list[bytes]:
    """Two encoded images, a JPEG and a PNG, that are not squares and larger than `size`."""
    images: list[bytes] = []
    for height, width, format in ((4 * size // 3, 3 * size // 2, "JPEG"), (2 * size, size, "PNG")):
        pixels = np.rint(reference_images(height | 1, width | 1, (0.0, 1.0))[len(images)] * 255)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, format)
        images.append(file.getvalue())
    return images


def reference_size(input_shape: Sequence[int | None], metadata: Metadata) -> tuple[int, int]:
    """Height and width of the reference images of an artifact."""
    height, width = input_shape[1:3]
    size = metadata.size or (metadata.task and metadata.task["transform"]["size"])
    if size is None:
        with contextlib.suppress(UnknownModelError):
            size = model_info(metadata.model).size
    return height or size or REFERENCE_SIZE, width or size or REFERENCE_SIZE


def reference_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Reference inputs and outputs as the file that `Artifact.read_reference` reads."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def tolerance_of(precision: str) -> float:
    """Largest relative difference that an artifact may show, by the dtype it computes in."""
    return HALF_PRECISION_TOLERANCE if precision in ("bfloat16", "float16") else TOLERANCE


def quantised_tolerance(difference: float) -> float:
    """What `verify` accepts of a file that differed by so much when it was written."""
    return max(2 * difference, SMALLEST_QUANTISED_TOLERANCE)


def reference_difference(
    name: str, result: np.ndarray, reference: Mapping[str, np.ndarray]
) -> float:
    """The relative difference of an output to what is stored of it.

    Of class maps these are the first classes at every position; and the mean over the
    positions, of every class, are the logits.
    """
    if name != CLASS_MAPS:
        return relative_difference(result, reference[name])
    means = result.mean((1, 2), dtype=np.float64)
    return max(
        relative_difference(result[..., :REFERENCE_CLASSES], reference[CLASS_MAPS]),
        relative_difference(means, reference[OUTPUTS["classification"]]),
    )


def relative_difference(outputs: np.ndarray, reference: np.ndarray) -> float:
    """Largest absolute difference, in units of the largest reference value.

    Returns:
        float. Infinite where shapes differ or anything is not a number.
    """
    if outputs.shape != reference.shape or not np.isfinite(outputs).all():
        return float("inf")
    scale = np.abs(reference).max()
    return float(np.abs(outputs - reference).max() / scale) if scale > 0 else float("inf")


def named_outputs(model: "keras.Model", images: np.ndarray) -> dict[str, np.ndarray]:
    """What a network returns, as arrays `output_0`, `output_1` and so on."""
    import keras

    # One layer after the other: TensorFlow's graph would standardise all kernels at once,
    # and keep a second copy of the weights.
    result = model if keras.backend.backend() == "tensorflow" else model.predict_on_batch
    outputs = keras.tree.flatten(result(images))
    return {
        f"output_{number}": keras.ops.convert_to_numpy(output).astype("float32")
        for number, output in enumerate(outputs)
    }
