"""The packaged class lists: complete, in order, and as wide as the heads."""

import hashlib
import importlib.resources
import re

import pytest

from bit_keras.errors import BitKerasError, UnknownLabelsError
from bit_keras.preprocessing import Labels, load_labels
from bit_keras.registry import CHECKPOINTS

FOLDER = importlib.resources.files("bit_keras.preprocessing") / "class_lists"


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        (
            "imagenet_1k",
            1000,
            ("n01440764", "tench, Tinca tinca"),
            ("n15075141", "toilet tissue, toilet paper, bathroom tissue"),
        ),
        ("imagenet_21k", 21843, ("n00004475", "organism, being"), ("n15102894", "knothole")),
        ("cifar10", 10, ("airplane", "airplane"), ("truck", "truck")),
    ],
)
def test_length_and_ends(name, count, first, last):
    labels = load_labels(name)
    assert (labels.name, len(labels)) == (name, count)
    assert (labels.ids[0], labels.names[0]) == first
    assert (labels.ids[-1], labels.names[-1]) == last
    assert len(set(labels.ids)) == count
    assert all(labels.names)


def test_landmarks_inside_the_lists():
    one_k, all_21k = load_labels("imagenet_1k"), load_labels("imagenet_21k")
    assert (one_k.ids[850], one_k.names[850]) == ("n04399382", "teddy, teddy bear")
    assert one_k.names[281] == "tabby, tabby cat"
    assert (all_21k.ids[359], all_21k.names[359]) == ("n01440764", "tench, Tinca tinca")
    assert all_21k.ids[368] == "n01443537"
    assert load_labels("cifar10").ids[3] == "cat"


def test_imagenet_lists_are_sorted_and_share_999_classes():
    one_k, all_21k = load_labels("imagenet_1k").ids, load_labels("imagenet_21k").ids
    assert list(one_k) == sorted(one_k)
    assert list(all_21k) == sorted(all_21k)
    assert set(one_k) - set(all_21k) == {"n04399382"}


@pytest.mark.parametrize(
    "checkpoint", [c for c in CHECKPOINTS.values() if c.labels], ids=lambda c: c.name
)
def test_every_list_is_as_wide_as_its_head(checkpoint):
    assert len(load_labels(checkpoint.labels)) == checkpoint.classes


def test_files_have_the_digests_that_their_readme_states():
    table = dict(
        re.findall(
            r"^\| `(\S+)` \|.*`([0-9a-f]{64})` \|$", (FOLDER / "README.md").read_text(), re.M
        )
    )
    digests = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in FOLDER.iterdir()
        if file.suffix in (".txt", ".json")
    }
    assert digests == table
    # The digests of timm 1.0.31's files.
    assert digests["imagenet_1k.txt"].startswith("70002b0ff5de60a3")
    assert digests["imagenet_21k.txt"].startswith("66362bdedf36d933")
    assert digests["wordnet_lemmas.txt"].startswith("1b8babda187421a4")


def test_lists_are_read_once():
    assert load_labels("imagenet_21k") is load_labels("imagenet_21k")


def test_representation_stays_short():
    assert repr(load_labels("imagenet_21k")) == "Labels(name='imagenet_21k')"


def test_unknown_list():
    with pytest.raises(
        UnknownLabelsError, match=r"'imagenet'; .* imagenet_1k, imagenet_21k"
    ) as error:
        load_labels("imagenet")
    assert isinstance(error.value, BitKerasError)


def test_ids_and_names_must_match():
    with pytest.raises(ValueError, match="2 ids and 1 names"):
        Labels("pets", ("0", "1"), ("cat",))


def test_classes_are_selected_in_the_requested_order():
    selected = load_labels("imagenet_21k").select(["n01443537", "n01440764"])
    assert selected.name == "2 of imagenet_21k"
    assert selected.ids == ("n01443537", "n01440764")
    assert selected.names == ("goldfish, Carassius auratus", "tench, Tinca tinca")
    assert load_labels("imagenet_21k").indices_of(selected.ids) == [368, 359]
