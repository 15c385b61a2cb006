"""Data sets of TensorFlow Datasets that the tests themselves prepare, without a network."""

import shutil
import sys
import warnings

import keras
import numpy as np
import pytest

from bit_keras.data import image_dataset, open_images
from bit_keras.data.datasets import open_data_source
from bit_keras.errors import DataError
from bit_keras.preprocessing import load_image
from bit_keras.training import finetune, load_run

with warnings.catch_warnings():
    # Warnings at the import of other packages.
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra `tfds`")


class Greys(tfds.core.GeneratorBasedBuilder):
    """Grey images whose value is their class times 10 plus their number."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS 4.9 finds it by a package that it does not require.
    code_path = None

    def _features(self):
        return {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["zebra", "ant"]),
        }

    def _info(self):
        features = tfds.features.FeaturesDict(self._features())
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, _):
        return {"train": self._generate_examples(7), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for index in range(count):
            label = index % 2
            image = np.full((40, 36 + index, 3), 10 * label + index, np.uint8)
            yield index, {"image": image, "label": label}


class Boxes(Greys):
    def _features(self):
        return {"label": tfds.features.ClassLabel(names=["zebra", "ant"])}

    def _generate_examples(self, count):
        for index in range(count):
            yield index, {"label": index % 2}


class Unlabelled(Greys):
    def _generate_examples(self, count):
        for key, example in super()._generate_examples(count):
            yield key, example | {"label": -1 if count == 3 else example["label"]}


def prepare(builder, root, file_format="tfrecord"):
    tfds.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builder(data_dir=root, file_format=file_format).download_and_prepare()
    return root


@pytest.fixture(scope="module", params=["tfrecord", "array_record"])
def prepared(request, tmp_path_factory):
    if request.param == "array_record":
        pytest.importorskip("array_record", reason="has no package for this system")
    return prepare(Greys, tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def root(prepared, tmp_path, monkeypatch):
    """A copy of a prepared data set in TFDS_DATA_DIR."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


def test_reads_what_is_prepared(root):
    assert open_data_source("tfds:greys").splits == ("train", "test")
    images = open_images("tfds:greys", "train")
    # The data set's own order of classes, which its labels count in.
    assert images.classes == ("zebra", "ant")
    assert np.bincount(images.targets).tolist() == [4, 3]
    assert images.names[2] == "greys/1.0.0 train[2]"
    photos = [np.asarray(load_image(images[index])) for index in range(7)]
    values = [int(photo[0, 0, 0]) for photo in photos]
    assert sorted(values) == [0, 2, 4, 6, 11, 13, 15]
    assert [value >= 10 for value in values] == images.targets.tolist()
    assert {photo.shape[1] - 36 for photo in photos} == set(range(7))


def test_gives_batches(root):
    ((images, targets),) = image_dataset(
        "tfds:greys", size=32, batch=7, split="train"
    ).as_numpy_iterator()
    values = np.round((images[:, 0, 0, 0] + 1) * 127.5)
    np.testing.assert_array_equal(values >= 10, targets.argmax(axis=1))


@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="One backend compiles it.")
def test_trains_a_network(root, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "greys"
    finetune(
        *("bit_tiny.cifar10", "tfds:greys", run),
        **{"weights": "random", "size": 32, "batch": 4, "steps": 2, "learning_rate": 0.01},
    )
    model, spec = load_run(run)
    assert spec.labels.names == ("zebra", "ant")
    assert model.output_shape == (None, 2)


def test_formats_contain_the_same_images(tmp_path, monkeypatch):
    pytest.importorskip("array_record", reason="has no package for this system")
    fingerprints = set()
    for file_format in ("tfrecord", "array_record"):
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / file_format))
        prepare(Greys, tmp_path / file_format, file_format)
        fingerprints.add(open_images("tfds:greys", "test").fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.parametrize("name", ["greys:1.0.0", "renamed/small", "renamed", "renamed/small:1.0.0"])
def test_versions_and_configurations(root, name):
    shutil.copytree(root / "greys", root / "renamed" / "small")
    assert len(open_images(f"tfds:{name}", "test")) == 3


def test_newest_version_is_taken(root):
    for version in ("1.0.9", "1.0.10", "incomplete.XYZ_1.0.11"):
        shutil.copytree(root / "greys" / "1.0.0", root / "greys" / version)
        description = root / "greys" / version / "dataset_info.json"
        description.write_text(description.read_text().replace("1.0.0", version))
    assert open_images("tfds:greys", "test").names[0].startswith("greys/1.0.10 ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:nothing", "is not prepared in .* prepare it with `tfds build nothing`"),
        ("tfds:greys:2.0.0", r"is not prepared in .* \(available versions: 1.0.0\)"),
        ("tfds:greys/none", "is not prepared in .*`tfds build greys/none`"),
        ("tfds:", "must be tfds:NAME.*'tfds:'"),
    ],
)
@pytest.mark.parametrize("find", [open_images, open_data_source])
def test_what_is_not_prepared_is_not_downloaded(root, find, name, message):
    with pytest.raises(DataError, match=message):
        find(name)


def test_looks_in_the_home_folder_by_default(root, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(root))
    with pytest.raises(DataError, match=f"not prepared in {root}/tensorflow_datasets"):
        open_images("tfds:greys", "test")


def test_configuration_must_be_named_where_there_are_several(root):
    for config in ("large", "small"):
        shutil.copytree(root / "greys", root / "renamed" / config)
    with pytest.raises(
        DataError, match=r"has the configurations large, small; .*tfds:renamed/CONFIG"
    ):
        open_images("tfds:renamed", "test")


def test_unknown_split(root):
    with pytest.raises(DataError, match=r"has the splits train, test; .*split='val'"):
        open_images("tfds:greys", "val")


def test_damaged_records(root):
    (shard,) = (root / "greys" / "1.0.0").glob("*train*")
    content = shard.read_bytes()
    for damaged in (content[:-30], content[: len(content) // 2]):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"tfds:greys is damaged \(.*\); prepare it again"):
            open_images("tfds:greys", "train")


def test_damaged_description(root):
    (root / "greys" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="tfds:greys is damaged"):
        open_images("tfds:greys", "train")


def test_data_without_images_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepare(Boxes, tmp_path)))
    with pytest.raises(DataError, match=r"one label each.*features label"):
        open_images("tfds:boxes", "train")


def test_split_without_labels(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepare(Unlabelled, tmp_path)))
    assert len(open_images("tfds:unlabelled", "train")) == 7
    with pytest.raises(DataError, match=r"3 of 3 images of .*, split test, .*label"):
        open_images("tfds:unlabelled", "test")


def test_missing_package_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"pip install 'bit_keras\[tfds\]'"):
        open_data_source("tfds:greys")
