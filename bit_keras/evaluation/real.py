"""ImageNet ReaL: all correct classes of each image of the validation set."""

import re
from collections.abc import Sequence

from bit_keras.errors import BitKerasError
from bit_keras.preprocessing import Labels
from bit_keras.preprocessing.labels import load_real_labels

#: The names of the ILSVRC-2012 validation images, counted from 1.
_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.[A-Za-z]+")


def real_labels_of(names: Sequence[str], labels: Labels) -> list[tuple[int, ...]]:
    """Returns the ReaL labels of images by their names.

    Args:
        names: sequence of str, such as `"n01440764/ILSVRC2012_val_00000293.JPEG"`.
        labels: Labels. The model's classes.

    Returns:
        list with a tuple of class indices per image, empty if all classes are wrong.

    Raises:
        BitKerasError: The model's classes are not those of ImageNet-1k, or an
            image is not in the validation set.
    """
    if labels.name != "imagenet_1k":
        raise BitKerasError(
            "ReaL accuracy is defined only for the classes of imagenet_1k; evaluate this model "
            f"without --real. Received: a model with the classes of {labels.name}"
        )
    real = load_real_labels()
    numbers = [int(match[1]) if (match := _NAME.fullmatch(name)) else 0 for name in names]
    foreign = [
        name for name, number in zip(names, numbers, strict=True) if not 1 <= number <= len(real)
    ]
    if foreign:
        raise BitKerasError(
            f"ReaL accuracy needs images named ILSVRC2012_val_00000001.JPEG to {len(real):08d}; "
            f"evaluate other images without --real. Received: {len(foreign)} of {len(names)} "
            f"images with other names, such as {foreign[0]}"
        )
    return [real[number - 1] for number in numbers]
