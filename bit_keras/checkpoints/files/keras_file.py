"""Keras 3's own format, read without building a model or running code.

A `.keras` file is a zip archive. `config.json` describes the layers, and
`model.weights.h5` contains their variables under numbers: those of the third `Dense` of a
model are in `layers/dense_2/vars` (`keras-team/keras`, saving/saving_lib.py,
`_save_container_state`).
"""

import collections
import dataclasses
import datetime
import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bit_keras.archives import (
    content_start,
    is_archive,
    open_archive,
    read_member,
    verify_member,
)
from bit_keras.atomic import replaced_file
from bit_keras.checkpoints.files.array_file import (
    Arrays,
    BinaryFile,
    ForeignError,
    damage_explained,
)
from bit_keras.checkpoints.files.hdf5_objects import Objects
from bit_keras.documents import MOST_BYTES, parsed

#: The folder of what this package adds (`artifacts/members.py`).
_EXTRA = "assets.extra/"

#: The folder of what layers save besides their weights.
_ASSETS = "assets/"

_METADATA, _CONFIG, _WEIGHTS = "metadata.json", "config.json", "model.weights.h5"

#: Variables by class of the layer, in the order of their numbers, and the argument that
#: may leave one out.
_CONVOLUTION = {"kernel": None, "bias": "use_bias"}
_VARIABLES: Mapping[str, Mapping[str, str | None]] = {
    "BatchNormalization": {
        "gamma": "scale",
        "beta": "center",
        "moving_mean": None,
        "moving_variance": None,
    },
    "Conv2D": _CONVOLUTION,
    "Dense": _CONVOLUTION,
    "GroupNorm": {"gamma": None, "beta": None},
    "StdConv2D": _CONVOLUTION,
}


