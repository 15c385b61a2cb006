"""What travels inside an artifact beside the graph: what it is, and its own proof.

Both files lie in `assets.extra`, the folder of a SavedModel that every loader
leaves alone. Keras leaves such members of a `.keras` file alone, and TFLite those
of the archive at the end of its files; in ONNX they are entries of the metadata.
"""

import base64
import contextlib
import dataclasses
import io
import json
import math
import tokenize
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from PIL import Image

from bit_keras.archives import damage_as_bad_zip, is_archive, open_archive
from bit_keras.documents import MOST_BYTES, parsed
from bit_keras.errors import BitKerasError, ExportError, UnknownModelError
from bit_keras.preprocessing import Task
from bit_keras.registry import MINIMUM_SIZE, RGB, model_info
from bit_keras.runtimes.program import CLASS_MAPS, LAYOUTS, Layout

Variant = Literal["classification", "feature_extraction"]
VARIANTS: tuple[Variant, ...] = ("classification", "feature_extraction")

#: The kinds of SavedModel, the numbers that one computes with.
TARGETS = ("hub", "serving")
PRECISIONS = ("float32", "bfloat16")

#: What the signature `serving_default` of a SavedModel for servers can take.
DEFAULT_SIGNATURES = ("inputs", "image_bytes")

#: How the weights and the arithmetic of a file can be changed, by target. What is in int8 is
#: calibrated with pictures; such TFLite files take 8-bit pixels.
QUANTIZATIONS = {
    "tflite": ("none", "float16", "dynamic", "int8", "int8-pure"),
    "onnx": ("none", "float16", "int8"),
    "openvino": ("none", "float16"),
}
CALIBRATED = ("int8", "int8-pure")

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

#: The name of the output of each variant, in signatures and files.
OUTPUTS: dict[Variant, str] = {"classification": "logits", "feature_extraction": "features"}

#: The input ranges an artifact can take: BiT's own, and that of TF Hub's common
#: image signature (`tensorflow/hub`, `docs/common_saved_model_apis/images.md`).
INPUT_RANGES: tuple[tuple[float, float], ...] = ((-1.0, 1.0), (0.0, 1.0))

#: Largest relative difference between an artifact that computes in float32 and Keras,
#: and of one in half precision, whose numbers have 8 (bfloat16) or 11 bits.
TOLERANCE = 1e-5
HALF_PRECISION_TOLERANCE = 5e-2

#: What is quantised may differ by what it did when it was written, twice: rounding goes
#: another way on another processor. At least by this.
SMALLEST_QUANTISED_TOLERANCE = 1e-4

#: The files of an artifact that say what it is and prove it; members of a `.keras` file.
METADATA = "assets.extra/bit_keras.json"
GOLDEN = "assets.extra/golden.npz"

#: What a version in a Triton model repository is called, by target
#: (`triton-inference-server/server`, `docs/user_guide/model_repository.md`).
TRITON_FILES = MappingProxyType({"serving": "model.savedmodel", "onnx": "model.onnx"})

#: Five times the images and class maps that prove the largest artifact.
_GOLDEN_BYTES = 100_000_000

#: Images that a network of the registry could take on any machine.
_LARGEST_SIZE = 16_384

#: Side of the images that prove an artifact, where nothing says how large they should be.
GOLDEN_SIZE = 224

