"""`tf.data` pipelines from labelled images to batches.

The training pipeline is a function of the seed and the position only: image `p`,
counted over the whole training, is entry `p mod n` of the permutation of epoch
`p div n`, and is cropped and mirrored by a generator seeded with `p`. To resume a
run, its step is sufficient.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from bit_keras.data.images import Images
from bit_keras.errors import DataError, ImageError
from bit_keras.preprocessing import EvalTransform, TrainTransform
from bit_keras.processes import available_cores

# Prefixes of the seeds, so that the three uses do not share random numbers.
_ORDER, _VIEW, _MIXUP = 1, 2, 3

# Images per call into Python: enough to hide the cost of the call, and few enough to
# keep all threads busy and memory small.
_CHUNK = 16

# More images than any training uses, and small enough for int64 with any batch.
_ENDLESS = 1 << 40

# A batch of 512 images of 480 pixels takes 1.4 GB.
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
    images_per_step: int | None = None,
) -> tf.data.Dataset:
    """Creates batches of augmented images, reproducible from any position.

    Every epoch contains each image once. All batches are full; a batch can contain the
    end of an epoch and the start of the next. Batch `i` is identical bit for bit if the
    pipeline starts at 0 or at `i`, with any number of threads.

    An image that cannot be read is added to `images.unreadable` and replaced by the
    next readable one.

    Args:
        images: Images.
        transform: TrainTransform.
        batch: int. Images per batch.
        seed: int, not negative.
        start: int. Index of the first batch, counted from the start of training.
        stop: int. Index after the last batch. Defaults to `None`, an infinite dataset.
        mixup_alpha: float. Mixup with a coefficient from Beta(alpha, alpha), one
            per step. Defaults to `0`, no mixup.
        images_per_step: int. Images per optimizer step, a multiple of `batch`, if
            gradients of several batches are accumulated; these share the mixup
            coefficient. Defaults to `batch`.

    Returns:
        tf.data.Dataset of pairs: images, float32, `(batch, size, size, 3)`, RGB,
        in [-1, 1]; and targets, float32, `(batch, classes)`, one-hot, or mixed.

    Raises:
        DataError: All images are of one class, or a number is out of range.
        tf.errors.OpError: On iteration, if more than half of the images cannot be
            read; `require_readable(images)` then raises the reason.

    Example:

    ```python
    from bit_keras.data.pipeline import train_pipeline

    images = bit_keras.data.open_images((np.zeros((6, 40, 40, 3), "uint8"), [0, 1] * 3))
    transform = bit_keras.preprocessing.TrainTransform(32)
    batches = train_pipeline(images, transform, 4, seed=0, stop=3)
    len(batches)  # 3
    ```

    Reference:
        Mixup: [Zhang et al., 2018](https://arxiv.org/abs/1710.09412).
    """
    step = batch if images_per_step is None else images_per_step
    _check_numbers(batch, start, stop, step, seed, mixup_alpha)
    _require_two_classes(images)
    end = _ENDLESS // batch if stop is None else stop
    views = _Views(images, transform, functools.partial(_shuffled, len(images), seed), seed)
    positions = tf.data.Dataset.range(start * batch, end * batch)
    batches = _batches(views, positions, batch, drop_remainder=True)
    if mixup_alpha:
        coefficient = functools.partial(_mixup_coefficient, mixup_alpha, seed, step // batch)
        batches = tf.data.Dataset.zip(tf.data.Dataset.range(start, end), batches).map(
            lambda number, pair: mixup(
                pair[0],
                pair[1],
                tf.ensure_shape(tf.numpy_function(coefficient, [number], tf.float32), ()),
            )
        )
    count = tf.data.INFINITE_CARDINALITY if stop is None else stop - start
    return _counted(batches, count)


def ordered_pipeline(images: Images, size: int, batch: int) -> tf.data.Dataset:
    """Creates batches of all images in order, resized to `size`, with targets as in training.

    Keras needs the number of batches, so an image that cannot be read is replaced as in
    training; `eval_pipeline` skips it.
    """
    _require_positive("batch", batch)
    squash = TrainTransform(size, precrop=size, flip=False)
    views = _Views(images, squash, lambda epoch: np.arange(len(images)), seed=0)
    batches = _batches(views, tf.data.Dataset.range(len(images)), batch, drop_remainder=False)
    return _counted(batches, -(-len(images) // batch))


def eval_pipeline(images: Images, transform: EvalTransform, batch: int) -> tf.data.Dataset:
    """Creates batches of all readable images, each exactly once and in order.

    The last batch may be smaller. Images that cannot be read are skipped and added to
    `images.unreadable`.

    Args:
        images: Images.
        transform: EvalTransform.
        batch: int. Images per batch.

    Returns:
        tf.data.Dataset of pairs: images, float32, `(<= batch, size, size, 3)`,
        RGB, in [-1, 1]; and their indices in `images`, int64, `(<= batch,)`.

    Raises:
        DataError: `batch` is less than 1.

    Example:

    ```python
    from bit_keras.data.pipeline import eval_pipeline

    images = bit_keras.data.open_images((np.zeros((5, 40, 40, 3), "uint8"), [0, 1, 0, 1, 0]))
    transform = bit_keras.eval_transform("bit_tiny.cifar10", size=32)
    batches = eval_pipeline(images, transform, batch=4)
    [indices.tolist() for _, indices in batches.as_numpy_iterator()]  # [[0, 1, 2, 3], [4]]
    ```
    """
    _require_positive("batch", batch)
    decoded = functools.partial(_evaluation_images, images, transform)
    indices = tf.data.Dataset.range(len(images))
    return (
        _mapped(indices, decoded, transform.size, tf.float32)
        .rebatch(batch)
        .prefetch(_BATCHES_AHEAD)
    )


def mixup(
    images: tf.Tensor, targets: tf.Tensor, coefficient: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes every image of a batch and its target with the previous ones.

    The partner of image `i` is `i - 1`, and that of the first image is the last one.
    BiT's pipelines mix with the reversed batch, in which pairs occur twice.

    Args:
        images: tf.Tensor, float32, `(batch, height, width, channels)`.
        targets: tf.Tensor, float32, `(batch, classes)`.
        coefficient: float or scalar tensor. Weight of the image itself; its partner has
            `1 - coefficient`.

    Returns:
        tuple of the mixed images and the mixed targets, with the same shapes.

    Example:

    ```python
    from bit_keras.data.pipeline import mixup

    images, targets = np.zeros((2, 4, 4, 3), "float32"), np.eye(2, dtype="float32")
    mixup(images, targets, 0.75)[1].numpy().tolist()  # [[0.75, 0.25], [0.25, 0.75]]
    ```

    Reference:
        [Zhang et al., 2018](https://arxiv.org/abs/1710.09412); the roll:
        big_vision @0127fb6, `utils.py`.
    """
    share = tf.cast(coefficient, tf.float32)
    mixed = share * images + (1.0 - share) * tf.roll(images, 1, axis=0)
    return mixed, share * targets + (1.0 - share) * tf.roll(targets, 1, axis=0)


def require_readable(images: Images) -> None:
    """Raises an error if most images could not be read.

    Args:
        images: Images that pipelines have read.

    Raises:
        DataError: More than half of the images cannot be read.

    Example:

    ```python
    from bit_keras.data.pipeline import require_readable

    images = bit_keras.data.open_images((np.zeros((2, 40, 50, 3), "uint8"), [0, 1]))
    require_readable(images)  # None
    ```
    """
    _require_readable(images, sum(name in images.unreadable for name in images.names))


def _batches(
    views: "_Views", positions: tf.data.Dataset, batch: int, *, drop_remainder: bool
) -> tf.data.Dataset:
    """Creates batches of images in [-1, 1] and one-hot targets at these positions."""
    classes = len(views.images.classes)
    return (
        _mapped(positions, views, views.transform.size, tf.uint8)
        .rebatch(batch, drop_remainder=drop_remainder)
        .map(
            lambda pixels, targets: (
                tf.cast(pixels, tf.float32) / 127.5 - 1.0,
                tf.one_hot(targets, classes),
            )
        )
    )


def _counted(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Sets the number of batches, which `rebatch` does not keep."""
    counted = batches.apply(tf.data.experimental.assert_cardinality(count))
    return counted.prefetch(_BATCHES_AHEAD)


def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the images in an epoch."""
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(count)


def _mapped(
    numbers: tf.data.Dataset,
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    side: int,
    dtype: tf.DType,
) -> tf.data.Dataset:
    """Calls a function that returns square images and one integer for each, in several threads."""

    def in_graph(numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, values = tf.numpy_function(function, [numbers], [dtype, tf.int64])
        return tf.ensure_shape(images, (None, side, side, 3)), tf.ensure_shape(values, (None,))

    return numbers.batch(_CHUNK).map(in_graph, available_cores(), deterministic=True)


def _evaluation_images(
    images: Images, transform: EvalTransform, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes and transforms images, and skips those that cannot be read."""
    transformed = {
        index: image
        for index in indices.tolist()
        if (image := _transformed(images, index, transform)) is not None
    }
    pixels = np.array([*transformed.values()], np.float32)
    return pixels.reshape(-1, transform.size, transform.size, 3), np.array([*transformed], np.int64)


class _Views:
    """Augmented images and their targets, by position in the whole training."""

    def __init__(
        self,
        images: Images,
        transform: TrainTransform,
        order: Callable[[int], np.ndarray],
        seed: int,
    ) -> None:
        self.images = images
        self.transform = transform
        # A batch can contain two epochs, and threads are a few chunks apart.
        self.order = functools.lru_cache(maxsize=2)(order)
        self.seed = seed
        self.unreadable: set[int] = set()

    def __call__(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        views = np.empty((len(positions), self.transform.size, self.transform.size, 3), np.uint8)
        targets = np.empty(len(positions), np.int64)
        for row, position in enumerate(positions.tolist()):
            epoch, place = divmod(position, len(self.images))
            index, views[row] = self._readable(int(self.order(epoch)[place]), position)
            targets[row] = self.images.targets[index]
        return views, targets

    def _readable(self, index: int, position: int) -> tuple[int, np.ndarray]:
        """Returns index and view of an image or, if it cannot be read, of the next readable one."""
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


def _mixup_coefficient(
    alpha: float, seed: int, batches_per_step: int, number: np.ndarray
) -> np.float32:
    """Returns the coefficient of a batch, the same for all batches of an optimizer step."""
    generator = np.random.default_rng((_MIXUP, seed, int(number) // batches_per_step))
    return np.float32(generator.beta(alpha, alpha))


def _transformed(
    images: Images, index: int, transform: Callable[[bytes | np.ndarray], np.ndarray]
) -> np.ndarray | None:
    """Returns the transformed image; an image that cannot be read is recorded and gives None."""
    try:
        return transform(images[index])
    # A transform may reject a shape, and an image may need more memory than available.
    except (ImageError, OSError, ValueError, ArithmeticError, MemoryError) as error:
        images.note_unreadable(index, str(error) or type(error).__name__)
        return None


def _require_readable(images: Images, unreadable: int) -> None:
    if 2 * unreadable > len(images):
        name = next(name for name in images.names if name in images.unreadable)
        raise DataError(
            f"More than half of the images cannot be read, {unreadable} of {len(images)}; the "
            f"first is {name}: {images.unreadable[name]}"
        )


def _check_numbers(
    batch: int, start: int, stop: int | None, step: int, seed: int, mixup_alpha: float
) -> None:
    _require_positive("batch", batch)
    if step < 1 or step % batch:
        raise DataError(
            "`images_per_step` must be a multiple of `batch`. "
            f"Received: images_per_step={step}, batch={batch}"
        )
    if start < 0 or (stop is not None and stop < start):
        raise DataError(
            "`start` must be at least 0, and `stop` at least `start`. "
            f"Received: start={start}, stop={stop}"
        )
    if seed < 0:
        raise DataError(f"`seed` must not be negative. Received: seed={seed!r}")
    if mixup_alpha < 0:
        raise DataError(
            f"`mixup_alpha` must not be negative. Received: mixup_alpha={mixup_alpha!r}"
        )


def _require_two_classes(images: Images) -> None:
    present = np.unique(images.targets)
    if len(present) < 2:
        raise DataError(
            "Training needs images of at least two classes, in one folder each. "
            f"Received: {len(images)} images, all of {images.classes[present[0]]!r}"
        )


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise DataError(f"`{name}` must be at least 1. Received: {name}={value!r}")
