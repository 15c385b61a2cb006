"""Fine-tunes a network on labelled images; interrupted trainings resume."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from bit_keras.data import Images
from bit_keras.data.data_source import DataSource
from bit_keras.data.datasets import open_data_source
from bit_keras.data.images import hold_out
from bit_keras.data.listing import shown
from bit_keras.errors import ImageError, TrainingError
from bit_keras.extras import require_extra
from bit_keras.models import create_classifier
from bit_keras.preprocessing import ClassifierSpec, EvalTransform, Labels
from bit_keras.preprocessing.evaluation import image_size
from bit_keras.registry import Checkpoint, Resizing, model_info
from bit_keras.rules.rules import MEDIUM, Rule, big_vision_rule, hyper_rule, scratch_rule
from bit_keras.sources import read_run
from bit_keras.training import run
from bit_keras.training.loop import Training, recompute_blocks

_logger = logging.getLogger("bit_keras")

#: The layers that can be frozen, by the names that `freeze` takes.
FREEZABLE = {"stem": "stem_conv", **{f"block{i}": f"block{i}" for i in range(1, 5)}}

RULES = ("code", "paper", "big_vision", "scratch")
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

#: Fractions to hold out for validation: that of big_transfer for CIFAR
#: (`bit_tf2/input_pipeline_tf2_or_jax.py`, `train[:98%]`), and a larger one for small tasks.
_HELD_OUT, _HELD_OUT_OF_SMALL = 0.02, 0.1

#: Number of images that are sampled to determine the typical size.
_SIZED = 64

#: Maximum number of classes that a message lists.
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """The result of a training.

    Attributes:
        path: Path. The folder of the run.
        best_step: int. Step of the weights in `best.npz`; the last one without validation.
        best_accuracy: float or None. Validation accuracy of `best_step`, in [0, 1]; `None`
            without validation.
        last_step: int. Step of the weights in `last.npz`.
        last_accuracy: float or None. Validation accuracy of `last_step`, in [0, 1]; `None`
            without validation.
        seconds: float. Duration of the training, over all processes.
        images_per_second: float. Training speed, without validation.
        unreadable: dict from image to reason.
    """

    path: Path
    best_step: int
    best_accuracy: float | None
    last_step: int
    last_accuracy: float | None
    seconds: float
    images_per_second: float
    unreadable: dict[str, str]


def finetune(
    name: str,
    data: Any,
    out: str | os.PathLike,
    *,
    weights: str | os.PathLike = "pretrained",
    rule: str | None = None,
    steps: int | None = None,
    batch: int = 128,
    learning_rate: float | None = None,
    size: int | None = None,
    mixup: float | None = None,
    freeze: tuple[str, ...] = (),
    precision: str = "float32",
    accumulate: int = 1,
    remat: bool = False,
    validation: str | float | None = None,
    patience: int | None = None,
    seed: int = 0,
    skip_unreadable_classes: bool = False,
) -> FineTuned:
    """Fine-tunes a network on labelled images, and writes a run folder.

    The head is new and zero, the optimizer is SGD, the loss is the softmax
    cross-entropy. The network is validated about ten times, on the validation split of
    the data or else on images that are held out: 2 % of each class from 20,000 images
    up, 10 % below, but at least one image, and none of a class with a single image.
    Without validation, the last weights are the best. The test split is not used.

    To resume an interrupted training, call the function again with the same arguments.
    The resulting weights are those of an uninterrupted training, bit for bit on the same
    processors, backend and versions.

    The folder contains `best.npz` and `last.npz` (official weights, float32),
    `run.json` (options, rule, data, versions, results), `history.csv`, `curve.png`,
    `logs` (TensorBoard) and `checkpoint.npz` (the state to resume from).

    Args:
        name: str. A model name or an alias.
        data: The path of a folder or a tar of class folders, `"tfds:name"`, or a tuple
            of images and labels; see `bit_keras.data.open_images`.
        out: The folder to write, or to resume.
        weights: `"pretrained"`, `"random"`, or the path of a checkpoint.
            Defaults to `"pretrained"`.
        rule: `"code"` or `"paper"` (BiT-HyperRule), `"big_vision"`, or `"scratch"`.
            Defaults to `"scratch"` for random weights, else to `"code"`.
        steps: int. Number of steps, instead of the rule's; warm-up and drops are scaled.
        batch: int. Images per step. Defaults to `128`.
        learning_rate: float. Base learning rate, instead of the rule's.
        size: int. Side of the crop in pixels, at least 32, instead of the rule's.
        mixup: float. Parameter of mixup, instead of the rule's; 0 disables mixup.
        freeze: tuple of str. Parts that are not trained: any of `"stem"`, `"block1"` to
            `"block4"`.
        precision: `"float32"` or `"bfloat16"`. Data type of the activations; weights are
            always float32. Defaults to `"float32"`.
        accumulate: int. Number of parts of a batch that are computed one after the other,
            to save memory. The gradients stay the same; mixup pairs images of one part.
            Defaults to `1`.
        remat: bool. Whether to keep only the activations between blocks and to recompute
            the others for the gradients: less memory, more time. Defaults to `False`.
        validation: str or float. Name of a split, or the fraction to hold out; 0 trains on
            all images without validation.
        patience: int. Number of validations without improvement before the training
            stops. Defaults to `None`, never.
        seed: int. Seed of the order, the crops, the split and random weights. Defaults
            to `0`.
        skip_unreadable_classes: bool. Whether to skip classes without a readable image,
            with a warning, instead of raising an error. Defaults to `False`.

    Returns:
        FineTuned.

    Raises:
        TrainingError: An option is invalid, the folder contains something else, or the
            loss is not finite.
        Interrupted: Ctrl-C was pressed; the folder contains a checkpoint.
        BitKerasError: The data cannot be read, the weights do not fit, or the disk is full.

    Example:

    ```python
    images = np.zeros((8, 32, 32, 3), "uint8")
    images[::2] = 255
    labels = ["white", "black"] * 4
    result = bit_keras.training.finetune(
        "bit_tiny.cifar10", (images, labels), "run", weights="random", size=32, steps=2, batch=4
    )
    result.last_step  # 2
    ```

    Reference:
        [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370).
    """
    options = {
        "weights": os.fspath(weights),
        "rule": rule or ("scratch" if weights == "random" else "code"),
        "steps": steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "size": size,
        "mixup": mixup,
        "freeze": sorted(set(freeze)),
        "precision": precision,
        "accumulate": accumulate,
        "remat": remat,
        "validation": validation,
        "patience": patience,
        "seed": seed,
        "backend": keras.backend.backend(),
    }
    checkpoint = model_info(name)
    _check(options)
    require_extra("train", "matplotlib", "tensorboard", purpose="Fine-tuning", error=TrainingError)
    path = Path(out)
    source = open_data_source(data, skip_unreadable_classes=skip_unreadable_classes)
    images = _training_images(source)
    parts = _split(images, source, validation, seed)
    if parts.validation is None and patience is not None:
        raise TrainingError(
            f"`patience` needs validation images ({parts.origin}); omit it, or add validation "
            f"images. Received: patience={patience}"
        )
    chosen = _rule(options, checkpoint, images, len(parts.train))
    spec = _spec(images.classes, chosen, path)
    document = {
        "model": checkpoint.name,
        "options": options,
        "rule": chosen.to_json(),
        "data": _description(data, parts),
        "task": spec.to_json(),
        "environment": run.environment(),
        "results": None,
    }
    with run.claimed(path, document):
        results = read_run(path).get("results")
        if results is None:
            _explain(chosen, checkpoint.name, parts)
            results = _train(path, checkpoint, spec, chosen, parts, options)
            run.write_document(path, {**read_run(path), "results": results})
        else:
            _logger.info("%s is finished.", path)
    return FineTuned(path, **results)


class _Parts(NamedTuple):
    """The images to train on, those to validate with or None, and the origin of the latter."""

    train: Images
    validation: Images | None
    origin: str


def _train(
    path: Path,
    checkpoint: Checkpoint,
    spec: ClassifierSpec,
    rule: Rule,
    parts: _Parts,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Trains, or resumes a training, to the end; returns its results."""
    with _quiet_backend(options["seed"]):
        training = Training(
            path,
            _network(checkpoint, spec, options),
            rule,
            parts.train,
            parts.validation,
            spec.transform,
            accumulate=options["accumulate"],
            patience=options["patience"],
            seed=options["seed"],
        )
        training.run()
    return training.results()


