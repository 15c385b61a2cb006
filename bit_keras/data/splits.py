"""The names of splits: one function decides, for folders, archives and TensorFlow Datasets."""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from bit_keras.errors import DataError

Role = Literal["train", "validation", "test"]

#: The usual names of splits, whatever their case.
SPELLINGS: Mapping[Role, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("train", "training", "trn"),
        "validation": ("validation", "valid", "val", "dev", "development"),
        "test": ("test", "testing", "tst", "eval", "evaluation"),
    }
)

# What is often appended to them: `train_set`, `test-images`, COCO's `val2017`.
_SUFFIX = re.compile(r"[\s_.-]*(sets?|data|images|imgs|splits?|\d{4})?$")


def role_of(name: str) -> Role | None:
    """What a split of this name is used for; None for a name that is not one of a split.

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
    """Splits sorted by their role: train, validation, test, then others."""
    roles: list[Role | None] = [*SPELLINGS, None]
    return tuple(sorted(splits, key=lambda name: (roles.index(role_of(name)), name)))


def split_for(role: Role, splits: Sequence[str], where: str) -> str | None:
    """The split that has a role, or None where there is none.

    Raises:
        DataError: Several have it.
    """
    found = [name for name in splits if role_of(name) == role]
    if len(found) > 1 and role not in found:
        raise DataError(
            f"{where} has {len(found)} splits for {role}: {', '.join(found)}; merge or rename "
            f"them, so that one is called {role}, or name one where a command takes a split."
        )
    return role if role in found else next(iter(found), None)


def require_split(split: str | None, splits: Sequence[str], where: str) -> str | None:
    """The split that is meant, as the data spell it, or None where they have no splits.

    A split is found by its name, whatever the case, or by another name of its role.

    Raises:
        DataError: It is not one of the splits, none was named, or there are no splits.
    """
    if not splits:
        if split is None:
            return None
        raise DataError(
            f"{where} has no splits, and {split!r} was requested; omit the split, or arrange the "
            "data as <split>/<class>/<image>."
        )
    if split in splits:
        return split
    if split is not None:
        same = [name for name in splits if name.casefold() == split.casefold()]
        role = role_of(split)
        found = same or [name for name in splits if role is not None and role_of(name) == role]
        if len(found) == 1:
            return found[0]
    received = "none was named" if split is None else f"{split!r} was requested"
    raise DataError(
        f"{where} has the splits {', '.join(splits)}, and {received}; name one of them."
    )
