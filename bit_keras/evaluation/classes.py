"""Matches the classes of the data with the classes of the model."""

from collections.abc import Iterable, Sequence

import numpy as np

from bit_keras.data.layout import same_name
from bit_keras.errors import UnknownLabelsError
from bit_keras.preprocessing import Labels

#: Maximum number of classes that an error message lists.
_SHOWN = 10


def match_classes(classes: Sequence[str], labels: Labels) -> np.ndarray:
    """Finds the model's class for each class of the data.

    A class matches by its id or label, apart from the Unicode form (NFC or NFD).
    Otherwise it matches by its label, ignoring case and with `_` and `-` as spaces, and
    for ImageNet by one of the comma-separated names in the label if no other class has
    it. The data may contain only some of the model's classes.

    Args:
        classes: sequence of str. Names of the data's classes, for example of its
            folders.
        labels: Labels. The model's classes.

    Returns:
        int64 array `(len(classes),)`: indices into `labels`, all different.

    Raises:
        UnknownLabelsError: The model does not have some of the classes, a name
            matches several of its classes, or two names match the same class.

    Example:

    ```python
    from bit_keras.evaluation.classes import match_classes

    labels = bit_keras.preprocessing.load_labels("imagenet_1k")
    match_classes(["n01440764", "tabby_cat"], labels).tolist()  # [0, 281]
    ```
    """
    ids: dict[str, set[int]] = {}
    for index, class_id in enumerate(labels.ids):
        ids.setdefault(same_name(class_id), set()).add(index)
    exact, loose = _names(labels)
    found = {
        name: ids.get(same_name(name))
        or exact.get(same_name(name))
        or loose.get(_loosened(name), set())
        for name in classes
    }
    _require_known([name for name in classes if not found[name]], len(classes), labels)
    for name, indices in found.items():
        if len(indices) > 1:
            raise UnknownLabelsError(
                f"The data's class {name!r} may be {' or '.join(_described(labels, indices))}; "
                "rename it to the id."
            )
    matched = [next(iter(found[name])) for name in classes]
    _require_different(classes, matched, labels)
    return np.array(matched, np.int64)


def _names(labels: Labels) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Returns the classes that each name matches: exactly, and loosely."""
    exact: dict[str, set[int]] = {}
    loose: dict[str, set[int]] = {}
    for index, label in enumerate(labels.names):
        # Even whole labels are not unique: ImageNet-1k has two cranes.
        exact.setdefault(same_name(label), set()).add(index)
        # Only WordNet's labels are lists of names; in others, a comma may be part of the name.
        names = [label, *label.split(", ")] if labels.name.startswith("imagenet") else [label]
        for name in names:
            loose.setdefault(_loosened(name), set()).add(index)
    return exact, loose


def _loosened(name: str) -> str:
    return same_name(name).lower().replace("_", " ").replace("-", " ").strip()


def _require_known(unknown: Sequence[str], count: int, labels: Labels) -> None:
    if unknown:
        has = _shortened(_described(labels, range(len(labels))))
        raise UnknownLabelsError(
            f"The model does not have {len(unknown)} of the data's {count} classes: "
            f"{_shortened([repr(name) for name in unknown])}. It has {len(labels)}: {has}. "
            "Name the class folders by the model's ids or labels."
        )


def _require_different(classes: Sequence[str], matched: Sequence[int], labels: Labels) -> None:
    first: dict[int, str] = {}
    for name, index in zip(classes, matched, strict=True):
        if index in first:
            (described,) = _described(labels, [index])
            raise UnknownLabelsError(
                f"The data's classes {first[index]!r} and {name!r} are one class of the model, "
                f"{described}; put their images into one folder."
            )
        first[index] = name


def _described(labels: Labels, indices: Iterable[int]) -> list[str]:
    return [
        labels.names[index]
        if labels.names[index] == labels.ids[index]
        else f"{labels.ids[index]} ({labels.names[index]})"
        for index in sorted(indices)
    ]


def _shortened(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
