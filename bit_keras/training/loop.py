"""The training loop, with validation, checkpoints and logs."""

import contextlib
import dataclasses
import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bit_keras.checkpoints import save_weights
from bit_keras.data import Images
from bit_keras.data.pipeline import eval_pipeline, require_readable, train_pipeline
from bit_keras.errors import TrainingError
from bit_keras.layers.moments import Tensor
from bit_keras.preprocessing import EvalTransform, TrainTransform
from bit_keras.rules import Rule, RuleSchedule
from bit_keras.sources import RUN_WEIGHTS
from bit_keras.training import run
from bit_keras.training.records import LiveProgress, TensorBoardLogs, draw_curve, write_history
from bit_keras.training.state import Progress, load_state, save_state

_logger = logging.getLogger("bit_keras")

#: Number of validations in a training.
VALIDATIONS = 10

#: Seconds between two checkpoints; at least `CHECKPOINT_SHARE` times the time to write one.
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 60.0, 20.0


class Interrupted(TrainingError):
    """A training was interrupted and can be resumed."""


@dataclasses.dataclass(eq=False)
class Training:
    """A network, its optimizer and its progress, stored in one folder.

    Args:
        path: Path. The folder of the run. If it contains a checkpoint, it is loaded.
        model: keras.Model. Images to logits.
        rule: Rule.
        train: Images.
        validation: Images, whose targets are indices of the model's logits; or None: the
            last weights are then the best.
        transform: EvalTransform. Transform of the validation images.
        accumulate: int. Number of parts of a batch.
        patience: int or None. Number of validations without improvement before the end.
        seed: int.

    Raises:
        TrainingError: The checkpoint is damaged.
    """

    path: Path
    model: keras.Model
    rule: Rule
    train: Images
    validation: Images | None
    transform: EvalTransform
    _: dataclasses.KW_ONLY
    accumulate: int
    patience: int | None
    seed: int

    def __post_init__(self) -> None:
        self.period = max(round(self.rule.steps / VALIDATIONS), 1)
        self.optimizer = compile_for(self.model, self.rule, self.accumulate)
        self.progress = Progress()
        state = self.path / run.CHECKPOINT
        if state.exists():
            self.progress = load_state(state, self.model, self.optimizer)
            self.train.unreadable.update(self.progress.unreadable)
            _logger.info("Resuming after step %s.", f"{self.progress.step:,}")
        self._pause = CHECKPOINT_SECONDS
        self._saved = time.perf_counter()
        self._started = time.perf_counter() - self.progress.seconds

    def run(self) -> None:
        """Trains to the last step, or until patience ends, and writes the last weights.

        Raises:
            Interrupted: Ctrl-C was pressed; the checkpoint includes the current step.
            TrainingError: The loss, or a weight, is not finite.
            BitKerasError: A file cannot be written, or most images cannot be read.
        """
        self._write_records()
        logs = TensorBoardLogs(self.path / run.LOGS, self.progress.rows)
        live = LiveProgress(self.progress.step, self.rule.steps)
        with contextlib.closing(logs), live, _stop_on_request() as stop:
            batches, clock = self._batches(), _Clock(self.rule.batch)
            while not self.finished:
                loss, accuracy = self._step(batches)
                clock.tick()
                live.show(self.progress.step, loss, accuracy, clock.speed)
                if self._validation_is_due():
                    self._validate(clock.speed)
                    self._save()
                    self._write_records()
                    logs.add(self.progress.rows[-1])
                    clock.restart()
                elif stop.is_set() or time.perf_counter() - self._saved > self._pause:
                    self._save()
                if stop.is_set() and not self.finished:
                    raise Interrupted(
                        f"Interrupted after step {self.progress.step:,} of {self.rule.steps:,}, "
                        "and saved; run the same command to resume."
                    )
        save_weights(self.model, self.path / run.LAST)

    @property
    def finished(self) -> bool:
        impatient = (
            self.patience is not None and self.progress.validations_since_best() >= self.patience
        )
        return self.progress.step >= self.rule.steps or impatient

    def results(self) -> dict[str, Any]:
        """Returns the attributes of `FineTuned`."""
        rows, best = self.progress.rows, self.progress.best
        assert best is not None, "A training ends with a validation."
        return {
            "best_step": best["step"],
            "best_accuracy": best["validation_accuracy"],
            "last_step": rows[-1]["step"],
            "last_accuracy": rows[-1]["validation_accuracy"],
            "seconds": round(self.progress.seconds, 1),
            "images_per_second": round(float(np.median([r["images_per_second"] for r in rows])), 1),
            "unreadable": self.progress.unreadable,
        }

    def _batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rule = self.rule
        pipeline = train_pipeline(
            self.train,
            TrainTransform(rule.size, rule.crop, rule.precrop, rule.flip),
            rule.batch // self.accumulate,
            seed=self.seed,
            start=self.progress.step * self.accumulate,
            stop=rule.steps * self.accumulate,
            mixup_alpha=rule.mixup_alpha,
            images_per_step=rule.batch,
        )
        return pipeline.as_numpy_iterator()

    def _step(self, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
        losses, accuracies = [], []
        for _ in range(self.accumulate):
            try:
                images, targets = next(batches)
            except tf.errors.OpError:
                require_readable(self.train)
                raise
            logs = self.model.train_on_batch(images, targets, return_dict=True)
            losses.append(float(logs["loss"]))
            accuracies.append(float(logs["accuracy"]))
        loss, accuracy = float(np.mean(losses)), float(np.mean(accuracies))
        progress = self.progress
        if not math.isfinite(loss):
            raise self._diverged(f"The loss is {loss} at step {progress.step + 1:,}")
        progress.step += 1
        progress.loss_sum += loss
        progress.accuracy_sum += accuracy
        progress.summed_steps += 1
        return loss, accuracy

    def _validation_is_due(self) -> bool:
        return self.progress.step % self.period == 0 or self.progress.step == self.rule.steps

    def _validate(self, speed: float) -> None:
        progress = self.progress
        measured = self.validation is not None
        loss, accuracy = self._measured() if measured else (None, None)
        row = {
            "step": progress.step,
            "loss": progress.loss_sum / progress.summed_steps,
            "accuracy": progress.accuracy_sum / progress.summed_steps,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
            "learning_rate": self.rule.learning_rate_at(progress.step - 1),
            "images_per_second": round(speed, 1),
        }
        best = progress.best
        if best is None or not measured or _merit(row) > _merit(best):
            progress.best_step = progress.step
        progress.rows.append(row)
        progress.loss_sum = progress.accuracy_sum = 0.0
        progress.summed_steps = 0
        _logger.info(
            "step %s/%s: loss %.3f, accuracy %.3f, %slearning rate %.3g, %.0f images/s",
            *(f"{progress.step:,}", f"{self.rule.steps:,}", row["loss"], row["accuracy"]),
            *("" if accuracy is None else f"validation accuracy {accuracy:.3f}, ",),
            *(row["learning_rate"], speed),
        )

    def _measured(self) -> tuple[float, float]:
        """Returns cross-entropy and accuracy over all readable validation images."""
        assert self.validation is not None
        losses, hits = [], []
        targets = self.validation.targets
        batch = self.rule.batch // self.accumulate
        pipeline = eval_pipeline(self.validation, self.transform, batch)
        for images, indices in pipeline.as_numpy_iterator():
            logits = np.asarray(self.model.predict_on_batch(images), np.float64)
            truth = targets[indices]
            logits -= logits.max(axis=1, keepdims=True)
            of_truth = logits[np.arange(len(truth)), truth]
            losses.append(np.log(np.exp(logits).sum(axis=1)) - of_truth)
            hits.append(logits.argmax(axis=1) == truth)
        if not losses:
            raise TrainingError(
                f"0 of the {len(self.validation)} validation images can be read; the log states "
                "the reasons."
            )
        return float(np.concatenate(losses).mean()), float(np.concatenate(hits).mean())

    def _save(self) -> None:
        self.progress.seconds = time.perf_counter() - self._started
        self.progress.unreadable = dict(self.train.unreadable)
        start = time.perf_counter()
        try:
            save_state(self.path / run.CHECKPOINT, self.model, self.optimizer, self.progress)
        except FloatingPointError as error:
            raise self._diverged(f"After step {self.progress.step:,} {error}") from None
        self._saved = time.perf_counter()
        self._pause = max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (self._saved - start))

    def _write_records(self) -> None:
        """Writes the files that follow from the checkpoint; again after a kill in between."""
        progress = self.progress
        if not progress.rows:
            return
        if progress.best_step == progress.step:
            save_weights(self.model, self.path / RUN_WEIGHTS)
        write_history(self.path / run.HISTORY, progress.rows)
        draw_curve(self.path / run.CURVE, progress.rows, f"{self.model.name}, {self.rule.name}")

    def _diverged(self, what: str) -> TrainingError:
        state = self.path / run.CHECKPOINT
        rate = self.rule.learning_rate_at(self.progress.step)
        kept = (
            f"{state} contains the last good state" if state.exists() else "Nothing was saved yet"
        )
        return TrainingError(
            f"{what}, with the learning rate {rate:.3g}, so the training was stopped. {kept}. "
            f"Use an --lr below {self.rule.learning_rate:g} and another --out."
        )


