"""The class lists that the heads were trained on."""

import dataclasses
import functools
import importlib.resources
import json
from collections import Counter
from collections.abc import Sequence

from bit_keras.errors import BitKerasError, UnknownLabelsError
from bit_keras.registry import Checkpoint

#: The packaged lists; their files and origins are in `class_lists/README.md`.
LISTS = ("imagenet_1k", "imagenet_21k", "cifar10")

_FOLDER = "class_lists"
_LEMMAS = "wordnet_lemmas.txt"
_REAL = "imagenet_real_labels.json"


@dataclasses.dataclass(frozen=True)
class Labels:
    """The classes of a head, in the order of its logits.

    `labels.ids[i]` and `labels.names[i]` belong to logit `i`; `len(labels)` is
    the width of the head.

    Args:
        name: str. What the list is called, for example `"imagenet_1k"`.
        ids: tuple of str. Stable identifiers: WordNet ids for ImageNet.
        names: tuple of str. What a person reads, for example `"tench, Tinca tinca"`.

    Raises:
        ValueError: `ids` and `names` differ in length.

    Example:

    ```python
    labels = bit_keras.preprocessing.Labels("pets", ("0", "1"), ("cat", "dog"))
    len(labels)  # 2
    ```
    """

    name: str
    # Left out of the representation: 21,843 entries hide everything around them.
    ids: tuple[str, ...] = dataclasses.field(repr=False)
    names: tuple[str, ...] = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(
                f"A class has one id and one name; {self.name!r} has "
                f"{len(self.ids)} ids and {len(self.names)} names."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def indices_of(self, ids: Sequence[str]) -> list[int]:
        """The logits that some classes have.

        Args:
            ids: sequence of str. One or more of `self.ids`, in any order.

        Returns:
            list of int, in the order of `ids`.

        Raises:
            BitKerasError: There is no id, one comes twice, or is not among these.
        """
        if isinstance(ids, str | int) or len(ids) == 0:
            raise BitKerasError(
                f"Classes are selected by a list of ids of {self.name}, at least one, such as "
                f"{[self.ids[0]]}. Received: {ids!r}"
            )
        index = {own: number for number, own in enumerate(self.ids)}
        unknown = [id for id in ids if id not in index]
        if unknown:
            raise BitKerasError(
                f"{len(unknown)} of the {len(ids)} classes requested are not among the "
                f"{len(self)} classes of {self.name} ({_shortened(unknown)}); leave them out."
            )
        repeated = [id for id, count in Counter(ids).items() if count > 1]
        if repeated:
            raise BitKerasError(
                f"{len(repeated)} of the classes requested come more than once "
                f"({_shortened(repeated)}); a head has each class once."
            )
        return [index[id] for id in ids]

    def select(self, ids: Sequence[str]) -> "Labels":
        """The classes of a head that was cut down to some of these.

        Args:
            ids: sequence of str. One or more of `self.ids`, in any order.

        Returns:
            Labels, in the order of `ids`.

        Raises:
            BitKerasError: There is no id, one comes twice, or is not among these.

        Example:

        ```python
        labels = bit_keras.preprocessing.load_labels("cifar10").select(["dog", "cat"])
        labels.name, labels.names  # ('2 of cifar10', ('dog', 'cat'))
        ```
        """
        indices = self.indices_of(ids)
        return Labels(
            f"{len(indices)} of {self.name}",
            tuple(self.ids[index] for index in indices),
            tuple(self.names[index] for index in indices),
        )


@functools.cache
def load_labels(list_name: str) -> Labels:
    """Reads a packaged class list, once per process.

    The ImageNet names are WordNet's complete lemma strings: all synonyms, comma
    separated, since a single lemma is ambiguous (`"crane"` is two classes).

    Args:
        list_name: str. `"imagenet_1k"` (1,000 classes), `"imagenet_21k"`
            (21,843) or `"cifar10"` (10, whose ids are the names).

    Returns:
        Labels, in the order of the heads of the released weights.

    Raises:
        UnknownLabelsError: There is no such list.

    Example:

    ```python
    labels = bit_keras.preprocessing.load_labels("imagenet_1k")
    labels.ids[0], labels.names[0]  # ('n01440764', 'tench, Tinca tinca')
    ```

    Reference:
        The ids and lemmas of timm 1.0.31, `timm/data/_info`; lemmas from
        [WordNet](https://wordnet.princeton.edu).
    """
    if list_name not in LISTS:
        raise UnknownLabelsError(
            f"There is no class list {list_name!r}; the packaged ones are {', '.join(LISTS)}."
        )
    ids = tuple(_read_lines(f"{list_name}.txt"))
    if list_name.startswith("imagenet"):
        lemmas = dict(line.split("\t") for line in _read_lines(_LEMMAS))
        return Labels(list_name, ids, tuple(lemmas[synset] for synset in ids))
    return Labels(list_name, ids, ids)


def class_list_of(checkpoint: Checkpoint) -> Labels:
    """The published class list of a checkpoint.

    Raises:
        UnknownLabelsError: There is none.
    """
    if checkpoint.labels is None:
        raise UnknownLabelsError(
            f"{checkpoint.name} was published without a class list, so its classes have no ids to "
            "be selected by."
        )
    return load_labels(checkpoint.labels)


def labels_of(checkpoint: Checkpoint, classes: int | Sequence[str] | None = None) -> Labels:
    """The classes of a checkpoint's head, numbered where nobody has named them.

    Args:
        checkpoint: Checkpoint.
        classes: int. Width of the head, where it is known to be another: its
            classes are not the published ones. Or the ids that the head was cut
            down to, in their order.

    Raises:
        UnknownLabelsError: Ids are given, and there is no published list.
        BitKerasError: There is no id, one comes twice, or is not in the list.
    """
    if isinstance(classes, Sequence):
        return class_list_of(checkpoint).select(classes)
    if checkpoint.labels is not None and classes in (None, checkpoint.classes):
        return load_labels(checkpoint.labels)
    return numbered_labels(checkpoint.name, classes or checkpoint.classes)


def numbered_labels(name: str, classes: int) -> Labels:
    """Labels `class_0`, `class_1`, ... for a head whose classes nobody has named."""
    numbered = tuple(f"class_{index}" for index in range(classes))
    return Labels(name, numbered, numbered)


@functools.cache
def load_real_labels() -> tuple[tuple[int, ...], ...]:
    """The ReaL labels of the ImageNet validation set: all the classes that are right.

    Returns:
        50,000 tuples of indices of `"imagenet_1k"`. Entry `i` belongs to the
        image `ILSVRC2012_val_{i+1:08d}.JPEG`; 3,163 are empty, and their
        images are excluded from averages.

    Example:

    ```python
    from bit_keras.preprocessing.labels import load_real_labels

    real = load_real_labels()
    len(real), real[3]  # (50000, (809,))
    ```

    Reference:
        [Beyer et al., 2020](https://arxiv.org/abs/2006.07159).
    """
    return tuple(tuple(indices) for indices in json.loads(_read(_REAL)))


def _shortened(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return ", ".join(map(str, ids[:3])) + more


def _read_lines(file: str) -> list[str]:
    return _read(file).splitlines()


def _read(file: str) -> str:
    folder = importlib.resources.files("bit_keras.preprocessing")
    return folder.joinpath(_FOLDER, file).read_text("utf-8")
