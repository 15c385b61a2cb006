"""Training logs: CSV, plot, TensorBoard, progress bar."""

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.progress
import tensorflow as tf

from bit_keras.atomic import replaced_file
from bit_keras.progress import console

#: The values of one validation by name. Without validation images, their values are None.
Row = dict[str, Any]
Rows = Sequence[Row]


def write_history(path: Path, rows: Rows) -> None:
    """Writes the validations as CSV, one per line."""
    with (
        replaced_file(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_curve(path: Path, rows: Rows, title: str) -> None:
    """Plots loss, accuracy and learning rate over the steps, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    loss, accuracy, rate = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (3, 3, 1)}
    )
    steps = [row["step"] for row in rows]
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        axes.plot(steps, [row[quantity] for row in rows], marker=".", label="training")
        validation = [row[f"validation_{quantity}"] for row in rows]
        if None not in validation:
            axes.plot(steps, validation, marker=".", label="validation")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    rate.plot(steps, [row["learning_rate"] for row in rows], marker=".", color="grey")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("step")
    rate.grid(alpha=0.3)
    loss.set_title(title, parse_math=False)
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=100)


class TensorBoardLogs:
    """TensorBoard event files, rewritten by every process to agree with the checkpoint."""

    def __init__(self, path: Path, rows: Rows) -> None:
        shutil.rmtree(path, ignore_errors=True)
        with tf.device("CPU"):
            self._writer = tf.summary.create_file_writer(str(path))
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        with self._writer.as_default(step=int(row["step"])):
            for name, value in row.items():
                if name != "step" and value is not None:
                    tf.summary.scalar(name.replace("validation_", "validation/"), value)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class LiveProgress(rich.progress.Progress):
    """Progress bar on standard error: step, loss, accuracy, images per second, time left."""

    def __init__(self, start: int, steps: int) -> None:
        super().__init__(
            rich.progress.TextColumn("step {task.completed:,.0f}/{task.total:,.0f}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=console(),
            disable=not console().is_terminal,
        )
        self._training = self.add_task("", completed=start, total=steps)

    def show(self, step: int, loss: float, accuracy: float, speed: float) -> None:
        description = f"loss {loss:.3f}, accuracy {accuracy:.3f}, {speed:,.0f} images/s"
        self.update(self._training, completed=step, description=description)
