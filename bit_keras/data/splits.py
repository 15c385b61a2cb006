"""Recognises splits by name, for folders, archives and TensorFlow Datasets."""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from bit_keras.errors import DataError

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


def split_for(role: Role, splits: Sequence[str], where: str) -> str | None:
    """Returns the split with a role, or None.

    Raises:
        DataError: Several splits have this role.
    """
    found = [name for name in splits if role_of(name) == role]
    if len(found) > 1 and role not in found:
        raise DataError(
            f"{where} has {len(found)} splits for {role}: {', '.join(found)}; rename one of them "
            f"to {role}, merge them, or pass the name of one to the command."
        )
    return role if role in found else next(iter(found), None)


def require_split(split: str | None, splits: Sequence[str], where: str) -> str | None:
    """Returns the matching split of the data, or None if the data has no splits.

    A split matches by its name, ignoring case, or by its role.

    Raises:
        DataError: There is no such split, or the data has splits and none is given.
    """
    if not splits:
        if split is None:
            return None
        raise DataError(
            f"{where} has no splits; omit the split, or arrange the data as "
            f"<split>/<class>/<image>. Received: split={split!r}"
        )
    if split in splits:
        return split
    if split is not None:
        same = [name for name in splits if name.casefold() == split.casefold()]
        role = role_of(split)
        found = same or [name for name in splits if role is not None and role_of(name) == role]
        if len(found) == 1:
            return found[0]
    raise DataError(
        f"{where} has the splits {', '.join(splits)}; choose one of them. Received: split={split!r}"
    )
