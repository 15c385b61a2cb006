"""Models from `.keras` files, as strictly as weights are read."""

import copy
import functools
import json
import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from bit_keras.atomic import scratch_directory
from bit_keras.checkpoints.abstract_model import abstract_model
from bit_keras.checkpoints.files import KerasArchive, require_finite
from bit_keras.errors import CheckpointError, reason_of

#: Where Keras has what a model is made of. Its other parts download, read files or start programs.
_MODULES = (
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.models",
    "keras.quantizers",
    "keras.regularizers",
    "keras.src.models",
    "keras.src.ops",
)

#: Layers of Keras that run code from the file, or files that it names.
_UNSAFE = ("FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper", "__lambda__")

#: Entries of a description that are values, not objects with a class.
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")

#: How many times the values in a file a model of its description may have: a LoRA update, for
#: example, is stored as part of its kernel.
_GROWTH = 4


def load_keras_model(
    path: str | os.PathLike, trust: bool = False, allow_nonfinite: bool = False
) -> keras.Model:
    """The model in a `.keras` file, if the file is what Keras wrote.

    `keras.models.load_model` reads damaged weights without an error on Python 3.12 and later,
    and opens HDF5 with a library that some bytes send into an endless loop. This checks all
    checksums, reads the values itself, and lets Keras load a clean copy of them, also from a
    file that is trusted.

    Args:
        path: The file, under any name.
        trust: bool. Take layers that run code from the file, such as `keras.layers.Lambda`, and
            files next to the weights. Defaults to `False`.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model, not compiled.

    Raises:
        CheckpointError: The file is damaged, is not as Keras writes it, has other weights than
            its description, or needs `trust`.

    Example:

    ```python
    from bit_keras.checkpoints import load_keras_model

    bit_keras.create_classifier("bit_tiny.cifar10", weights=None).save("tiny.keras")
    load_keras_model("tiny.keras").output_shape  # (None, 10)
    ```
    """
    with KerasArchive(path) as archive, scratch_directory() as folder:
        archive.verify()
        clean = folder / "model.keras"
        if not trust:
            _require_harmless(archive)
            _require_size(archive)
        _write_clean(archive, clean)
        try:
            model = keras.models.load_model(clean, compile=False, safe_mode=not trust)
        # Keras raises whatever a description without sense brings about; the cause is kept.
        except Exception as error:
            raise _refusal(archive.path, error) from error
        _require_all_used(archive, model)
        if not allow_nonfinite:
            for weight in model.weights:
                array = keras.ops.convert_to_numpy(weight)
                require_finite(archive.path, weight.path, array)
    return model


def _write_clean(archive: KerasArchive, path: Path) -> None:
    """Writes a `.keras` file with the same model, whose HDF5 is our own.

    A check of the original before h5py opens it would not do: the HDF5 library also follows
    what no array needs, such as the list of the gaps between names.
    """
    weights = path.with_name("model.weights.h5")
    with h5py.File(weights, "w") as file:
        for place, array in archive.items():
            file[place] = array
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": keras.__version__}))
        file.writestr("config.json", json.dumps(archive.config))
        file.write(weights, weights.name)
        archive.copy_assets(file)
    weights.unlink()


def _require_harmless(archive: KerasArchive) -> None:
    if archive.assets:
        raise CheckpointError(
            f"{archive.path} contains {archive.assets[0]}, a file that a layer reads besides its "
            "weights. No network of bit_keras has such layers; load it with --trust, in Python "
            "trust=True, if you trust who made it."
        )
    for entry, layer in _objects(archive.config, "the model"):
        class_name, module = entry["class_name"], entry.get("module")
        known = keras.saving.get_registered_object(entry.get("registered_name") or "")
        if not isinstance(class_name, str) or class_name in _UNSAFE:
            raise CheckpointError(
                f"{archive.path} contains {class_name} in {layer}, which runs code from the file. "
                "Load it with --trust, in Python trust=True, if you trust who made it."
            )
        builtin = (class_name, module) == ("function", "builtins") or class_name in _VALUES
        of_keras = module == "keras" or str(module).startswith(_MODULES)
        if not known and not builtin and not (of_keras and class_name != "function"):
            raise CheckpointError(
                f"{archive.path} contains {module}.{class_name} in {layer}, which is not a layer "
                "of Keras or of bit_keras. Load it in Python, after the import of the module that "
                "registers it with keras.saving.register_keras_serializable."
            )


def _objects(config: Any, layer: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Everything with a class in a description, and the layer that it belongs to."""
    if isinstance(config, list):
        for value in config:
            yield from _objects(value, layer)
    elif isinstance(config, dict):
        if "class_name" in config:
            inner = config.get("config")
            if isinstance(inner, dict) and isinstance(inner.get("name"), str):
                layer = f"the layer {inner['name']!r}"
            yield config, layer
        for key, value in config.items():
            if key != "compile_config":  # Nothing of it is built.
                yield from _objects(value, layer)


def _require_size(archive: KerasArchive) -> None:
    """Raises where the description makes more weights than the file has, before they exist."""
    # Keras takes the description apart as it reads it.
    config = copy.deepcopy({**archive.config, "compile_config": None})
    try:
        model = abstract_model(
            functools.partial(keras.saving.deserialize_keras_object, config), _own_objects(config)
        )
    except Exception as error:
        raise _refusal(archive.path, error) from error
    if not isinstance(model, keras.Model):
        raise CheckpointError(f"{archive.path} cannot be loaded by Keras (it describes no model).")
    described = sum(math.prod(variable.shape) for variable in model.variables)
    stored = sum(math.prod(shape) for shape in archive.shapes.values())
    if described > _GROWTH * stored:
        raise CheckpointError(
            f"{archive.path} describes a model of {described:,} weights and contains {stored:,}; "
            "save the model with Keras again."
        )


def _own_objects(config: dict[str, Any]) -> dict[str, Any]:
    """The registered objects that a description names, those of a scope of this thread too."""
    entries = [entry for entry, _ in _objects(config, "the model")]
    names = {entry.get(key) for entry in entries for key in ("registered_name", "class_name")}
    found = {name: keras.saving.get_registered_object(name) for name in names if name}
    return {name: each for name, each in found.items() if each is not None}


def _require_all_used(archive: KerasArchive, model: keras.Model) -> None:
    used = 0
    for layer in model._flatten_layers():
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        used += len(store)
    used += sum(each.path.endswith("/seed_generator_state") for each in model.variables)
    found = [place for place in archive if not place.startswith("optimizer/")]
    if len(found) > used:
        raise CheckpointError(
            f"{archive.path} contains {len(found)} arrays and its model takes {used}; save the "
            "model with Keras again."
        )


def _refusal(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} cannot be loaded by Keras ({reason_of(error)}).")