#: Classes whose maps are stored to prove an artifact: all of an ImageNet-21k network take 8 MB.
#: The others are proven by their means, which are the logits.
GOLDEN_CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an artifact is, as its users need to know it.

    Attributes:
        model: str. The registry's name of the weights.
        target: str. The kind of artifact: `"hub"`, `"serving"`, `"keras"`, `"tflite"`,
            `"onnx"` or `"openvino"`.
        variant: str. `"classification"` or `"feature_extraction"`.
        precision: str. The dtype that its convolutions compute in, or how it was
            quantised.
        folded: bool. Whether its signatures use kernels that were standardised once.
        input_range: tuple of 2 floats. What the pixels must be scaled to.
        size: int or None. The only side of images that it takes, if there is one.
        outputs: int. Width of the output: classes, or channels.
        task: dict or None. What `Task.from_json` reads: the labels, transform and
            activation of a classifier, where they are known.
        tolerance: float. Largest relative difference that `verify` accepts.
        versions: dict of str. Of the packages that wrote it.
        layout: str. The order of the axes of its images, `"nhwc"` or `"nchw"`.
        max_pixels: int or None. The most pixels of an encoded image, where it takes such.
    """

    model: str
    target: str
    variant: Variant
    precision: str
    folded: bool
    input_range: tuple[float, float]
    size: int | None
    outputs: int
    task: dict[str, Any] | None
    tolerance: float
    versions: dict[str, str]
    layout: Layout = "nhwc"
    max_pixels: int | None = None

    @property
    def takes_pixels(self) -> bool:
        """Whether its images are 8-bit pixels, not floats."""
        return self.target == "tflite" and self.precision in CALIBRATED

    def to_json(self) -> str:
        """The text that `read` finds in an artifact."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, artifact: Path) -> "Metadata":
        """Reads the metadata of an artifact.

        Raises:
            ExportError: The path is not an artifact of this package.
        """
        content = _content(artifact, METADATA, MOST_BYTES)
        if content is None:
            raise ExportError(f"{artifact} was not exported by bit_keras: it has no {METADATA}.")
        try:
            metadata = parsed(content, cls)
            metadata._check()
        except (BitKerasError, ValueError) as error:
            raise ExportError(
                f"{artifact / METADATA} cannot be read ({error}); it is damaged, or was written by "
                "another version of bit_keras. Export the model again."
            ) from error
        return metadata

    def _check(self) -> None:
        """Raises unless the values make sense; their types do."""
        low, high = self.input_range
        if self.target not in (*TARGETS, "keras", *QUANTIZATIONS):
            raise ValueError(f"its target {self.target[:80]!r} is unknown")
        if not low < high or self.outputs < 1 or not 0 < self.tolerance < math.inf:
            raise ValueError("its input range, outputs or tolerance is of another type")
        if self.size is not None and not MINIMUM_SIZE <= self.size <= _LARGEST_SIZE:
            raise ValueError(
                f"its size {self.size} is not between {MINIMUM_SIZE} and {_LARGEST_SIZE}"
            )
        if self.task is not None:
            Task.from_json(self.task)


def located(path: Path) -> Path:
    """The artifact at a path: the folder of a graph, or the newest in a folder of versions.

    TensorFlow Serving and Triton serve the version with the highest number too.
    """
    if path.name in ("model.xml", "saved_model.pb"):
        return path.parent
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    # Longer numbers than TensorFlow Serving takes, of 64 bits.
    versions = [
        folder for folder in path.iterdir() if folder.name.isdecimal() and len(folder.name) < 20
    ]
    newest = max(versions, key=lambda folder: int(folder.name), default=path)
    of_triton = (newest / name for name in TRITON_FILES.values())
    return next((file for file in of_triton if file.exists()), newest)


def _content(artifact: Path, name: str, most_bytes: int) -> bytes | None:
    """What a file of an artifact contains; None where there is none.

    Raises:
        ExportError: There is no artifact, or it is damaged.
    """
    if not artifact.exists():
        raise ExportError(f"There is no artifact {artifact}.")
    try:
        with _opened(artifact) as root:
            file = root / name
            if not file.is_file():
                if isinstance(file, Path) and file.exists():  # A pipe would be waited for.
                    raise ValueError("it is not an ordinary file")
                return None
            with damage_as_bad_zip(), file.open("rb") as stream:
                content = stream.read(most_bytes + 1)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{artifact / name} cannot be read ({error}).") from error
    if len(content) > most_bytes:
        raise ExportError(
            f"{artifact / name} has more than {most_bytes:,} bytes, the most that are read."
        )
    return content


@contextlib.contextmanager
def _opened(artifact: Path) -> Iterator[Path | zipfile.Path]:
    """The folder of an artifact's files, or what acts like it in a single file."""
    if artifact.suffix == ".onnx" and artifact.is_file():
        with zipfile.ZipFile(_members_of_onnx(artifact)) as archive:
            yield zipfile.Path(archive)
    elif is_archive(artifact):
        with open_archive(artifact) as archive:
            yield zipfile.Path(archive)
    else:
        yield artifact


def onnx_entries(members: Mapping[str, bytes]) -> dict[str, str]:
    """The files of an artifact as entries of an ONNX model's metadata, which are text."""
    return {
        name: base64.b64encode(content).decode() if name == GOLDEN else content.decode()
        for name, content in members.items()
    }