class KerasArchive(BinaryFile):
    """The variables in a `.keras` file by their place, as `layers/dense_2/vars/0`.

    Args:
        path: The file.

    Attributes:
        config: dict. How Keras describes the model.
        assets: tuple of str. The names of the files that layers read besides their weights,
            such as vocabularies.

    Raises:
        CheckpointError: As `KerasFile`, but for two layers of one name.
    """

    file_format, expected = "keras", "a Keras file"

    def _read_metadata(self) -> None:
        if not is_keras_file(self.path):
            raise ForeignError(
                f"is not a Keras file: it is not a zip archive with {_CONFIG} and {_WEIGHTS}."
            )
        self._zip = open_archive(self._file)
        members = self._zip.namelist()
        self.assets = tuple(
            name for name in members if name.startswith(_ASSETS) and name[-1] != "/"
        )
        described = {
            name: read_member(self._zip, name, MOST_BYTES)
            for name in members
            if name.endswith(".json") and "/" not in name.removeprefix(_EXTRA)
        }
        self.config = parsed(described[_CONFIG], dict[str, Any])
        weights = self._zip.getinfo(_WEIGHTS)
        if weights.compress_type != zipfile.ZIP_STORED:
            raise ForeignError(
                "stores its weights compressed, which Keras does not do; save the model with Keras "
                "again."
            )
        self._start = content_start(self._zip, weights)
        found = Objects(self._file, self._start, weights.file_size).datasets
        for name, path in self._names(found):
            self._add(name, found[path])

    def _names(self, found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """The names of the datasets, each with its place."""
        return ((place, place) for place in found)

    def copy_assets(self, target: zipfile.ZipFile) -> None:
        """Adds the assets to another archive."""
        for name in self.assets:
            with self._zip.open(name) as asset, target.open(name, "w", force_zip64=True) as copy:
                shutil.copyfileobj(asset, copy, 1 << 20)

    def verify(self) -> None:
        """Compares the checksums of weights and assets; opening did that of the configuration."""
        for name in (_WEIGHTS, *self.assets):
            with damage_explained(self.path):
                verify_member(self._zip, self._zip.getinfo(name))


class KerasFile(KerasArchive):
    """The variables in a `.keras` file.

    Those of a layer are named after it, as `head/kernel`, in a model inside of the
    model too; where its class does not say what a number means, the number stays:
    `attention/0`. Variables of no layer keep their place, as `optimizer/vars/0`.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is not a Keras file, is damaged, contains two layers of one
            name, or is not as Keras writes it.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    model.save("tiny.keras")
    with bit_keras.checkpoints.files.KerasFile("tiny.keras") as arrays:
        print(arrays.shapes["head/kernel"])  # (1024, 10)
    ```
    """

    def _names(self, found: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        layers = {layer.place: layer for layer in _layers(self.config, "")}
        numbers = {place: number for number, place in enumerate((*layers, ""))}
        owners = {path: _owner(path, layers) for path in found}
        for path in sorted(found, key=lambda path: numbers[owners[path]]):
            layer = layers.get(owners[path])
            yield (layer.name_of(path) if layer else path), path


def is_keras_file(path: Path) -> bool:
    """Whether a file is one that Keras wrote, by its content; npz files are archives too.

    Raises:
        CheckpointError: It is an archive whose index cannot be read.
    """
    if not is_archive(path):
        return False
    with damage_explained(path), open_archive(path) as archive:
        return {_CONFIG, _WEIGHTS} <= set(archive.namelist())


def write_keras(
    path: str | os.PathLike,
    config: Mapping[str, Any],
    arrays: Arrays,
    members: Mapping[str, str],
) -> None:
    """Writes a `.keras` file one array at a time, without a model that contains them.

    Args:
        path: The file to create or to replace. Written atomically; the disk needs twice its
            size meanwhile.
        config: Mapping. The model, as `keras.saving.serialize_keras_object` gives it.
        arrays: Arrays, by `layer/weight`.
        members: Mapping from name to text. What else to put into the archive.

    Raises:
        BitKerasError: The file cannot be written.
    """
    # Here: whoever only recognises or reads such files needs neither.
    import h5py
    import keras

    with replaced_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        saved = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
        about = {"keras_version": keras.__version__, "date_saved": saved}
        archive.writestr(_METADATA, json.dumps(about))
        archive.writestr(_CONFIG, json.dumps(config))
        # It has no name, and so leaves nothing where the process is killed.
        with tempfile.TemporaryFile(dir=partial.parent) as weights:
            with h5py.File(weights, "w") as file:
                for layer in _layers(config, ""):
                    group = file.create_group(f"{layer.place}/vars")
                    for number, variable in enumerate(layer.variables):
                        group[str(number)] = arrays[f"{layer.name}/{variable}"].astype("float32")
            weights.seek(0)
            with archive.open(_WEIGHTS, "w", force_zip64=True) as member:
                shutil.copyfileobj(weights, member, 1 << 20)
        for name, text in members.items():
            archive.writestr(name, text)


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A layer in the configuration, and the group of its variables."""

    name: str
    place: str
    variables: tuple[str, ...]

    def name_of(self, path: str) -> str:
        """The name of the variable at a path below the layer's group."""
        rest = path.removeprefix(f"{self.place}/")
        named = {f"vars/{number}": name for number, name in enumerate(self.variables)}
        return f"{self.name}/{named.get(rest, rest.removeprefix('vars/'))}"


def _layers(model: Any, place: str) -> Iterator[_Layer]:
    """All layers of a model and of the models inside of it, outer ones first."""
    numbers: collections.Counter[str] = collections.Counter()
    for layer in _config_of(model).get("layers", ()):
        config, class_name = _config_of(layer), layer["class_name"]
        name, group = config.get("name"), _snake_case(class_name)
        if not isinstance(name, str) or not name.isprintable() or "/" in name:
            raise ValueError(f"{name!r} is the name of a layer")
        below = f"{place}layers/{group}" + (f"_{numbers[group]}" if numbers[group] else "")
        numbers[group] += 1
        variables = _VARIABLES.get(class_name, {}).items()
        present = (each for each, option in variables if not option or config.get(option, True))
        yield _Layer(name, below, tuple(present))
        yield from _layers(layer, f"{below}/")


def _config_of(layer: Any) -> dict[str, Any]:
    config = layer.get("config") if isinstance(layer, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("layers", []), list):
        raise ValueError(f"its {_CONFIG} describes no model")
    return config


def _snake_case(name: str) -> str:
    """As Keras makes the names of groups (utils/naming.py, `to_snake_case`)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _owner(path: str, layers: Mapping[str, _Layer]) -> str:
    """The place of the innermost layer around a dataset, empty where there is none."""
    while path and path not in layers:
        path = path.rpartition("/")[0]
    return path
