"""Which published checkpoint weights are, by their name and their shapes."""

import pytest

from bit_keras import registry
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.published import published_checkpoint, published_spec
from bit_keras.preprocessing import spec_of
from bit_keras.registry import ARCHITECTURES

TINY = official_shapes(ARCHITECTURES["bit_tiny"], 10)


@pytest.mark.parametrize(
    "source",
    [
        "bit_tiny.cifar10",
        "weights/bit_tiny.cifar10",
        "weights/bit_tiny.cifar10.npz",
        "weights/bit_tiny.cifar10.safetensors",
        "hf://timm/bit_tiny.cifar10",
    ],
)
def test_weights_are_known_by_their_name(source, monkeypatch):
    if source.startswith("hf://"):
        names = {**registry._names(), "timm/bit_tiny.cifar10": "bit_tiny.cifar10"}
        monkeypatch.setattr(registry, "_names", lambda: names)
    assert published_checkpoint(source, TINY).name == "bit_tiny.cifar10"
    assert published_spec(source, TINY) == spec_of("bit_tiny.cifar10")
    body = official_shapes(ARCHITECTURES["bit_tiny"], None)
    assert published_checkpoint(source, body).name == "bit_tiny.cifar10"
    assert published_spec(source, body) is None


@pytest.mark.parametrize(
    ("source", "shapes"),
    [
        ("weights.npz", TINY),
        ("bit_tiny.cifar10.npz", official_shapes(ARCHITECTURES["bit_tiny"], 7)),
        ("BiT-M-R50x1.npz", TINY),
        ("bit_tiny.cifar10.npz", {"x": (1,)}),
    ],
    ids=["name", "head", "architecture", "another network"],
)
def test_others_are_not(source, shapes):
    assert published_checkpoint(source, shapes) is None
    assert published_spec(source, shapes) is None


def test_a_spec_needs_the_size_of_the_images():
    name = "bit_r50x1.in21k_ft_vtab_svhn_run0"
    shapes = official_shapes(ARCHITECTURES["bit_r50x1"], 10)
    assert published_checkpoint(name, shapes).name == name
    assert published_spec(name, shapes) is None
