"""What a user may name as weights."""

import pytest

from bit_keras.checkpoints import official_shapes, weights_path
from bit_keras.checkpoints.sources import published_checkpoint, published_spec
from bit_keras.errors import CheckpointError, DownloadError, UnknownModelError
from bit_keras.preprocessing import spec_of
from bit_keras.registry import ARCHITECTURES

TINY = official_shapes(ARCHITECTURES["bit_tiny"], 10)


def test_what_exists_is_taken_as_it_is(tiny_file, tmp_path, monkeypatch):
    assert weights_path(tiny_file) == tiny_file
    assert weights_path(str(tmp_path)) == tmp_path
    # Even where it has the name of something else.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm" / "x").mkdir(parents=True)
    (tmp_path / "bit_tiny.cifar10").write_bytes(b"")
    assert weights_path("timm/x").is_dir()
    assert weights_path("bit_tiny.cifar10").stat().st_size == 0


@pytest.mark.parametrize("name", ["bit_tiny.cifar10", "BIT_TINY.cifar10"])
def test_a_model_name_is_its_published_file(name):
    assert weights_path(name).name == "bit_tiny.cifar10.npz"
    assert weights_path(name).is_file()


@pytest.mark.parametrize(
    "name", ["BiT-M-R50x1", "BiT-M-R50x1.npz", "https://tfhub.dev/google/bit/m-r50x1/1"]
)
def test_every_alias_is_one_too(tmp_path, name, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    (tmp_path / "BiT-M-R50x1.npz").write_bytes(b"")
    assert weights_path(name) == tmp_path / "BiT-M-R50x1.npz"


def test_weights_of_a_repository_may_lie_in_a_folder_too(tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    file = tmp_path / "resnetv2_101.a1h_in1k" / "model.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert weights_path("resnetv2_101.a1h_in1k") == file


@pytest.mark.parametrize(
    "name", ["no.npz", "no.Safetensors", "no.pth", "no.keras", "weights/no", "./no", "/no/where"]
)
def test_a_file_that_is_not_there_is_named(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as raised:
        weights_path(name)
    assert str(raised.value).startswith("There is no file ")
    assert name.removeprefix("./") in str(raised.value)


@pytest.mark.parametrize("name", ["bit_r50x1.in21", "https://tfhub.dev/google/bit/m-r51x1/1"])
def test_what_is_nothing_gets_the_nearest_names(name):
    with pytest.raises(UnknownModelError) as raised:
        weights_path(name)
    assert f"There is no model {name!r}. The nearest are " in str(raised.value)
    assert str(raised.value).endswith(" Nor is there a file of that name.")


def test_an_architecture_alone_is_not_enough():
    with pytest.raises(UnknownModelError, match="is an architecture"):
        weights_path("bit_r50x1")


def test_a_repository_without_an_owner_is_refused():
    with pytest.raises(DownloadError, match="write hf://OWNER/NAME"):
        weights_path("hf://bit")


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
        aliases = {"timm/bit_tiny.cifar10": "bit_tiny.cifar10"}
        monkeypatch.setattr("bit_keras.registry._aliases", lambda: aliases)
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
    ids=["name", "head", "architecture", "no network"],
)
def test_others_are_not(source, shapes):
    assert published_checkpoint(source, shapes) is None
    assert published_spec(source, shapes) is None


def test_a_task_needs_the_size_of_the_images():
    name = "bit_r50x1.in21k_ft_vtab_svhn_run0"
    shapes = official_shapes(ARCHITECTURES["bit_r50x1"], 10)
    assert published_checkpoint(name, shapes).name == name
    assert published_spec(name, shapes) is None
