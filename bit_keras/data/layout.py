"""Class folders: what the paths of a folder or of an archive say about splits and classes."""

import dataclasses
import functools
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bit_keras.data.listing import File, Listing, log_left_out, shown
from bit_keras.data.recognition import TEXT, why_not_an_image
from bit_keras.data.splits import in_order, role_of
from bit_keras.errors import DataError

_EXPECTED = "images are stored in one folder per class, <class>/<image>, or <split>/<class>/<image>"

#: What file systems and other programs leave, besides what is hidden by a point.
_JUNK_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_JUNK = frozenset((*_JUNK_FOLDERS, "Thumbs.db", "ehthumbs.db", "desktop.ini"))


@dataclasses.dataclass(frozen=True)
class Lost:
    """A class folder in which no file is an image.

    Attributes:
        name: str. The class.
        count: int. How many files it contains.
        example: str. The first of them.
        reason: str. Why that one is not an image.
    """

    name: str
    count: int
    example: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which of the files are images, of which split and class.

    Attributes:
        splits: tuple of str. The folders above the class folders, or `()`.
        classes: tuple of str. Class names, sorted; the same for all splits.
        images: dict from a split, or None where there are none, to (file, target) pairs,
            sorted by path.
        lost: dict from a split to its class folders without an image.
    """

    splits: tuple[str, ...]
    classes: tuple[str, ...]
    images: Mapping[str | None, Sequence[tuple[File, int]]]
    lost: Mapping[str | None, Sequence[Lost]]


def layout_of(listing: Listing) -> Layout:
    """Finds splits, classes and images, and logs what is left out.

    Raises:
        DataError: There are no images, some are outside class folders, folders may be splits
            as well as classes, a name is not UTF-8, or one file is in two classes.
    """
    where = listing.where
    files = [file for file in listing.files if not is_hidden(file.path)]
    left_out = [entry for entry in listing.left_out if not is_hidden(entry[0])]
    if not files and not left_out:
        raise DataError(f"{where} is empty; {_EXPECTED}.")
    images = []
    for file in files:
        reason = why_not_an_image(*file[:2], functools.partial(listing.read, file.path))
        if reason is None:
            images.append(file)
        else:
            left_out.append((file.path, reason))
    if not images:
        path, reason = left_out[0]
        raise DataError(
            f"{where} contains {len(left_out)} files and not a single image (the first is "
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
    log_left_out(where, sorted([*left_out, *outside, *repeated]))
    classes = tuple(sorted(set(spelled.values())))
    number = {name: index for index, name in enumerate(classes)}
    parts: dict[str | None, list] = defaultdict(list)
    for split, name, file in kept:
        parts[split].append((file, number[name]))
    for part in parts.values():
        part.sort(key=lambda entry: entry[0].path)
    return Layout(splits, classes, parts, _lost(left_out, parts, classes, splits))


def is_hidden(path: str) -> bool:
    """Whether a path is hidden, or is what an operating system leaves in folders."""
    return any(part.startswith(".") or part in _JUNK for part in path.split("/"))


def same_name(name: str) -> str:
    """A name for comparisons: macOS spells `é` with two characters (NFD), others with one."""
    return unicodedata.normalize("NFC", name)


def _part(path: str, depth: int) -> str:
    return path.split("/", depth + 1)[depth]


# Splits


def _splits(images: Sequence[File], where: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The folders that are splits, and why images in some other folders are left out."""
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
            "same names without being called like a split; rename or move it."
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
    """The folders with images directly in them, and the subfolders of the other ones."""
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
    """Raises where folders that would be taken for classes are splits, or may be."""
    if len({role_of(top) for top in named}) > 1 and not unknown:
        raise DataError(
            f"{where} has the splits {_list(in_order(named))}, and their images are not in class "
            "folders; arrange them as <split>/<class>/<image>."
        )
    if len(unknown) == 1 and not direct and len(below[unknown[0]]) > 1:
        (top,) = unknown
        if all(role_of(name) for name in below[top]):
            raise DataError(
                f"{where} contains nothing but {shown(top)}, with the splits "
                f"{_list(in_order(below[top]))}; pass {where}/{shown(top)}."
            )
    seen: dict[str, str] = {}
    for top in sorted(below.keys() - direct):
        for name in sorted(below[top]):
            if seen.setdefault(name, top) != top:
                raise DataError(
                    f"In {where}, the folders {_list((seen[name], top))} may be splits or classes: "
                    f"both contain a folder {shown(name)}. Call splits train, val and test; put "
                    "the images of classes directly into their folders."
                )


# Classes


def _spellings(found: Iterable[tuple[str | None, str]], where: str) -> dict[str, str]:
    """The class of each class folder: one for all spellings of a name in Unicode.

    Raises:
        DataError: A name is not UTF-8, or splits spell a class in different case.
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
    places: dict[str, set[str | None]] = defaultdict(set)
    for folder in sorted(splits_of):
        name = next((known for known in places if same_name(known) == same_name(folder)), folder)
        spelled[folder] = name
        places[name] |= splits_of[folder]
    first: dict[str, str] = {}
    for name in places:
        other = first.setdefault(same_name(name).casefold(), name)
        # In one split, both may be meant: there are data sets of letters, with `A` and `a`.
        if other != name and not places[other] & places[name]:
            raise DataError(
                f"The class folders {_list((other, name))} in {where} differ in nothing but their "
                f"case, in different splits; rename one of them."
            )
    return spelled


def _each_once(
    placed: Sequence[tuple[str | None, str, File]], where: str
) -> tuple[list[tuple[str | None, str, File]], list[tuple[str, str]]]:
    """The images without further paths of the same file in a split; and those, with reasons.

    Raises:
        DataError: One file is in the folders of two classes.
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
                repeated.append((file.path, "another path of a file that counts already"))
                continue
            once.add((split, file.origin))
        kept.append((split, name, file))
    return kept, repeated


def _lost(
    left_out: Iterable[tuple[str, str]],
    parts: Mapping[str | None, Sequence[tuple[File, int]]],
    classes: Sequence[str],
    splits: Sequence[str],
) -> dict[str | None, list[Lost]]:
    """The class folders without an image, by split."""
    depth = 1 if splits else 0
    entries: dict[tuple[str | None, str], list[tuple[str, str]]] = defaultdict(list)
    for path, reason in left_out:
        parents = path.split("/")
        if len(parents) > depth + 1 and (not splits or parents[0] in splits):
            key = (parents[0] if splits else None, same_name(parents[depth]))
            entries[key].append((path, reason))
    present = {
        (split, same_name(classes[target])) for split, part in parts.items() for _, target in part
    }
    lost: dict[str | None, list[Lost]] = defaultdict(list)
    for (split, name), found in sorted(entries.items(), key=lambda entry: entry[0][1]):
        # A folder of nothing but texts (`docs/`, annotations) is not meant as a class.
        meant = [entry for entry in found if entry[1] != TEXT]
        if (split, name) not in present and meant:
            path, reason = meant[0]
            lost[split].append(Lost(shown(name), len(found), shown(path), reason))
    return lost


def _list(names: Iterable[str]) -> str:
    return " and ".join(shown(name) for name in names)
