"""The class lists that the heads were trained on."""

import dataclasses
import functools
import importlib.resources

from bit_keras.errors import UnknownLabelsError

#: The packaged lists; their files and origins are in `class_lists/README.md`.
LISTS = ("imagenet_1k", "imagenet_21k", "cifar10")

_FOLDER = "class_lists"
_LEMMAS = "wordnet_lemmas.txt"


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
                f"A class has one id and one name; {self.name!r} came with "
                f"{len(self.ids)} ids and {len(self.names)} names."
            )

    def __len__(self) -> int:
        return len(self.ids)


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


def _read_lines(file: str) -> list[str]:
    folder = importlib.resources.files("bit_keras.preprocessing")
    return folder.joinpath(_FOLDER, file).read_text("utf-8").splitlines()
