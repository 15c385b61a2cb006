"""Reference inputs and outputs, which an artifact carries and is checked with."""

import contextlib
import io
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bit_keras.archives import damage_as_bad_zip, open_archive
from bit_keras.artifacts.members import REFERENCE, read_inside
from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.errors import ExportError, UnknownModelError
from bit_keras.registry import RGB, model_info

if TYPE_CHECKING:
    import keras

#: Five times the reference images and class maps of the largest artifact.
_REFERENCE_BYTES = 100_000_000

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
    """Reference inputs and outputs as the file that `read_reference` reads."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def has_reference(artifact: Path) -> bool:
    """Whether an artifact contains reference inputs and outputs."""
    return read_inside(artifact, REFERENCE, _REFERENCE_BYTES) is not None


def read_reference(artifact: Path) -> dict[str, np.ndarray]:
    """The stored inputs and outputs of an artifact, by name.

    Raises:
        ExportError: There are none, or they are damaged.
    """
    content = read_inside(artifact, REFERENCE, _REFERENCE_BYTES)
    if content is None:
        raise ExportError(f"{artifact} has no {REFERENCE}; export the model again.")
    try:
        with damage_as_bad_zip(), open_archive(io.BytesIO(content)) as archive:
            if not all(name.endswith(".npy") for name in archive.namelist()):
                raise ValueError("it contains something else than arrays")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: array for name, array in arrays.items() if _is_numeric(name, array)}
    # The headers of arrays are expressions of Python, and may be anything else.
    except (zipfile.BadZipFile, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise ExportError(f"{artifact / REFERENCE} is damaged ({error}).") from error


def _is_numeric(name: str, array: np.ndarray) -> bool:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} has the type {array.dtype}")
    return True


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