def _check(options: dict[str, Any]) -> None:
    """Raises TrainingError for invalid options."""
    batch, accumulate = options["batch"], options["accumulate"]
    for key in ("batch", "accumulate", "steps", "patience"):
        if options[key] is not None and options[key] < 1:
            raise TrainingError(f"`{key}` must be at least 1. Received: {key}={options[key]}")
    if batch % accumulate:
        raise TrainingError(
            "`accumulate` must be a divisor of `batch`. "
            f"Received: accumulate={accumulate}, batch={batch}"
        )
    unknown = [part for part in options["freeze"] if part not in FREEZABLE]
    if unknown:
        raise TrainingError(
            f"`freeze` must be any of {', '.join(FREEZABLE)}. Received: {', '.join(unknown)}"
        )
    for key, allowed in (("precision", tuple(PRECISIONS)), ("rule", RULES)):
        if options[key] not in allowed:
            raise TrainingError(
                f"`{key}` must be one of {', '.join(allowed)}. Received: {key}={options[key]!r}"
            )
    if options["seed"] < 0:
        raise TrainingError(f"`seed` must not be negative. Received: seed={options['seed']}")
    if options["weights"] not in ("pretrained", "random") and not Path(options["weights"]).exists():
        raise TrainingError(
            "`weights` must be 'pretrained', 'random' or the path of an existing file. "
            f"Received: weights={options['weights']!r}"
        )


