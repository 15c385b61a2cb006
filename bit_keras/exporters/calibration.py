"""Images that show a quantiser which values a network meets."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from bit_keras.artifacts.metadata import CALIBRATED, Metadata
from bit_keras.data.datasets import Data, open_data_source
from bit_keras.data.folder import loose_images
from bit_keras.data.images import Images
from bit_keras.errors import DataError, ExportError, ImageError
from bit_keras.preprocessing import EvalTransform
from bit_keras.registry import RGB

#: Images that calibrate unless another number is requested.
COUNT = 200


def calibration_images(
    data: Data,
    transform: EvalTransform,
    count: int = COUNT,
    split: str | None = None,
    seed: int = 0,
    advance: Callable[[int], None] = lambda files: None,
) -> np.ndarray:
    """Images of any source, as the network is going to see them, chosen at random.

    An image that cannot be read is logged, and another one takes its place.

    Args:
        data: What `bit_keras.data.open_images` takes; or a folder of images, since
            classes do not matter here.
        transform: EvalTransform. Of the network.
        count: int. How many; fewer where the source has fewer. Defaults to `200`.
        split: str. Which split of the data. Defaults to `train` where there is one, else
            to the first: what a network is tested on does not calibrate it.
        seed: int, not negative. The same images for the same seed. Defaults to `0`.
        advance: callable that is told how many images were done.

    Returns:
        float32 array `(count, size, size, 3)`, RGB, in [-1, 1].

    Raises:
        DataError: The data cannot be found or used, `count` is below 1, or no image
            can be read.

    Example:

    ```python
    from bit_keras.exporters.calibration import calibration_images

    pixels = np.zeros((4, 40, 50, 3), "uint8")
    transform = bit_keras.eval_transform("bit_tiny.cifar10")
    calibration_images((pixels, [0, 1, 1, 0]), transform, count=2).shape  # (2, 64, 64, 3)
    ```
    """
    if count < 1:
        raise DataError(f"At least one image calibrates a network; {count} were requested.")
    images = _unlabelled(data, split)
    chosen: list[np.ndarray] = []
    reason = ""
    for index in map(int, np.random.default_rng(seed).permutation(len(images))):
        if len(chosen) == count:
            break
        try:
            chosen.append(transform(images[index]))
        except (ImageError, OSError) as error:
            reason = str(error)
            images.note_unreadable(index, reason)
        else:
            advance(1)
    if not chosen:
        raise DataError(
            f"A network is calibrated with images, and none of the {len(images)} in {data} "
            f"can be read ({reason})."
        )
    return np.stack(chosen)


def required_calibration(
    calibration: Iterable[np.ndarray] | None, metadata: Metadata
) -> np.ndarray | None:
    """The images that a file is calibrated with, where its precision needs some.

    Returns:
        float32 array `(n, height, width, 3)`.

    Raises:
        ExportError: There are none, or of another shape than the file takes.
    """
    if metadata.precision not in CALIBRATED:
        return None
    if isinstance(calibration, np.ndarray):  # Not copied: it may be large.
        images: np.ndarray | list[np.ndarray] = calibration
    else:
        images = [np.asarray(image) for image in calibration or ()]
    if len(images) == 0:
        raise ExportError(
            f"A file in {metadata.precision} is calibrated with images, a hundred or more. "
            f"Received: calibration={calibration}"
        )
    sides = (metadata.size,) * 2 if metadata.size else images[0].shape[:2]
    for image in images:
        if image.shape != (*sides, RGB):
            raise ExportError(
                f"Calibration images are float32 {(*sides, RGB)} in [-1, 1]. Received: "
                f"{image.dtype} {image.shape}"
            )
    return np.asarray(images, np.float32)


def _unlabelled(data: Data, split: str | None) -> Images:
    """The images of a source, whether or not they have classes."""
    loose = loose_images(Path(data)) if isinstance(data, str | os.PathLike) else None
    if loose is not None:
        return loose
    source = open_data_source(data)
    if split is None:
        split = source.split_for("train") or next(iter(source.splits), None)
    return source.unchecked_images(split)
