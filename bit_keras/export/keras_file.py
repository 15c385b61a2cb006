"""Target `keras`: a `.keras` file that knows its labels and its transform."""

import json
import os
import zipfile
from pathlib import Path

import keras

from bit_keras.atomic import replaced_file
from bit_keras.errors import ExportError
from bit_keras.export.task import checked_task
from bit_keras.preprocessing import Task

#: A member that Keras leaves alone: it reads its own by their names (Keras 3.15,
#: `saving/saving_lib.py`).
_MEMBER = "bit_keras.json"


def export_keras(model: keras.Model, path: str | os.PathLike, task: Task | None = None) -> None:
    """Writes a model as a `.keras` file with its labels and transform inside.

    Keras loads the file as any other; `load_predictor` also reads the task.

    Args:
        model: A network of this package.
        path: The file to create or to replace; its name ends in `.keras`. Whole
            or absent.
        task: Task. The labels and the transform of a classifier. Defaults to what
            the registry knows of the model's name.

    Raises:
        ExportError: The name does not end in `.keras`, or the task has another
            number of classes than the model.
        BitKerasError: The file cannot be written.

    Example:

    ```python
    from bit_keras.export.keras_file import export_keras, read_task

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    export_keras(model, "tiny.keras")
    read_task("tiny.keras").labels.name  # 'cifar10'
    ```
    """
    require_keras_name(path)
    task = checked_task(model, task)
    with replaced_file(path) as partial:
        model.save(partial)
        if task is not None:
            with zipfile.ZipFile(partial, "a") as archive:
                archive.writestr(_MEMBER, json.dumps(task.to_json(), indent=2))


def require_keras_name(path: str | os.PathLike) -> None:
    """Raises ExportError where Keras would not write its own format."""
    if Path(path).suffix != ".keras":
        raise ExportError(f"The name of a Keras file ends in .keras; {path} does not.")


def read_task(path: str | os.PathLike) -> Task | None:
    """The task in a `.keras` file, or None in one that Keras wrote alone.

    Raises:
        ExportError: The file is damaged, or no such file.
        BitKerasError: The task was written by another version of bit_keras.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if _MEMBER not in archive.namelist():
                return None
            document = json.loads(archive.read(_MEMBER))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} cannot be read ({error}); it is damaged.") from error
    return Task.from_json(document)
