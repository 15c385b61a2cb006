"""Finds splits, classes and images by the paths in a folder or an archive."""

import functools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from bit_keras.data.data_source import DataSource, UnreadableClass
from bit_keras.data.images import Images
from bit_keras.data.listing import File, Listing, log_skipped, shown
from bit_keras.data.recognition import TEXT, why_not_an_image
from bit_keras.data.splits import in_order, role_of
from bit_keras.errors import DataError

_EXPECTED = "images must be in one folder per class, <class>/<image> or <split>/<class>/<image>"

#: Files and folders of file systems and other programs that do not start with a dot.
_JUNK_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_JUNK = frozenset((*_JUNK_FOLDERS, "Thumbs.db", "ehthumbs.db", "desktop.ini"))


def labelled(listing: Listing) -> DataSource:
    """Finds splits, classes and images, and logs skipped files.

    The classes are the sorted names of the class folders, the same for all splits.

    Raises:
        DataError: There are no images, images are outside class folders, folders may be
            splits or classes, a name is not UTF-8, or a file is in two classes.
    """
    where = listing.where
    files = [file for file in listing.files if not is_hidden(file.path)]
    skipped = [entry for entry in listing.skipped if not is_hidden(entry[0])]
    if not files and not skipped:
        raise DataError(f"{where} is empty; {_EXPECTED}.")
    images = []
    for file in files:
        reason = why_not_an_image(*file[:2], functools.partial(listing.read, file.path))
        if reason is None:
            images.append(file)
        else:
            skipped.append((file.path, reason))
    if not images:
        path, reason = skipped[0]
        raise DataError(
            f"{where} contains {len(skipped)} files, but 0 images (the first file is "
            f"{shown(path)}: {reason}); {_EXPECTED}."
        )
    splits, foreign = _splits(images, where)
    depth = 1 if splits else 0
    outside = [(f.path, foreign[_part(f.path, 0)]) for f in images if _part(f.path, 0) in foreign]
    images = [file for file in images if _part(file.path, 0) not in foreign]
    loose = [file.path for file in images if file.path.count("/") <= depth]
    if loose:
        raise DataError(
            f"{where} contains {len(loose)} images outside of class folders, such as "
            f"{shown(loose[0])}; {_EXPECTED}."
        )
    placed = [(_part(f.path, 0) if splits else None, _part(f.path, depth), f) for f in images]
    spelled = _spellings([(split, folder) for split, folder, _ in placed], where)
    placed = [(split, spelled[folder], file) for split, folder, file in placed]
    kept, repeated = _each_once(placed, where)
    log_skipped(where, sorted([*skipped, *outside, *repeated]))
    classes = tuple(sorted(set(spelled.values())))
    number = {name: index for index, name in enumerate(classes)}
    parts: dict[str | None, list[tuple[File, int]]] = defaultdict(list)
    for split, name, file in sorted(kept, key=lambda entry: entry[2].path):
        parts[split].append((file, number[name]))
    unreadable = _unreadable_classes(skipped, kept, splits)
    return DataSource(
        where, splits, lambda split: _images(listing, classes, parts.get(split, [])), unreadable
    )


def _images(
    listing: Listing, classes: Sequence[str], entries: Sequence[tuple[File, int]]
) -> Images:
    return Images(
        classes,
        np.array([target for _, target in entries]),
        [shown(file.path) for file, _ in entries],
        np.array([file.size for file, _ in entries]),
        # At most the listed size, because some system files are endless.
        lambda index: listing.read(*entries[index][0][:2]),
    )


def is_hidden(path: str) -> bool:
    """Whether a path is hidden or belongs to an operating system."""
    return any(part.startswith(".") or part in _JUNK for part in path.split("/"))


def same_name(name: str) -> str:
    """Normalises a name for comparison: macOS writes `é` as two characters (NFD)."""
    return unicodedata.normalize("NFC", name)


def _part(path: str, depth: int) -> str:
    return path.split("/", depth + 1)[depth]


# Splits


