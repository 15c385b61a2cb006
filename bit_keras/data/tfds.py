"""Labelled images of TensorFlow Datasets that are prepared on this machine.

Labels are stored in the records, so opening a split reads it once. After that, images
are read by their offset.
"""

import functools
import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_keras.data.data_source import DataSource
from bit_keras.data.images import Images, read_part
from bit_keras.data.splits import in_order
from bit_keras.errors import DataError
from bit_keras.extras import require_extra

if TYPE_CHECKING:
    import tensorflow as tf

#: Prefix of the names of these data sets.
PREFIX = "tfds:"

# A TFRecord: length, its checksum, the data, their checksum (TensorFlow,
# `tensorflow/core/lib/io/record_writer.h`); little-endian.
_LENGTH = struct.Struct("<Q")
_CHECKSUM = 4

# Reads the bytes of a record.
_Record = Callable[[], bytes]


def tfds_source(data: str) -> DataSource:
    """Opens a data set `tfds:name[/config][:version]` that is prepared on this machine."""
    require_extra("tfds", "tensorflow_datasets", purpose=data, error=DataError)
    import tensorflow_datasets

    folder = _prepared_folder(data)
    try:
        info = tensorflow_datasets.builder_from_directory(folder).info
    # The parsers raise many types of exceptions for a damaged description.
    except Exception as error:
        raise _damaged(data, error) from error
    return DataSource(data, in_order(info.splits), functools.partial(_images, info, data), {})


def _images(info: Any, data: str, split: str | None) -> Images:
    """Reads the labels of a split and returns its images."""
    image_key, label_key = _keys(info, data)
    paths = [Path(path) for path in info.splits[split].filepaths]
    try:
        records = list(_records(paths, info.file_format.value, data))
        targets, sizes = np.empty((2, len(records)), np.int64)
        for index, record in enumerate(records):
            features = _features(record)
            targets[index] = features[label_key].int64_list.value[0]
            sizes[index] = len(features[image_key].bytes_list.value[0])
    # Reader and parser raise different exceptions for damaged records.
    except (OSError, ValueError, IndexError, RuntimeError, struct.error) as error:
        raise _damaged(data, error) from error
    if np.any(targets < 0):
        raise DataError(
            f"{np.sum(targets < 0)} of {len(targets)} images of {data}, split {split}, do not "
            f"have a label; choose another of its splits, {', '.join(info.splits)}."
        )
    return Images(
        info.features[label_key].names,
        targets,
        [f"{info.full_name} {split}[{index}]" for index in range(len(records))],
        sizes,
        lambda index: _features(records[index])[image_key].bytes_list.value[0],
    )


def _prepared_folder(data: str) -> Path:
    """Returns the folder `<root>/<name>[/<config>]/<version>`, by default the newest version."""
    root = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets").expanduser()
    name, _, version = data.removeprefix(PREFIX).partition(":")
    if not name:
        raise DataError(f"The name of a data set must be {PREFIX}NAME. Received: {data!r}")
    folder = root / name
    configs = [path.name for path in sorted(folder.glob("*/")) if _versions(path)]
    if not _versions(folder) and len(configs) > 1:
        raise DataError(
            f"{data} has the configurations {', '.join(configs)}; choose one, "
            f"{PREFIX}{name}/CONFIG."
        )
    if not _versions(folder) and configs:
        folder = folder / configs[0]
    versions = _versions(folder)
    if not versions or (version and version not in versions):
        available = f" (available versions: {', '.join(versions)})" if versions else ""
        raise DataError(
            f"The data set {data} is not prepared in {root}{available}; prepare it with "
            f"`tfds build {name}`, or set TFDS_DATA_DIR to its folder. Nothing is downloaded."
        )
    return folder / (version or versions[-1])


def _versions(folder: Path) -> list[str]:
    """Returns the versions that are prepared in a folder, the newest last."""
    found = [path.parent.name for path in folder.glob("*/dataset_info.json")]
    # The folders of interrupted preparations are named `incomplete...`.
    versions = [name for name in found if re.fullmatch(r"\d+\.\d+\.\d+", name)]
    return sorted(versions, key=lambda name: [int(part) for part in name.split(".")])


def _keys(info: Any, data: str) -> tuple[str, str]:
    """Returns the names of the features of the image and of its class."""
    from tensorflow_datasets import features

    types = (features.Image, features.ClassLabel)
    keys = [
        [name for name, feature in info.features.items() if isinstance(feature, feature_type)]
        for feature_type in types
    ]
    supervised = info.supervised_keys
    if supervised and supervised[0] in keys[0] and supervised[1] in keys[1]:
        return supervised[0], supervised[1]
    if [len(found) for found in keys] != [1, 1]:
        raise DataError(
            f"{data} must contain images with one label each. "
            f"Received: features {', '.join(info.features)}"
        )
    return keys[0][0], keys[1][0]


def _records(paths: list[Path], file_format: str, data: str) -> Iterator[_Record]:
    if file_format == "tfrecord":
        for path in paths:
            yield from _tf_records(path)
    elif file_format == "array_record":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        source = ArrayRecordDataSource(paths)
        for index in range(len(source)):
            yield functools.partial(source.__getitem__, index)
    else:
        raise DataError(
            f"{data} is stored as {file_format}; prepare it again as tfrecord or array_record."
        )


def _tf_records(path: Path) -> Iterator[_Record]:
    size = path.stat().st_size
    with path.open("rb") as file:
        while file.tell() < size:
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            start = file.seek(_CHECKSUM, os.SEEK_CUR)
            end = file.seek(length + _CHECKSUM, os.SEEK_CUR)
            if end > size:
                raise ValueError(f"{path.name} ends within a record")
            yield functools.partial(read_part, path, start, length)


def _features(record: _Record) -> "tf.train.Features":
    import tensorflow as tf

    try:
        return tf.train.Example.FromString(record()).features.feature
    # The exceptions are defined in Google's protobuf, which is not a dependency.
    except Exception as error:
        raise OSError(f"a record cannot be parsed ({error})") from error


def _damaged(data: str, error: Exception) -> DataError:
    return DataError(f"{data} is damaged ({error}); prepare it again.")