def _members_of_onnx(artifact: Path) -> io.BytesIO:
    """What `onnx_entries` wrote, as the archive that other single files hold."""
    try:
        import onnx
    except ImportError:
        raise ExportError(
            f"{artifact} is read with the package onnx; `pip install 'bit_keras[onnx]'` brings it."
        ) from None
    try:
        model = onnx.load(artifact, load_external_data=False)
    # Whatever the parser raises at damage.
    except Exception as error:
        raise ExportError(f"{artifact} is no ONNX file, or a damaged one ({error}).") from error
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for entry in model.metadata_props:
            if entry.key == GOLDEN:
                archive.writestr(GOLDEN, base64.b64decode(entry.value, validate=True))
            elif entry.key == METADATA:
                archive.writestr(METADATA, entry.value)
    return file


def golden_images(
    height: int, width: int, input_range: tuple[float, float], channels: int = RGB
) -> np.ndarray:
    """Two pictures of coloured waves, the same everywhere and always.

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


def golden_pictures(size: int) -> list[bytes]:
    """Two encoded pictures, a JPEG and a PNG, that are no squares and larger than `size`."""
    pictures: list[bytes] = []
    for height, width, format in ((4 * size // 3, 3 * size // 2, "JPEG"), (2 * size, size, "PNG")):
        pixels = np.rint(golden_images(height | 1, width | 1, (0.0, 1.0))[len(pictures)] * 255)
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, format)
        pictures.append(file.getvalue())
    return pictures


def golden_size(input_shape: Sequence[int | None], metadata: Metadata) -> tuple[int, int]:
    """Height and width of the images that prove an artifact."""
    height, width = input_shape[1:3]
    size = metadata.size or (metadata.task and metadata.task["transform"]["size"])
    if size is None:
        with contextlib.suppress(UnknownModelError):
            size = model_info(metadata.model).size
    return height or size or GOLDEN_SIZE, width or size or GOLDEN_SIZE


def golden_bytes(arrays: Mapping[str, Any]) -> bytes:
    """Inputs and what Keras answers to them, as the file that `read_golden` finds."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def has_golden(artifact: Path) -> bool:
    """Whether an artifact carries inputs and outputs that prove it."""
    return _content(artifact, GOLDEN, _GOLDEN_BYTES) is not None


def read_golden(artifact: Path) -> dict[str, np.ndarray]:
    """The stored inputs and outputs of an artifact, by name.

    Raises:
        ExportError: There are none, or they are damaged.
    """
    content = _content(artifact, GOLDEN, _GOLDEN_BYTES)
    if content is None:
        raise ExportError(f"{artifact} has no {GOLDEN}; export the model again.")
    try:
        with damage_as_bad_zip(), open_archive(io.BytesIO(content)) as archive:
            if not all(name.endswith(".npy") for name in archive.namelist()):
                raise ValueError("it contains something else than arrays")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: array for name, array in arrays.items() if _is_numeric(name, array)}
    # The headers of arrays are expressions of Python, and may be no such thing.
    except (zipfile.BadZipFile, SyntaxError, TypeError, tokenize.TokenError) as error:
        raise ExportError(f"{artifact / GOLDEN} is damaged ({error}).") from error


def _is_numeric(name: str, array: np.ndarray) -> bool:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} has the type {array.dtype}")
    return True


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


def tolerance_of(precision: str) -> float:
    """Largest relative difference that an artifact may show, by the dtype it computes in."""
    return HALF_PRECISION_TOLERANCE if precision in ("bfloat16", "float16") else TOLERANCE


def quantised_tolerance(difference: float) -> float:
    """What `verify` accepts of a file that differed by so much when it was written."""
    return max(2 * difference, SMALLEST_QUANTISED_TOLERANCE)


def golden_difference(name: str, answer: np.ndarray, golden: Mapping[str, np.ndarray]) -> float:
    """The relative difference of an output to what is stored of it.

    Of class maps these are the first classes at every position; and the mean over the
    positions, of every class, are the logits.
    """
    if name != CLASS_MAPS:
        return relative_difference(answer, golden[name])
    means = answer.mean((1, 2), dtype=np.float64)
    return max(
        relative_difference(answer[..., :GOLDEN_CLASSES], golden[CLASS_MAPS]),
        relative_difference(means, golden[OUTPUTS["classification"]]),
    )


def relative_difference(outputs: np.ndarray, golden: np.ndarray) -> float:
    """Largest absolute difference, in units of the largest golden value.

    Returns:
        float. Infinite where shapes differ or anything is not a number.
    """
    if outputs.shape != golden.shape or not np.isfinite(outputs).all():
        return float("inf")
    scale = np.abs(golden).max()
    return float(np.abs(outputs - golden).max() / scale) if scale > 0 else float("inf")
