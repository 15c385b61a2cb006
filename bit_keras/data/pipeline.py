"""From labelled pictures to batches, as `tf.data` pipelines.

The order of training is a function of the seed and the position alone: picture
`p`, counted over the whole training, is entry `p mod n` of the permutation of
epoch `p div n`, and is cut and mirrored with a generator seeded by `p`. So a run
resumes anywhere, with nothing stored but its step.
"""

import functools
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bit_keras.data.images import Images
from bit_keras.errors import BitKerasError, ImageError
from bit_keras.preprocessing import EvalTransform, TrainTransform

# What a generator's seed starts with: the three uses never share random numbers.
_ORDER, _VIEW, _MIXUP = 1, 2, 3

# Pictures per call into Python: enough to hide the cost of the call, few enough to
# keep all threads busy and little in memory.
_CHUNK = 16

# A number of pictures that no training reaches: 2^40, which fits into int64 with any batch.
_ENDLESS = 1 << 40

# Of 512 pictures of 480 pixels each is 1.4 GB.
_BATCHES_AHEAD = 1


def train_pipeline(
    images: Images,
    transform: TrainTransform,
    batch: int,
    *,
    seed: int,
    start: int = 0,
    stop: int | None = None,
    mixup_alpha: float = 0.0,
    pictures_per_step: int | None = None,
) -> tf.data.Dataset:
    """Batches of random views, in an order that depends on the seed and the position alone.

    Every picture comes once in each epoch. Batches are full, and one may end an
    epoch and begin the next. Batch `i` is the same bit for bit whether the
    pipeline began at 0 or at `i`, on any number of threads.

    A picture that cannot be read is named in `images.unreadable` and its place
    is taken by the next readable one.

    Args:
        images: Images.
        transform: TrainTransform.
        batch: int. Pictures per batch.
        seed: int, not negative.
        start: int. The first batch, counted since the beginning of training.
        stop: int. The batch to stop before. Defaults to `None`, without end.
        mixup_alpha: float. Mixup with a coefficient from Beta(alpha, alpha), one
            per step. Defaults to `0`, no mixup.
        pictures_per_step: int. Pictures of an optimizer step, a multiple of
            `batch`, where gradients of several batches are accumulated; these
            share the coefficient of mixup. Defaults to `batch`.

    Returns:
        tf.data.Dataset of pairs: images, float32, `(batch, size, size, 3)`, RGB,
        in [-1, 1]; and targets, float32, `(batch, classes)`, one-hot, or mixed.

    Raises:
        BitKerasError: All pictures are of one class, or a number is out of range.
        tf.errors.OpError: On iteration, when more than half of the pictures
            cannot be read; `require_readable(images)` then says so.

    Example:

    ```python
    images = bit_keras.data.open_images((np.zeros((6, 40, 40, 3), "uint8"), [0, 1] * 3))
    transform = bit_keras.preprocessing.TrainTransform(32)
    batches = bit_keras.data.train_pipeline(images, transform, 4, seed=0, stop=3)
    len(batches)  # 3
    ```

    Reference:
        Mixup: [Zhang et al., 2018](https://arxiv.org/abs/1710.09412).
    """
    step = batch if pictures_per_step is None else pictures_per_step
    _check_training(images, batch, start, stop, step)
    end = _ENDLESS // batch if stop is None else stop
    views = (
        tf.data.Dataset.range(start * batch, end * batch)
        .batch(_CHUNK)
        .map(_Views(images, transform, seed).in_graph, os.cpu_count(), deterministic=True)
        .rebatch(batch, drop_remainder=True)
    )
    coefficient = _Coefficients(mixup_alpha, seed, step // batch) if mixup_alpha else None

    def to_network(number: tf.Tensor, pair: tuple) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.ensure_shape(pair[0], (batch, transform.size, transform.size, 3))
        inputs = tf.cast(pixels, tf.float32) / 127.5 - 1.0
        targets = tf.one_hot(tf.ensure_shape(pair[1], (batch,)), len(images.classes))
        if coefficient is None:
            return inputs, targets
        return mixup(inputs, targets, coefficient.in_graph(number))

    count = tf.data.INFINITE_CARDINALITY if stop is None else stop - start
    return (
        tf.data.Dataset.zip(tf.data.Dataset.range(start, end), views)
        .map(to_network)
        .apply(tf.data.experimental.assert_cardinality(count))
        .prefetch(_BATCHES_AHEAD)
    )


def eval_pipeline(images: Images, transform: EvalTransform, batch: int) -> tf.data.Dataset:
    """Batches of all readable pictures, each exactly once and in order.

    The last batch is smaller where the number does not divide. Pictures that
    cannot be read are left out and named in `images.unreadable`.

    Args:
        images: Images.
        transform: EvalTransform.
        batch: int. Pictures per batch.

    Returns:
        tf.data.Dataset of pairs: images, float32, `(<= batch, size, size, 3)`,
        RGB, in [-1, 1]; and their indices in `images`, int64, `(<= batch,)`.

    Raises:
        BitKerasError: `batch` is below 1.

    Example:

    ```python
    images = bit_keras.data.open_images((np.zeros((5, 40, 40, 3), "uint8"), [0, 1, 0, 1, 0]))
    transform = bit_keras.eval_transform("bit_tiny.cifar10", size=32)
    batches = bit_keras.data.eval_pipeline(images, transform, batch=4)
    [indices.tolist() for _, indices in batches.as_numpy_iterator()]  # [[0, 1, 2, 3], [4]]
    ```
    """
    _require_positive("batch", batch)
    return (
        tf.data.Dataset.range(len(images))
        .batch(_CHUNK)
        .map(_Pictures(images, transform).in_graph, os.cpu_count(), deterministic=True)
        .rebatch(batch)
        .prefetch(_BATCHES_AHEAD)
    )


def mixup(
    images: tf.Tensor, targets: tf.Tensor, coefficient: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes every picture of a batch, and its target, with the one before it.

    The partner of picture `i` is `i - 1`, of the first the last: in the reversed
    order that BiT's pipelines use, two pictures give the same mixed pair twice.

    Args:
        images: tf.Tensor, float32, `(batch, height, width, channels)`.
        targets: tf.Tensor, float32, `(batch, classes)`.
        coefficient: float, or a tensor without axes. The share of the picture itself.

    Returns:
        The two tensors mixed, of the same shapes.

    Example:

    ```python
    images, targets = np.zeros((2, 4, 4, 3), "float32"), np.eye(2, dtype="float32")
    bit_keras.data.mixup(images, targets, 0.75)[1].numpy().tolist()  # [[0.75, 0.25], [0.25, 0.75]]
    ```

    Reference:
        [Zhang et al., 2018](https://arxiv.org/abs/1710.09412); the roll:
        big_vision @0127fb6, `utils.py`.
    """
    share = tf.cast(coefficient, tf.float32)
    mixed = share * images + (1.0 - share) * tf.roll(images, 1, axis=0)
    return mixed, share * targets + (1.0 - share) * tf.roll(targets, 1, axis=0)


def require_readable(images: Images) -> None:
    """Raises where most pictures have turned out unreadable: then something else is wrong.

    Args:
        images: Images, which pipelines have read.

    Raises:
        BitKerasError: More than half of the pictures cannot be read.
    """
    _require_readable(images, sum(name in images.unreadable for name in images.names))


class _Pictures:
    """Decodes and transforms pictures by index, all that can be read."""

    def __init__(self, images: Images, transform: EvalTransform) -> None:
        self.images = images
        self.transform = transform

    def __call__(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        readable, pictures = [], []
        for index in indices.tolist():
            picture = _transformed(self.images, index, self.transform)
            if picture is not None:
                readable.append(index)
                pictures.append(picture)
        side = self.transform.size
        pixels = np.array(pictures, np.float32).reshape(-1, side, side, 3)
        return pixels, np.array(readable, np.int64)

    def in_graph(self, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels, readable = tf.numpy_function(self, [indices], [tf.float32, tf.int64])
        side = self.transform.size
        return tf.ensure_shape(pixels, (None, side, side, 3)), tf.ensure_shape(readable, (None,))


class _Views:
    """Random views of pictures by their position in the whole training, and their targets."""

    def __init__(self, images: Images, transform: TrainTransform, seed: int) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed
        self.unreadable: set[int] = set()
        # Epochs meet within a batch, and threads are a few chunks apart.
        self.order = functools.lru_cache(maxsize=2)(self._order)

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views = np.empty((len(positions), self.transform.size, self.transform.size, 3), np.uint8)
        targets = np.empty(len(positions), np.int64)
        for row, position in enumerate(positions.tolist()):
            epoch, place = divmod(position, len(self.images))
            index, views[row] = self._readable(int(self.order(epoch)[place]), position)
            targets[row] = self.images.targets[index]
        return views, targets

    def in_graph(self, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        views, targets = tf.numpy_function(self, [positions], [tf.uint8, tf.int64])
        side = self.transform.size
        return tf.ensure_shape(views, (None, side, side, 3)), tf.ensure_shape(targets, (None,))

    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((_ORDER, self.seed, epoch)).permutation(len(self.images))

    def _readable(self, index: int, position: int) -> tuple[int, np.ndarray]:
        """The view of a picture or, where it cannot be read, of the next one by index."""
        while True:
            if index not in self.unreadable:
                generator = np.random.default_rng((_VIEW, self.seed, position))
                view = _transformed(
                    self.images, index, functools.partial(self.transform, generator=generator)
                )
                if view is not None:
                    return index, view
                self.unreadable.add(index)
                _require_readable(self.images, len(self.unreadable))
            index = (index + 1) % len(self.images)


class _Coefficients:
    """The coefficient of mixup, one for each step of the optimizer."""

    def __init__(self, alpha: float, seed: int, batches_per_step: int) -> None:
        self.alpha = alpha
        self.seed = seed
        self.batches_per_step = batches_per_step

    def __call__(self, number: np.ndarray) -> np.float32:
        step = int(number) // self.batches_per_step
        generator = np.random.default_rng((_MIXUP, self.seed, step))
        return np.float32(generator.beta(self.alpha, self.alpha))

    def in_graph(self, number: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(self, [number], tf.float32), ())


def _transformed(
    images: Images, index: int, transform: Callable[[bytes | np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """The transformed picture, or None for one that cannot be read, which is noted."""
    try:
        return transform(images[index])
    except (ImageError, OSError) as error:
        images.note_unreadable(index, str(error))
        return None


def _require_readable(images: Images, unreadable: int) -> None:
    if 2 * unreadable > len(images):
        name = next(name for name in images.names if name in images.unreadable)
        raise BitKerasError(
            f"{unreadable} of {len(images)} pictures cannot be read, which is more than half; the "
            f"first is {name}: {images.unreadable[name]}"
        )


def _check_training(
    images: Images, batch: int, start: int, stop: int | None, pictures_per_step: int
) -> None:
    _require_positive("batch", batch)
    if pictures_per_step < 1 or pictures_per_step % batch:
        raise BitKerasError(
            f"A step of {pictures_per_step} pictures is no multiple of a batch of {batch}."
        )
    if start < 0 or (stop is not None and stop < start):
        raise BitKerasError(
            f"Batches are counted from 0, and training stops behind its start; start={start} and "
            f"stop={stop} came."
        )
    present = np.unique(images.targets)
    if len(present) < 2:
        raise BitKerasError(
            f"All {len(images)} pictures are of the one class {images.classes[present[0]]!r}; "
            "training a classifier needs two classes or more, each in a folder of its own."
        )


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise BitKerasError(f"`{name}` must be at least 1; {value!r} came.")