def compile_for(model: keras.Model, rule: Rule, accumulate: int = 1) -> keras.optimizers.Optimizer:
    """Compiles a model with the optimizer of a rule and the softmax cross-entropy.

    Args:
        model: keras.Model. Images to logits. Freeze layers before this call.
        rule: Rule.
        accumulate: int. Number of calls of `train_on_batch` per step. Defaults to `1`.

    Returns:
        keras.optimizers.Optimizer of the compiled model.

    Example:

    ```python
    from bit_keras.training.loop import compile_for

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    rule = bit_keras.training.hyper_rule(4500, image_size=(32, 32))
    optimizer = compile_for(model, rule)
    optimizer.momentum  # 0.9
    ```
    """
    optimizer = keras.optimizers.SGD(
        RuleSchedule(rule, accumulate),
        momentum=rule.momentum,
        nesterov=rule.nesterov,
        weight_decay=rule.weight_decay or None,
        global_clipnorm=rule.clip_norm,
        gradient_accumulation_steps=accumulate if accumulate > 1 else None,
    )
    if rule.weight_decay:
        optimizer.exclude_from_weight_decay(
            var_list=[v for v in model.trainable_variables if v.name != "kernel"]
        )
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=_jit_compile(),
    )
    return optimizer


def recompute_blocks(model: keras.Model) -> None:
    """Keeps only the activations between blocks, and recomputes the others for gradients.

    `keras.RematScope` (3.15) fails for nested models: on TensorFlow, wrapped functions
    must not get keyword arguments, and Keras passes two to models.

    A step of R50x1 with 32 images of 128 pixels then needs 1.36 GB in addition to the
    built network instead of 1.94 GB, and takes 1.5 times as long, on two cores with
    TensorFlow 2.21.

    Args:
        model: keras.Model of this package, not compiled.
    """
    for block in (layer for layer in model.layers if isinstance(layer, keras.Model)):
        block.call = _recomputing(block.call)


