"""ImageNet ReaL: all the classes that are right for an image of the validation set."""

import re
from collections.abc import Sequence

from bit_keras.errors import BitKerasError
from bit_keras.preprocessing import Labels, load_real_labels

#: The names of the ILSVRC-2012 validation images, counted from 1.
_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.[A-Za-z]+")


def real_labels_of(names: Sequence[str], labels: Labels) -> list[tuple[int, ...]]:
    """The ReaL labels of images, known by their names.

    Args:
        names: sequence of str, such as `"n01440764/ILSVRC2012_val_00000293.JPEG"`.
        labels: Labels. The model's classes.

    Returns:
        One tuple of class indices per image; empty where no class is right.

    Raises:
        BitKerasError: The model's classes are not those of ImageNet-1k, or a
            image is none of the validation set.
    """
    if labels.name != "imagenet_1k":
        raise BitKerasError(
            "ReaL accuracy is defined for the 1,000 classes of ImageNet-1k, and the model's are "
            f"those of {labels.name}; evaluate it without --real."
        )
    real = load_real_labels()
    numbers = [int(match[1]) if (match := _NAME.fullmatch(name)) else 0 for name in names]
    foreign = [
        name for name, number in zip(names, numbers, strict=True) if not 1 <= number <= len(real)
    ]
    if foreign:
        raise BitKerasError(
            f"ReaL labels are known for ILSVRC2012_val_00000001.JPEG to {len(real):08d}, and "
            f"{len(foreign)} of {len(names)} images are called otherwise, such as {foreign[0]}; "
            "evaluate them without --real."
        )
    return [real[number - 1] for number in numbers]
