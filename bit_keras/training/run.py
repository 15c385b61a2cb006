"""The folder of a training: options, state and results."""

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import bit_keras
from bit_keras.atomic import locked_folder, new_directory, replaced_file, require_own
from bit_keras.checkpoints import load_weights
from bit_keras.errors import TrainingError
from bit_keras.models import create_classifier
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.sources import RUN_IDENTITY, RUN_RECORD, RUN_WEIGHTS, read_run

CHECKPOINT, LAST = "checkpoint.npz", "last.npz"
HISTORY, CURVE, LOGS = "history.csv", "curve.png", "logs"

#: Values of a run that may differ to resume it: the path of the images, and explanations.
_DESCRIPTIONS = (("data", "path"), ("data", "validation_from"), ("rule", "reasons"))


def load_run(
    path: str | os.PathLike, allow_nonfinite: bool = False
) -> tuple[keras.Model, ClassifierSpec]:
    """Loads the fine-tuned network of a run, with its best weights.

    Args:
        path: The folder that `finetune` wrote.
        allow_nonfinite: bool. Accept weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        tuple of a keras.Model, from float32 images `(batch, height, width, 3)` in [-1, 1]
        to logits `(batch, classes)`, and its ClassifierSpec: labels and transform.

    Raises:
        TrainingError: The path is not a run, is damaged, or does not contain weights yet.
        CheckpointError: The weights are damaged.

    Example:

    ```python
    images = np.zeros((8, 32, 32, 3), "uint8")
    images[::2] = 255
    labels = ["white", "black"] * 4
    bit_keras.training.finetune(
        "bit_tiny.cifar10", (images, labels), "run", weights="random", size=32, steps=2, batch=4
    )
    model, spec = bit_keras.training.load_run("run")
    spec.labels.names  # ('black', 'white')
    ```
    """
    path = Path(path)
    document = read_run(path)
    spec = ClassifierSpec.from_json(document.get("task", {}))
    if not (path / RUN_WEIGHTS).is_file():
        raise TrainingError(
            f"{path} does not contain {RUN_WEIGHTS} yet: the training was stopped before its first "
            "validation. Run the same `bit-keras finetune` command again to resume it."
        )
    model = create_classifier(document["model"], weights=None, num_classes=len(spec.labels))
    load_weights(model, path / RUN_WEIGHTS, allow_nonfinite)
    return model, spec


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Replaces run.json."""
    with replaced_file(path / RUN_RECORD) as partial:
        partial.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def environment() -> dict[str, str]:
    """Returns the versions of the packages and of Python."""
    backend = keras.backend.backend()
    return {
        "bit_keras": bit_keras.__version__,
        "keras": keras.__version__,
        backend: importlib.metadata.version(backend),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


@contextlib.contextmanager
def claimed(path: Path, document: dict[str, Any]) -> Iterator[None]:
    """Creates the folder of a training, or continues it, and locks it against other processes.

    Raises:
        TrainingError: The path contains something else or another training, or another process
            uses it.
        BitKerasError: The folder cannot be written.
    """
    require_own(path, RUN_RECORD, "a run of `bit-keras finetune`", TrainingError)
    if (path / RUN_RECORD).exists():
        differences = list(_differences(read_run(path), json.loads(json.dumps(document))))
        if differences:
            raise TrainingError(
                f"{path} contains a training that was started with different options: "
                f"{'; '.join(differences)}. Use the same options to resume it, or another --out."
            )
    else:
        if path.exists() and any(path.iterdir()):  # Hidden files, which `require_own` ignores.
            raise TrainingError(
                f"{path} contains hidden files and is not a run of `bit-keras finetune`; choose "
                "another --out."
            )
        with new_directory(path) as partial:
            write_document(partial, document)
    busy = f"Another process is training in {path}; wait for it, stop it, or choose another --out."
    with locked_folder(path, busy, TrainingError):
        yield


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for section in RUN_IDENTITY:
        old, new = before[section], now[section]
        if not isinstance(old, dict) or not isinstance(new, dict):
            if old != new:
                yield f"{section} was {old} and is {new}"
            continue
        for key in sorted(old.keys() | new.keys()):
            if (section, key) not in _DESCRIPTIONS and old.get(key) != new.get(key):
                yield f"{section} {key} was {_short(old.get(key))} and is {_short(new.get(key))}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
