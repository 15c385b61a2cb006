"""Folder names meet the classes of a model."""

import pytest

from bit_keras.errors import UnknownLabelsError
from bit_keras.evaluation.classes import match_classes
from bit_keras.preprocessing import Labels, load_labels

IMAGENET = load_labels("imagenet_1k")


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("n01440764", 0),
        ("tench, Tinca tinca", 0),
        ("tench", 0),
        ("Tinca tinca", 0),
        ("tinca_tinca", 0),
        ("great_white_shark", 2),
        ("Great-White-Shark", 2),
        # One class is called so, another is "maillot, tank suit".
        ("maillot", 638),
    ],
)
def test_ids_labels_and_single_names_are_known(name, index):
    assert match_classes([name], IMAGENET).tolist() == [index]


def test_an_exact_name_goes_before_a_generous_reading():
    labels = Labels("pets", ("a", "b"), ("Cat", "cat"))
    assert match_classes(["cat", "a"], labels).tolist() == [1, 0]


def test_a_comma_belongs_to_the_label_elsewhere():
    labels = Labels("signs", ("0", "1"), ("stop, now", "go"))
    assert match_classes(["Stop,_now"], labels).tolist() == [0]
    with pytest.raises(UnknownLabelsError):
        match_classes(["stop"], labels)


def test_names_of_several_classes_are_refused():
    with pytest.raises(UnknownLabelsError, match=r"may be n02012849 \(crane\) or n03126707 .* id"):
        match_classes(["crane"], IMAGENET)


def test_two_names_for_one_class_are_refused():
    with pytest.raises(
        UnknownLabelsError, match=r"'tench' and 'n01440764' are one class .* folder"
    ):
        match_classes(["tench", "n01440764"], IMAGENET)


def test_unknown_classes_are_listed_with_those_there_are():
    with pytest.raises(UnknownLabelsError) as caught:
        match_classes(["cat", "unicorn", "griffin"], load_labels("cifar10"))
    assert str(caught.value) == (
        "The model does not have 2 of the data's 3 classes: 'unicorn', 'griffin'. It has 10: "
        "airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck. "
        "Name the class folders by the model's ids or labels."
    )
    with pytest.raises(
        UnknownLabelsError, match=r"n01440764 \(tench, Tinca tinca\).* and 990 more"
    ):
        match_classes([f"unicorn {index}" for index in range(12)], IMAGENET)