def _training_images(source: DataSource) -> Images:
    split = source.split_for("train")
    if source.splits and split is None:
        raise TrainingError(
            "Fine-tuning needs a split named train; rename one. "
            f"Received: the splits {', '.join(source.splits)}"
        )
    images = source.images(split)
    # All splits of a source have the same list of classes.
    absent = [name for name, count in images.counts().items() if not count]
    if absent and source.skip_unreadable_classes:
        _logger.warning("Classes without training images are skipped: %s.", _listed(absent))
        images = images.drop_classes(absent)
    elif absent:
        raise TrainingError(
            "The training split must contain images of every class; add some, or pass "
            "--skip-unreadable-classes (skip_unreadable_classes=True in Python). "
            f"Classes without training images: {_listed(absent)}"
        )
    if len(images.classes) < 2:
        raise TrainingError(
            "Fine-tuning needs images of at least two classes. "
            f"Received: {len(images):,} images, all of {images.classes[0]!r}"
        )
    return images


def _split(images: Images, source: DataSource, validation: str | float | None, seed: int) -> _Parts:
    chosen = source.split_for("validation") if validation is None else validation
    if isinstance(chosen, str):
        other = source.images(chosen)
        other = other.drop_classes(set(other.classes) - set(images.classes))
        return _Parts(images, other, f"the split {chosen}")
    if chosen == 0:
        return _Parts(images, None, "none was requested")
    if chosen is None:
        if max(images.counts().values()) == 1:
            return _Parts(images, None, "a single image per class leaves none to hold out")
        chosen = _HELD_OUT if len(images) >= MEDIUM else _HELD_OUT_OF_SMALL
    train, other = hold_out(images, chosen, seed)
    share = f"{len(other) / len(images):.0%} ({len(other):,} of {len(images):,})"
    return _Parts(train, other, f"{share} held out of training")


def _rule(options: dict[str, Any], checkpoint: Checkpoint, images: Images, training: int) -> Rule:
    """Returns the rule with the options; `training` is the number of images without held-out."""
    name, batch = options["rule"], options["batch"]
    if name == "scratch":
        size = options["size"] or checkpoint.size
        if size is None:
            raise TrainingError(
                f"No source states the input size of {checkpoint.name}; pass --size in pixels."
            )
        rule = scratch_rule(training, size, batch)
    elif name == "big_vision":
        rule = big_vision_rule(len(images), batch)
    else:
        rule = hyper_rule(
            len(images), _typical_size(images), batch, name, checkpoint.architecture.name
        )
    if options["size"] not in (None, rule.size):
        rule = rule.with_size(options["size"])
    if options["steps"] not in (None, rule.steps):
        rule = rule.with_steps(options["steps"])
    if options["learning_rate"] is not None:
        rule = rule.with_learning_rate(options["learning_rate"])
    if options["mixup"] is not None:
        rule = rule.with_mixup(options["mixup"])
    return rule


