"""Recognises splits by name, for folders, archives and TensorFlow Datasets."""

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

Role = Literal["train", "validation", "test"]

#: The usual names of splits, in lower case.
SPELLINGS: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training", "trn"),
        "validation": ("validation", "valid", "val", "dev", "development"),
        "test": ("test", "testing", "tst", "eval", "evaluation"),
    }
)

# Common suffixes: `train_set`, `test-images`, COCO's `val2017`.
_SUFFIX = re.compile(r"[\s_.-]*(sets?|data|images|imgs|splits?|\d{4})?$")


def role_of(name: str) -> Role | None:
    """Returns the role of a split with this name, or None if it is not the name of a split.

    Example:

    ```python
    from bit_keras.data.splits import role_of

    role_of("Training"), role_of("VAL"), role_of("test_set"), role_of("cat")
    # ('train', 'validation', 'test', None)
    ```
    """
    bare = _SUFFIX.sub("", name.strip().casefold())
    return next((role for role, names in SPELLINGS.items() if bare in names), None)


def in_order(splits: Iterable[str]) -> tuple[str, ...]:
    """Sorts splits by their role: train, validation, test, others."""
    roles: list[Role | None] = [*SPELLINGS, None]
    return tuple(sorted(splits, key=lambda name: (roles.index(role_of(name)), name)))
