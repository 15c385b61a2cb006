"""The state of a training in one file, written atomically."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bit_keras.atomic import replaced_file
from bit_keras.checkpoints.files import NpzFile
from bit_keras.checkpoints.transfer import ModelArrays
from bit_keras.documents import parsed
from bit_keras.errors import TrainingError

_PROGRESS = "progress"
_WEIGHTS = "weights/"
_OPTIMIZER = "optimizer/"


@dataclasses.dataclass
class Progress:
    """The progress of a training, without weights and optimizer variables.

    Attributes:
        step: int. Number of completed steps.
        rows: list of dict. One entry per validation, in order.
        best_step: int. Step of the best validation so far; 0 before the first.
        seconds: float. Duration over all processes.
        loss_sum, accuracy_sum: float. Sums over the steps since the last validation.
        summed_steps: int. Number of these steps.
        unreadable: dict from image to reason.
    """

    step: int = 0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    summed_steps: int = 0
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best validation."""
        return next((row for row in self.rows if row["step"] == self.best_step), None)

    def validations_since_best(self) -> int:
        return sum(row["step"] > self.best_step for row in self.rows)


def save_state(
    path: Path,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    progress: Progress,
) -> None:
    """Writes the state to resume a training from, unless a weight is not finite.

    Raises:
        FloatingPointError: A weight is infinite or not a number; the file is not changed.
        BitKerasError: The file cannot be written.
    """
    arrays = {f"{_WEIGHTS}{name}": array for name, array in ModelArrays(model).items()}
    for index, variable in enumerate(optimizer.variables):
        arrays[f"{_OPTIMIZER}{index:04d}"] = keras.ops.convert_to_numpy(variable)
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise FloatingPointError(f"{broken[0]} contains values that are not finite")
    document = json.dumps(dataclasses.asdict(progress)).encode()
    arrays[_PROGRESS] = np.frombuffer(document, np.uint8)
    with replaced_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_state(path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Progress:
    """Loads the state of `save_state` into a network and its optimizer.

    Raises:
        TrainingError: The file is damaged or does not fit.
    """
    target = ModelArrays(model)
    variables = {f"{_OPTIMIZER}{i:04d}": each for i, each in enumerate(optimizer.variables)}
    shapes = {
        **{f"{_WEIGHTS}{name}": shape for name, shape in target.shapes.items()},
        **{name: tuple(variable.shape) for name, variable in variables.items()},
    }
    try:
        with NpzFile(path) as file:
            file.verify()
            arrays = dict(file)
        progress = parsed(bytes(arrays[_PROGRESS]), Progress)
        for name, shape in shapes.items():
            if arrays[name].shape != shape:
                raise ValueError(f"{name!r} has the shape {arrays[name].shape} instead of {shape}")
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{path} is damaged, so the training cannot resume from it ({error}). Weights in "
            f"best.npz and last.npz are still usable; remove {path.name} to start again, or "
            "choose another --out."
        ) from error
    for name in target:
        target.assign(name, arrays[f"{_WEIGHTS}{name}"])
    for name, variable in variables.items():
        variable.assign(arrays[name])
    return progress
