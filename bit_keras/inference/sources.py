"""From what a user names to a network: a model name, a run, a file."""

import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from bit_keras.errors import BitKerasError, UnknownModelError
from bit_keras.preprocessing import Task
from bit_keras.registry import CHECKPOINTS, model_info

if TYPE_CHECKING:
    import keras


def load_network(source: str | os.PathLike) -> tuple["keras.Model", Task | None]:
    """The network that a user names, and the task that is stored with it.

    Args:
        source: A model name or alias, the folder of a fine-tuning run, a `.keras`
            file, or an official npz file.

    Returns:
        keras.Model with its weights, and its Task; None where the source stores
        none, and the registry knows it by the model's name.

    Raises:
        UnknownModelError: Neither a path nor a model name.
        BitKerasError: It cannot be read, or no Keras model can be had from it.

    Example:

    ```python
    from bit_keras.export.keras_file import export_keras

    export_keras(bit_keras.create_classifier("bit_tiny.cifar10", weights=None), "tiny.keras")
    model, task = bit_keras.inference.load_network("tiny.keras")
    model.name, task.labels.name  # ('bit_tiny.cifar10', 'cifar10')
    ```
    """
    path = Path(source)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_keras_file(path) if is_keras_file(path) else (_from_npz(path), None)
    if path.suffix in (".keras", ".npz") and str(source) not in CHECKPOINTS:
        raise BitKerasError(f"There is no file {path}.")
    try:
        checkpoint = model_info(os.fspath(source))
    except UnknownModelError as error:
        raise UnknownModelError(f"{error} Nor is there an artifact of that name.") from None

    from bit_keras.models import create_classifier

    return create_classifier(checkpoint.name), None


def is_saved_model(path: Path) -> bool:
    """Whether it is a folder that holds no run, and so an artifact or nothing we know."""
    if not path.is_dir():
        return False

    from bit_keras.training import is_run

    return not is_run(path)


def _from_folder(path: Path) -> tuple["keras.Model", Task]:
    from bit_keras.training import load_run

    if is_saved_model(path):
        raise BitKerasError(
            f"{path} is no folder of a fine-tuning run, and no Keras model can be had from a "
            "SavedModel; give what it was exported from."
        )
    return load_run(path)


def _from_npz(path: Path) -> "keras.Model":
    from bit_keras.models import network_of_file

    return network_of_file(path)


def is_keras_file(path: Path) -> bool:
    """Whether it is a file that Keras wrote, by its content; npz files are archives too."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "config.json" in archive.namelist()


def _from_keras_file(path: Path) -> tuple["keras.Model", Task | None]:
    import keras

    from bit_keras.export.keras_file import read_task

    try:
        model = keras.models.load_model(path, compile=False)
    # Keras raises whatever the damage brings about; the cause is kept.
    except Exception as error:
        raise BitKerasError(f"{path} cannot be loaded by Keras ({error}).") from error
    return model, read_task(path)
