"""A small network in files of every format, as others than this package write them."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bit_keras.checkpoints import files
from bit_keras.checkpoints.dialects import (
    BIT_PYTORCH,
    BIT_TF2,
    KERAS,
    OFFICIAL,
    TIMM,
    TRANSFORMERS,
    Dialect,
    bit_tf2_order,
)
from bit_keras.checkpoints.files import ArrayFile, write_keras
from bit_keras.checkpoints.writing import ArraysInDialect
from bit_keras.registry import ARCHITECTURES

#: A network of one channel, so that thousands of files are written in seconds.
THIN = dataclasses.replace(ARCHITECTURES["bit_tiny"], name="bit_thin", base_filters=1, groups=1)

#: Every reader by its format.
READERS = {
    each.file_format: each
    for each in vars(files).values()
    if isinstance(each, type) and issubclass(each, ArrayFile) and hasattr(each, "file_format")
}


def write_npz_file(path, arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def write_safetensors_file(path, arrays):
    library = pytest.importorskip("safetensors.numpy", reason="it writes any arrays")
    library.save_file(arrays, path)


def write_torch_file(path, arrays, as_zip=True):
    torch = pytest.importorskip("torch", reason="it writes the file")
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=as_zip)


def write_torch_stream(path, arrays):
    write_torch_file(path, arrays, as_zip=False)


def write_keras_file(path, arrays):
    layers = {}
    for name in arrays:
        layer, weight = name.rsplit("/", 1)
        layers.setdefault(layer, set()).add(weight)
    described = [
        {
            "class_name": "Conv2D" if "kernel" in weights else "GroupNorm",
            "config": {"name": layer, "use_bias": "bias" in weights},
        }
        for layer, weights in layers.items()
    ]
    config = {"class_name": "Functional", "config": {"name": "thin", "layers": described}}
    write_keras(path, config, arrays, {})


def write_h5_file(path, arrays):
    """What `save_weights` of tf.keras writes, with names that say nothing."""
    with h5py.File(path, "w") as file:
        group = file.create_group("network")
        names = [f"weight_{number}:0" for number in range(len(arrays))]
        for name, array in zip(names, arrays.values(), strict=True):
            group.create_dataset(name, data=array)
        file.attrs["layer_names"] = [b"network"]
        group.attrs["weight_names"] = [name.encode() for name in names]


def write_saved_model(path, arrays):
    tf = pytest.importorskip("tensorflow", reason="it writes the folder")
    variables = [tf.Variable(array, name=name) for name, array in arrays.items()]
    tf.saved_model.save(tf.train.Checkpoint(variables=variables), os.fspath(path))


def write_folder(path, arrays):
    path.mkdir()
    write_safetensors_file(path / "model.safetensors", arrays)
    (path / "config.json").write_text('{"model_type": "bit"}')


def write_older_folder(path, arrays):
    path.mkdir()
    write_torch_file(path / "pytorch_model.bin", arrays)


@dataclasses.dataclass(frozen=True)
class Form:
    """One way in which a network is stored.

    Attributes:
        file_format: str. Of the reader.
        write: Function of a path and the arrays by their names in the dialect.
        dialect: Dialect.
        prefix: str. Of the names.
        files: tuple of str. The files of the arrays, where the checkpoint is a folder; that
            of the values comes first.
        checksums: bool. Whether a changed value is noticed.
    """

    file_format: str
    write: Callable
    dialect: Dialect
    prefix: str = ""
    files: tuple[str, ...] = ("",)
    checksums: bool = True

    def named(self, arrays, architecture=THIN):
        """Arrays by official name under the names in the dialect."""
        named = ArraysInDialect(arrays, architecture, self.dialect, self.prefix)
        paths = named if self.dialect is not BIT_TF2 else bit_tf2_order(named.shapes)
        return {name: np.ascontiguousarray(named[name]) for name in paths}

    def name(self, path):
        """The name of a weight in the file."""
        return f"{self.prefix}{self.dialect.array_name(path)}"

    def file(self, path: Path) -> Path:
        """The file with the values, for the path that is opened."""
        return path / self.files[0]

    def opened_by_reader(self, path: Path) -> Path:
        """What the reader is given: a folder only where the format is one."""
        return path if len(self.files) > 1 else self.file(path)


FORMS = {
    "npz": Form("npz", write_npz_file, OFFICIAL),
    "safetensors": Form("safetensors", write_safetensors_file, TIMM, checksums=False),
    "torch": Form("PyTorch", write_torch_file, BIT_PYTORCH, "module."),
    "torch stream": Form("PyTorch", write_torch_stream, TIMM, "state_dict/", checksums=False),
    "keras": Form("keras", write_keras_file, KERAS),
    "h5": Form("tf.keras h5", write_h5_file, BIT_TF2, checksums=False),
    "SavedModel": Form(
        "SavedModel",
        write_saved_model,
        KERAS,
        files=("variables/variables.data-00000-of-00001", "variables/variables.index"),
    ),
    "transformers": Form(
        "safetensors",
        write_folder,
        TRANSFORMERS,
        files=("model.safetensors",),
        checksums=False,
    ),
    "older transformers": Form(
        "PyTorch", write_older_folder, TRANSFORMERS, files=("pytorch_model.bin",)
    ),
}