def _typical_size(images: Images) -> tuple[int, int]:
    """Returns height and width of the image with the median area, in a sample of the data."""
    sizes = []
    for index in np.unique(np.linspace(0, len(images) - 1, _SIZED).astype(int)):
        # The header is sufficient; damaged files are reported when they are decoded.
        with contextlib.suppress(ImageError, OSError):
            sizes.append(image_size(images[int(index)]))
    if not sizes:
        raise TrainingError(
            f"A sample of {_SIZED} images contains only unreadable ones; check the data."
        )
    return sorted(sizes, key=lambda size: size[0] * size[1])[len(sizes) // 2]


def _spec(classes: tuple[str, ...], rule: Rule, path: Path) -> ClassifierSpec:
    labels = Labels(f"the classes of {shown(path.name)}", classes, classes)
    # HyperRule's own is not a crop (big_transfer, `bit_tf2/input_pipeline_tf2_or_jax.py`).
    resizing = Resizing("squash", rule.evaluation_side or rule.size, "bilinear", rule.source)
    return ClassifierSpec(labels, EvalTransform(rule.size, resizing))


def _description(data: Any, parts: _Parts) -> dict[str, Any]:
    train, validation = parts.train, parts.validation
    counts = dict.fromkeys(train.classes, 0) if validation is None else validation.counts()
    return {
        "path": os.fspath(data) if isinstance(data, str | os.PathLike) else "arrays",
        "classes": list(train.classes),
        "train": list(train.counts().values()),
        "train_fingerprint": train.fingerprint,
        "validation": list(counts.values()),
        "validation_fingerprint": None if validation is None else validation.fingerprint,
        "validation_from": parts.origin,
    }


def _network(checkpoint: Checkpoint, spec: ClassifierSpec, options: dict[str, Any]) -> keras.Model:
    """Returns the network with a new head, and with the options for precision and freezing."""
    weights, size = options["weights"], spec.transform.size
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(PRECISIONS[options["precision"]])
    try:
        model = create_classifier(
            checkpoint.name,
            weights=None if weights == "random" else weights,
            num_classes=len(spec.labels),
            input_shape=(size, size, 3),
        )
    finally:
        keras.config.set_dtype_policy(policy)
    for variable in model.get_layer("head").variables:
        variable.assign(np.zeros(variable.shape, "float32"))
    for part in options["freeze"]:
        model.get_layer(FREEZABLE[part]).trainable = False
    if options["remat"]:
        recompute_blocks(model)
    return model


def _explain(rule: Rule, model: str, parts: _Parts) -> None:
    for line in rule.explain().splitlines():
        _logger.info("%s", line)
    _logger.info("Training %s with a new zero head: %s.", model, parts.train.describe())
    if parts.validation is None:
        _logger.info("Without validation (%s): the last weights are the best.", parts.origin)
    else:
        _logger.info("Validation, %s: %s.", parts.origin, parts.validation.describe())
    _logger.info("The test split is not used.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@contextlib.contextmanager
def _quiet_backend(seed: int) -> Iterator[None]:
    """Seeds the backend, and disables features of TensorFlow that would disturb the training."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() != "tensorflow":
        # The pipelines do not use the GPU, but TensorFlow would allocate all of its memory.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    before = tf.config.optimizer.get_experimental_options()
    # With TensorFlow 2.21 and Keras 3.15 this pass can make gradients wrong.
    tf.config.optimizer.set_experimental_options({"dependency_optimization": False})
    try:
        yield
    finally:
        kept = before.get("dependency_optimization", True)
        tf.config.optimizer.set_experimental_options({"dependency_optimization": kept})
