"""What an artifact is, as a file inside it says."""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any, Literal

from bit_keras.artifacts.members import METADATA, read_inside
from bit_keras.artifacts.runtimes.program import Layout
from bit_keras.documents import MOST_BYTES, parsed
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import MINIMUM_SIZE

Variant = Literal["classification", "feature_extraction"]

VARIANTS: tuple[Variant, ...] = ("classification", "feature_extraction")

#: The types of artifact.
TARGETS = ("hub", "serving", "tflite", "onnx", "openvino", "keras")

CALIBRATED = ("int8", "int8-pure")

#: The name of the output of each variant, in signatures and files.
OUTPUTS: dict[Variant, str] = {"classification": "logits", "feature_extraction": "features"}

#: Images that a network of the registry could take on any machine.
_LARGEST_SIZE = 16_384


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an artifact is, as its users need to know it.

    Attributes:
        model: str. The registry's name of the weights.
        target: str. The type of artifact: `"hub"`, `"serving"`, `"keras"`, `"tflite"`,
            `"onnx"` or `"openvino"`.
        variant: str. `"classification"` or `"feature_extraction"`.
        precision: str. The dtype that its convolutions compute in, or how it was
            quantised.
        folded: bool. Whether its signatures use kernels that were standardised once.
        input_range: tuple of 2 floats. What the pixels must be scaled to.
        size: int or None. The only side of images that it takes, if there is one.
        outputs: int. Width of the output: classes, or channels.
        task: dict or None. What `ClassifierSpec.from_json` reads: the labels, transform and
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

    @functools.cached_property
    def spec(self) -> ClassifierSpec | None:
        """The labels and the transform of a classifier, where they are known."""
        return None if self.task is None else ClassifierSpec.from_json(self.task)

    def to_json(self) -> str:
        """The text that `find` reads in an artifact."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def find(cls, artifact: Path) -> "Metadata | None":
        """Reads the metadata of an artifact, None of one that another program wrote.

        Raises:
            ExportError: The artifact is missing or damaged.
        """
        content = read_inside(artifact, METADATA, MOST_BYTES)
        if content is None:
            return None
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
        if self.target not in TARGETS:
            raise ValueError(f"its target {self.target[:80]!r} is unknown")
        if not low < high or self.outputs < 1 or not 0 < self.tolerance < math.inf:
            raise ValueError("its input range, outputs or tolerance is of another type")
        if self.size is not None and not MINIMUM_SIZE <= self.size <= _LARGEST_SIZE:
            raise ValueError(
                f"its size {self.size} is not between {MINIMUM_SIZE} and {_LARGEST_SIZE}"
            )
        if self.task is not None:
            ClassifierSpec.from_json(self.task)