def _recomputing(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def recomputed(inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        return keras.remat(lambda x: call(x, training=training, mask=mask))(inputs)

    return recomputed


def _jit_compile() -> bool | str:
    """Disables XLA on CPUs, where TensorFlow 2.21 is twice as fast with oneDNN."""
    on_processors = not tf.config.list_logical_devices("GPU")
    return False if keras.backend.backend() == "tensorflow" and on_processors else "auto"


def _merit(row: dict[str, Any]) -> tuple[float, float]:
    return row["validation_accuracy"], -row["validation_loss"]


class _Clock:
    """Measures images per second, without the first step (compilation) and validations."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self.restart()
        self._skip = True

    def restart(self) -> None:
        self._skip, self._steps, self._start = False, 0, time.perf_counter()

    def tick(self) -> None:
        if self._skip:
            self.restart()
        else:
            self._steps += 1

    @property
    def speed(self) -> float:
        return self._steps * self._batch / max(time.perf_counter() - self._start, 1e-9)


@contextlib.contextmanager
def _stop_on_request() -> Iterator[threading.Event]:
    """Sets an event at Ctrl-C, so that the step is completed; the second Ctrl-C interrupts."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # Only the main thread can handle signals.
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        requested.set()
        _logger.info("Stopping after this step; press Ctrl-C again to stop immediately.")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, before)
