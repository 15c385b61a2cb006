"""The folder of a training: what it was asked, where it stands, what came out."""

import contextlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np

import bit_keras
from bit_keras.atomic import new_directory, replaced_file
from bit_keras.checkpoints import load_weights
from bit_keras.errors import TrainingError, reason_of
from bit_keras.models import create_classifier
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.sources import RUN_IDENTITY, RUN_RECORD, RUN_WEIGHTS, read_run

CHECKPOINT, LAST = "checkpoint.npz", "last.npz"
HISTORY, CURVE, LOGS = "history.csv", "curve.png", "logs"

#: What may differ: the same images may have moved to another path, and a sentence may change.
_DESCRIPTIONS = (("data", "path"), ("data", "validation_from"))


def load_run(
    path: str | os.PathLike, allow_nonfinite: bool = False
) -> tuple[keras.Model, ClassifierSpec]:
    """The network that a training made, with the weights of its best validation.

    Args:
        path: The folder that `bit-keras finetune` wrote.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model, from float32 images `(batch, height, width, 3)` in [-1, 1] to
        logits `(batch, classes)`, and its ClassifierSpec: labels and transform.

    Raises:
        TrainingError: The path is not a run, is damaged, or has no weights yet.
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
            f"{path} has no {RUN_WEIGHTS} yet: the training was stopped before its first "
            "validation. Run the same `bit-keras finetune` command again; it continues where it "
            "stopped."
        )
    model = create_classifier(document["model"], weights=None, num_classes=len(spec.labels))
    load_weights(model, path / RUN_WEIGHTS, allow_nonfinite)
    return model, spec


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Replaces run.json."""
    with replaced_file(path / RUN_RECORD) as partial:
        partial.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


def environment() -> dict[str, str]:
    """The versions that a training ran with."""
    backend = keras.backend.backend()
    return {
        "bit_keras": bit_keras.__version__,
        "keras": keras.__version__,
        backend: importlib.metadata.version(backend),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def require_usable(path: Path, document: dict[str, Any]) -> None:
    """Raises unless `path` is free, or this same training, begun before; nothing is changed.

    Raises:
        TrainingError: It is something else.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / RUN_RECORD).is_file():
        raise TrainingError(
            f"{path} exists and is not a run of `bit-keras finetune`; choose another --out."
        )
    differences = list(_differences(read_run(path), _as_json(document)))
    if differences:
        raise TrainingError(
            f"{path} contains a training that was started with different options, and nothing was "
            "changed: "
            f"{'; '.join(differences)}. Use the same options to resume it, or another --out."
        )


@contextlib.contextmanager
def claimed(path: Path, document: dict[str, Any]) -> Iterator[None]:
    """Makes the folder where it is missing, and keeps other processes out of it.

    Raises:
        TrainingError: Another process trains there.
        BitKerasError: The folder cannot be written.
    """
    if not (path / RUN_RECORD).is_file():
        with new_directory(path) as partial:
            write_document(partial, document)
    lock = filelock.FileLock(path / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrainingError(
            f"Another process is training in {path}; wait for it, stop it, or choose another --out."
        ) from None
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({reason_of(error)}).") from error
    try:
        yield
    finally:
        lock.release()


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


def _as_json(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it comes back from a file: lists for tuples."""
    return json.loads(json.dumps(document))