def _splits(images: Sequence[File], where: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the folders that are splits, and the other folders with the reason to skip them."""
    direct, below = _shape(images)
    tops = sorted(direct | below.keys())
    named = [top for top in tops if role_of(top)]
    unknown = [top for top in tops if not role_of(top)]
    splits = in_order(top for top in named if top in below)
    if not splits:
        _require_no_splits(direct, below, named, unknown, where)
        return (), {}
    shared = set().union(*(below[split] for split in splits))
    alike = [top for top in unknown if below.get(top, set()) & shared]
    if alike:
        raise DataError(
            f"{where} has the splits {_list(splits)}, and {_list(alike)} contains folders of the "
            "same names, but its name is not that of a split; rename or move it."
        )
    if unknown and len(named) == 1:
        raise DataError(
            f"In {where}, {_list(splits)} may be a split or a class next to {_list(unknown)}; if "
            f"it is a split, move {_list(unknown)} elsewhere, else rename {_list(splits)}."
        )
    foreign = dict.fromkeys(unknown, "in a folder next to the splits")
    unlabelled = {top: "of a split without class folders" for top in named if top not in below}
    return splits, foreign | unlabelled


def _shape(images: Iterable[File]) -> tuple[set[str], dict[str, set[str]]]:
    """Returns the folders that contain images directly, and the subfolders of the others."""
    direct: set[str] = set()
    below: dict[str, set[str]] = defaultdict(set)
    for file in images:
        top, *rest = file.path.split("/", 2)
        if len(rest) == 2:
            below[top].add(same_name(rest[0]))
        elif rest:
            direct.add(top)
    return direct, dict(below)


def _require_no_splits(
    direct: set[str],
    below: Mapping[str, set[str]],
    named: Sequence[str],
    unknown: Sequence[str],
    where: str,
) -> None:
    """Raises an error if folders that would be read as classes are or may be splits."""
    if len({role_of(top) for top in named}) > 1 and not unknown:
        raise DataError(
            f"{where} has the splits {_list(in_order(named))}, and their images are not in class "
            "folders; arrange them as <split>/<class>/<image>."
        )
    if len(unknown) == 1 and not direct and len(below[unknown[0]]) > 1:
        (top,) = unknown
        if all(role_of(name) for name in below[top]):
            raise DataError(
                f"{where} contains only {shown(top)}, with the splits "
                f"{_list(in_order(below[top]))}; pass {where}/{shown(top)}."
            )
    seen: dict[str, str] = {}
    for top in sorted(below.keys() - direct):
        for name in sorted(below[top]):
            if seen.setdefault(name, top) != top:
                raise DataError(
                    f"In {where}, the folders {_list((seen[name], top))} may be splits or classes: "
                    f"both contain a folder {shown(name)}. Name splits train, val and test, or put "
                    "images directly into the folders of their classes."
                )


# Classes


def _spellings(found: Iterable[tuple[str | None, str]], where: str) -> dict[str, str]:
    """Returns the class of each class folder, the same for all Unicode forms of a name.

    Raises:
        DataError: A name is not UTF-8, or differs only by case between splits.
    """
    splits_of: dict[str, set[str | None]] = defaultdict(set)
    for split, folder in found:
        splits_of[folder].add(split)
    broken = [folder for folder in splits_of if shown(folder) != folder]
    if broken:
        raise DataError(
            f"The name of the class folder {shown(broken[0])} in {where} is not UTF-8; rename it."
        )
    spelled: dict[str, str] = {}
    known: dict[str, str] = {}
    places: dict[str, set[str | None]] = defaultdict(set)
    for folder in sorted(splits_of):
        spelled[folder] = known.setdefault(same_name(folder), folder)
        places[spelled[folder]] |= splits_of[folder]
    first: dict[str, str] = {}
    for name in places:
        other = first.setdefault(same_name(name).casefold(), name)
        # Within a split, both can be classes: data sets of letters have `A` and `a`.
        if other != name and not places[other] & places[name]:
            raise DataError(
                f"The class folders {_list((other, name))} in different splits of {where} differ "
                "only by case; rename one of them."
            )
    return spelled


def _each_once(
    placed: Sequence[tuple[str | None, str, File]], where: str
) -> tuple[list[tuple[str | None, str, File]], list[tuple[str, str]]]:
    """Returns one path of each file in a split, and the other paths with the reason to skip them.

    Raises:
        DataError: A file is in the folders of two classes.
    """
    first: dict = {}
    once: set = set()
    kept, repeated = [], []
    for split, name, file in placed:
        if file.origin is not None:
            other_name, other = first.setdefault(file.origin, (name, file.path))
            if other_name != name:
                raise DataError(
                    f"In {where}, {shown(other)} and {shown(file.path)} are one file, by a link, "
                    "in the folders of two classes; remove one of them."
                )
            if (split, file.origin) in once:
                repeated.append((file.path, "another path of a file that is already included"))
                continue
            once.add((split, file.origin))
        kept.append((split, name, file))
    return kept, repeated


def _unreadable_classes(
    skipped: Iterable[tuple[str, str]],
    kept: Iterable[tuple[str | None, str, File]],
    splits: Sequence[str],
) -> dict[str | None, list[UnreadableClass]]:
    """Returns the class folders without an image, by split."""
    depth = 1 if splits else 0
    entries: dict[tuple[str | None, str], list[tuple[str, str]]] = defaultdict(list)
    for path, reason in skipped:
        parents = path.split("/")
        if len(parents) > depth + 1 and (not splits or parents[0] in splits):
            key = (parents[0] if splits else None, same_name(parents[depth]))
            entries[key].append((path, reason))
    present = {(split, same_name(name)) for split, name, _ in kept}
    unreadable: dict[str | None, list[UnreadableClass]] = defaultdict(list)
    for (split, name), found in sorted(entries.items(), key=lambda entry: entry[0][1]):
        # A folder that contains only texts (`docs/`, annotations) is not a class.
        others = [entry for entry in found if entry[1] != TEXT]
        if (split, name) not in present and others:
            path, reason = others[0]
            unreadable[split].append(UnreadableClass(shown(name), len(found), shown(path), reason))
    return unreadable


def _list(names: Iterable[str]) -> str:
    return " and ".join(shown(name) for name in names)
