"""Class activation maps: what every position of the last feature map adds to a class."""

import dataclasses
import os
from pathlib import Path

import numpy as np
from PIL import Image

from bit_keras.preprocessing import ClassifierSpec, decode_predictions
from bit_keras.preprocessing.evaluation import ImageSource
from bit_keras.registry import STRIDE

# Each of the five strides of 2 sits in a layer with an odd window and (window - 1) / 2 pixels of
# padding on both sides (7, 3 and 3x3), or in a 1x1 projection without any
# (google-research/big_transfer, bit_pytorch/models.py): its output i is centred on its input 2 i.
# So position i of the map is centred on pixel 32 i, the middle of which is half a pixel further
# (Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill, 2019).
_FIRST_POSITION = 0.5

#: Longest side of the image that an explanation keeps, more than a drawing shows of it. Many
#: photographs as they come would fill the memory.
_LONGEST_SIDE = 512


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The prediction for an image, and the class activation maps that it comes from.

    Attributes:
        name: str. The file name of the image; empty where it is not a file.
        image: PIL image, RGB. The image, upright and whole, reduced to sides of
            at most 512 pixels.
        region: tuple of 4 floats. Left, top, right and bottom of what the network saw
            of `image`, in its pixels.
        classes: list of (class id, label, score), best first.
        maps: float32 array `(classes, rows, columns)`. What each position adds to the
            logit of each of these classes: the mean of a map is the logit.
        size: int. Side of the image that went through the network, in pixels: what
            `region` was resized to.

    Example:

    ```python
    predictor = bit_keras.inference.load_predictor("bit_tiny.cifar10")
    explanation = predictor.explain(np.zeros((300, 400, 3), "uint8"), top=3)
    explanation.maps.shape  # (3, 2, 2)
    explanation.image.size  # (400, 300)
    [len(centres) for centres in explanation.positions]  # [2, 2]
    ```
    """

    name: str
    image: Image.Image
    region: tuple[float, float, float, float]
    classes: list[tuple[str, str, float]]
    maps: np.ndarray
    size: int

    @property
    def logits(self) -> np.ndarray:
        """The logits of `classes`, float64."""
        return self.maps.mean(axis=(1, 2), dtype=np.float64)

    @property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """The centres of the positions, in pixels of `image`.

        Returns:
            tuple of 2 arrays: x of the columns, and y of the rows. The first ones are
            at the left and at the top of `region`.
        """
        left, top, right, bottom = self.region
        _, rows, columns = self.maps.shape
        return (
            left + _centres(columns) * (right - left) / self.size,
            top + _centres(rows) * (bottom - top) / self.size,
        )


def _centres(count: int) -> np.ndarray:
    return STRIDE * np.arange(count) + _FIRST_POSITION


def explanation_of(
    source: ImageSource, image: Image.Image, spec: ClassifierSpec, maps: np.ndarray, top: int
) -> Explanation:
    """What the class maps of one image say.

    Args:
        source: The image as the caller gave it, which names it.
        image: PIL image. The image as `load_image` gives it.
        spec: ClassifierSpec. Of the classifier.
        maps: array `(rows, columns, classes)`. The output of the network.
        top: int. How many classes to keep.
    """
    # The head is linear and follows the mean over the positions, so this is its output.
    logits = maps.mean(axis=(0, 1), dtype=np.float64)
    (classes,) = decode_predictions(logits, spec, top)
    best = spec.labels.indices_of([class_id for class_id, _, _ in classes])
    reduced = image.copy()
    reduced.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    across, down = reduced.width / image.width, reduced.height / image.height
    left, upper, right, lower = spec.transform.region(*image.size)
    return Explanation(
        _name(source),
        reduced,
        (left * across, upper * down, right * across, lower * down),
        classes,
        np.moveaxis(maps, -1, 0)[best].astype(np.float32),
        spec.transform.size,
    )


def _name(source: ImageSource) -> str:
    if not isinstance(source, str | os.PathLike):
        return ""
    # File systems allow bytes that are not text.
    return Path(os.fsdecode(source)).name.encode("utf-8", "replace").decode("utf-8")
