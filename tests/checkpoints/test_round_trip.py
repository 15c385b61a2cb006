"""From format to format and back, at full size: equal to the bit."""

import hashlib
import shutil
import zlib

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.dialects import BIT_PYTORCH, TIMM, bit_tf2_order
from bit_keras.checkpoints.files import Arrays
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.writing import ArraysInDialect, write_checkpoint
from bit_keras.models.builders import network_of_file
from bit_keras.registry import ARCHITECTURES

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="Files are the same on every backend."
    ),
]

# Writing a `.keras` file takes room for two of them, so it comes first, from no file.
GROUP_NORM = ("keras", "npz", "flax", "timm", "transformers", "npz")
BATCH_NORM = ("keras", "npz", "timm", "npz")
#: One of each normalisation; the others have more of the same arrays, up to 3.7 GB of them.
OFTEN = ("bit_tiny", "bit_r50x1", "resnetv2_50")
LARGE = 65_537  # A prime, so that repeated values never align with rows.


class Repeated(Arrays):
    """Cheap values for full shapes: the same random ones, begun elsewhere for each array."""

    def __init__(self, shapes):
        self.shapes = shapes
        self._values = np.random.default_rng(0).standard_normal(LARGE, dtype="float32")

    def __getitem__(self, name):
        shape = self.shapes[name]
        start = zlib.crc32(name.encode()) % LARGE
        return np.resize(np.roll(self._values, start), shape)


def arrays_of(architecture, classes=1000):
    return Repeated(official_shapes(ARCHITECTURES[architecture], classes))


def write(path, arrays, format):
    if format == "keras":
        from bit_keras.exporters.keras_archive import convert_to_keras

        convert_to_keras(path, arrays, path)
    else:
        write_checkpoint(path, arrays, format)


def assert_same(path, arrays):
    with open_checkpoint(path) as found:
        found.verify()
        assert found.shapes == {name: arrays.shapes[name] for name in found}
        assert len(found) == len(arrays)
        for name in arrays:
            assert found[name].tobytes() == arrays[name].tobytes(), name


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=pytest.mark.long if name in OFTEN else pytest.mark.full)
        for name in ARCHITECTURES
    ],
)
def test_a_network_goes_through_all_formats_and_comes_back(architecture, tmp_path):
    arrays = arrays_of(architecture)
    current = tmp_path / "0.npz"
    write(current, arrays, "npz")
    expected = digest_of_removed(current)

    group_norm = ARCHITECTURES[architecture].normalization == "group"
    first, *formats = GROUP_NORM if group_norm else BATCH_NORM
    current = tmp_path / f"1.{first}"
    write(current, arrays, first)
    for number, format in enumerate(formats, 2):
        following = tmp_path / f"{number}.{format}"
        with open_checkpoint(current) as opened:
            write(following, opened, format)
        remove(current)
        current = following
    assert digest_of_removed(current) == expected


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def digest_of_removed(path):
    """Of files of up to 3.7 GB there is room for two."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    path.unlink()
    return digest


@pytest.mark.long
@pytest.mark.parametrize("dialect", [TIMM, BIT_PYTORCH], ids=lambda dialect: dialect.name)
def test_a_pytorch_file_of_full_size_is_read(dialect, tmp_path):
    torch = pytest.importorskip("torch", reason="it writes the file")
    arrays = arrays_of("bit_r50x1", 21843)
    named = ArraysInDialect(arrays, ARCHITECTURES["bit_r50x1"], dialect)
    state = {name: torch.from_numpy(np.ascontiguousarray(named[name])) for name in named}
    torch.save(
        {"step": 3, "model": {f"module.{name}": state[name] for name in state}}, tmp_path / "x"
    )
    assert_same(tmp_path / "x", arrays)


@pytest.mark.long
def test_an_h5_file_of_full_size_is_read(tmp_path):
    import h5py

    arrays = arrays_of("bit_r50x1", 21843)
    shapes = ARCHITECTURES["bit_r50x1"].weight_shapes(21843)
    official = bit_keras.checkpoints.names.official_names(shapes)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("network")
        names = [f"weight_{number}:0" for number, _ in enumerate(shapes)]
        for name, path in zip(names, bit_tf2_order(shapes), strict=True):
            group.create_dataset(name, data=arrays[official[path]].reshape(shapes[path]))
        file.attrs["layer_names"] = [b"network"]
        group.attrs["weight_names"] = [name.encode() for name in names]
    assert_same(tmp_path / "x.h5", arrays)


@pytest.mark.long
def test_a_saved_model_of_full_size_is_read(tmp_path):
    from bit_keras.exporters.hub import export_hub

    arrays = arrays_of("bit_r50x1")
    file = tmp_path / "BiT-M-R50x1-ILSVRC2012.npz"
    write_checkpoint(file, arrays, "npz")
    export_hub(network_of_file(file), tmp_path / "hub")
    assert_same(tmp_path / "hub", arrays)
