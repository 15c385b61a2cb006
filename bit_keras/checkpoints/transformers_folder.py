"""The folder of a transformers model: its configuration next to its weights."""

import json
import os
from pathlib import Path
from typing import Any

from bit_keras.atomic import new_directory
from bit_keras.checkpoints.files import Arrays, damage_explained, write_safetensors
from bit_keras.documents import read_document
from bit_keras.errors import CheckpointError
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import RGB, Architecture

CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"

#: The files of weights that a folder may have; of more than one, the first is taken.
WEIGHTS_FILES = (WEIGHTS, "pytorch_model.bin")

#: What the shapes of the weights do not tell, with the only values that are BiT
#: (transformers 5, `models/bit/configuration_bit.py`).
_SETTINGS = {
    "layer_type": "preactivation",
    "hidden_act": "relu",
    "global_padding": None,
    "embedding_dynamic_padding": False,
    "output_stride": 32,
}

#: Pillow's numbers.
_RESAMPLE = {"bilinear": 2, "bicubic": 3, "area": 4}


def require_same_network(folder: Path, architecture: Architecture | None) -> None:
    """Raises where the configuration in a folder is that of another network than BiT.

    Args:
        folder: Path. Without a configuration of transformers nothing is compared.
        architecture: Architecture. What the weights are, or None.

    Raises:
        CheckpointError: The configuration is damaged, or makes another network of the
            same weights.
    """
    path = folder / CONFIG
    if not path.is_file():
        return
    with damage_explained(path):
        config = read_document(path, dict[str, Any])
    if config.get("model_type") != "bit":
        return  # timm's, which has no settings that its weights do not tell.
    groups = architecture.groups if architecture else 32
    for key, value in {**_SETTINGS, "num_groups": groups}.items():
        if config.get(key, value) != value:
            raise CheckpointError(
                f"{path} says {key}={config[key]!r}, and BiT has {value!r}: with these weights it "
                "is another network."
            )


def write_transformers(
    path: str | os.PathLike,
    arrays: Arrays,
    architecture: Architecture,
    classes: int | None,
    dtype: str = "float32",
    spec: ClassifierSpec | None = None,
) -> None:
    """Writes a folder that `BitForImageClassification.from_pretrained` loads.

    Args:
        path: The folder to create; it must not exist. Written atomically.
        arrays: Arrays, by transformers' names.
        architecture: Architecture.
        classes: int. Width of the head; `None` makes a `BitModel`, without one.
        dtype: str. Of the weights. Defaults to `"float32"`.
        spec: ClassifierSpec. Its labels and its transform are written too.

    Raises:
        BitKerasError: The folder exists, or cannot be written.
    """
    with new_directory(path) as folder:
        write_safetensors(folder / WEIGHTS, arrays, dtype)
        _write_json(folder / CONFIG, _configuration(architecture, classes, dtype, spec))
        if spec is not None:
            _write_json(folder / PROCESSOR, _processor(spec))


def _configuration(
    architecture: Architecture, classes: int | None, dtype: str, spec: ClassifierSpec | None
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["BitModel" if classes is None else "BitForImageClassification"],
        "model_type": "bit",
        "num_channels": RGB,
        # Their `width_factor` leaves the root, the last norm and the head at width 1.
        "embedding_size": architecture.stem_filters,
        "hidden_sizes": [architecture.block_filters(block) for block in (1, 2, 3, 4)],
        "depths": list(architecture.units),
        "width_factor": 1,
        "num_groups": architecture.groups,
        "drop_path_rate": 0.0,
        "dtype": dtype,
        **_SETTINGS,
    }
    if classes is not None:
        names = spec.labels.names if spec else [f"LABEL_{index}" for index in range(classes)]
        config["id2label"] = {str(index): name for index, name in enumerate(names)}
        config["label2id"] = {name: index for index, name in enumerate(names)}
        config["problem_type"] = (
            "multi_label_classification"
            if spec and spec.activation == "sigmoid"
            else "single_label_classification"
        )
    return config


def _processor(spec: ClassifierSpec) -> dict[str, Any]:
    transform = spec.transform
    side, resizing = transform.resizing.side, transform.resizing
    squash = resizing.mode == "squash"
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side} if squash else {"shortest_edge": side},
        "resample": _RESAMPLE[resizing.interpolation],
        "do_center_crop": True,
        "crop_size": {"height": transform.size, "width": transform.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * RGB,
        "image_std": [0.5] * RGB,
    }


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
