"""What travels inside an artifact beside the graph: what it is, and its own proof.

Both files lie in `assets.extra`, the folder of a SavedModel that every loader
leaves alone.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bit_keras.errors import ExportError

Variant = Literal["classification", "feature_extraction"]
VARIANTS: tuple[Variant, ...] = ("classification", "feature_extraction")

#: The kinds of SavedModel, the numbers that one computes with.
TARGETS = ("hub", "serving")
PRECISIONS = ("float32", "bfloat16")

#: The name of the output of each variant, in signatures and files.
OUTPUTS: dict[Variant, str] = {"classification": "logits", "feature_extraction": "features"}

#: The input ranges an artifact can take: BiT's own, and that of TF Hub's common
#: image signature (`tensorflow/hub`, `docs/common_saved_model_apis/images.md`).
INPUT_RANGES: tuple[tuple[float, float], ...] = ((-1.0, 1.0), (0.0, 1.0))

#: Largest relative difference between an artifact and Keras in float32.
TOLERANCE = 1e-5

_METADATA = "assets.extra/bit_keras.json"
_GOLDEN = "assets.extra/golden.npz"


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an artifact is, as its users need to know it.

    Attributes:
        model: str. The registry's name of the weights.
        target: str. The kind of artifact, `"hub"`.
        variant: str. `"classification"` or `"feature_extraction"`.
        input_range: tuple of 2 floats. What the pixels must be scaled to.
        outputs: int. Width of the output: classes, or channels.
        task: dict or None. What `Task.from_json` reads: the labels, transform and
            activation of a classifier, where they are known.
        tolerance: float. Largest relative difference that `verify` accepts.
        versions: dict of str. Of the packages that wrote it.
    """

    model: str
    target: str
    variant: Variant
    input_range: tuple[float, float]
    outputs: int
    task: dict[str, Any] | None
    tolerance: float
    versions: dict[str, str]

    def write(self, artifact: Path) -> None:
        path = artifact / _METADATA
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, artifact: Path) -> "Metadata":
        """Reads the metadata of an artifact.

        Raises:
            ExportError: The folder is no artifact of this package.
        """
        fields = _read_json(artifact)
        names = {field.name for field in dataclasses.fields(cls)}
        if fields.keys() != names:
            differing = ", ".join(sorted(fields.keys() ^ names))
            raise ExportError(
                f"{artifact / _METADATA} was written by another version of bit_keras "
                f"(it differs in {differing}); export the model again."
            )
        return cls(**{**fields, "input_range": tuple(fields["input_range"])})


def _read_json(artifact: Path) -> dict[str, Any]:
    if not artifact.exists():
        raise ExportError(f"There is no artifact {artifact}.")
    try:
        fields = json.loads((artifact / _METADATA).read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(
            f"{artifact} was not exported by bit_keras: it has no {_METADATA}."
        ) from None
    except (OSError, ValueError) as error:
        raise ExportError(f"{artifact / _METADATA} cannot be read ({error}).") from error
    return fields if isinstance(fields, dict) else {}


def golden_images(height: int, width: int, input_range: tuple[float, float]) -> np.ndarray:
    """Two pictures of coloured waves, the same everywhere and always.

    Returns:
        float32 array `(2, height, width, 3)` in `input_range`; the values are those
        of 8-bit pixels.
    """
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = np.zeros((2, height, width, 3))
    for frequency in (1, 3, 9, 27):
        fx, fy, phase = generator.uniform(-1, 1, (3, 2, 1, 1, 3))
        angle = frequency * (fx * x[..., None] + fy * y[..., None]) + phase
        waves += np.sin(2 * np.pi * angle)
    pixels = np.round(255 * (waves - waves.min()) / np.ptp(waves))
    low, high = input_range
    return (low + pixels / 255 * (high - low)).astype("float32")


def write_golden(artifact: Path, inputs: np.ndarray, outputs: np.ndarray) -> None:
    """Stores an input and what Keras answers to it."""
    np.savez_compressed(artifact / _GOLDEN, inputs=inputs, outputs=outputs)


def read_golden(artifact: Path) -> tuple[np.ndarray, np.ndarray]:
    """The stored input and output of an artifact."""
    with np.load(artifact / _GOLDEN, allow_pickle=False) as arrays:
        return arrays["inputs"], arrays["outputs"]


def relative_difference(outputs: np.ndarray, golden: np.ndarray) -> float:
    """Largest absolute difference, in units of the largest golden value.

    Returns:
        float. Infinite where shapes differ or anything is not a number.
    """
    if outputs.shape != golden.shape or not np.isfinite(outputs).all():
        return float("inf")
    scale = np.abs(golden).max()
    return float(np.abs(outputs - golden).max() / scale) if scale > 0 else float("inf")
