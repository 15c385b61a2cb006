"""The one call for a training loop of one's own."""

from typing import Literal

import tensorflow as tf

from bit_keras.data.images import Images
from bit_keras.data.pipeline import ordered_pipeline, train_pipeline
from bit_keras.data.sources import Data, open_images
from bit_keras.preprocessing import TrainTransform


def image_dataset(
    data: Data | Images,
    *,
    size: int,
    batch: int,
    split: str | None = None,
    skip_unreadable_classes: bool = False,
    training: bool = False,
    crop: Literal["random", "inception"] = "random",
    precrop: int | None = None,
    flip: bool = True,
    mixup_alpha: float = 0.0,
    seed: int = 0,
) -> tf.data.Dataset:
    """Batches of images and targets for `model.fit`, on every Keras backend.

    With `training=True` the dataset has no end: pass `steps_per_epoch`, and
    `shuffle=False`, without which Keras warns. Images come in a new random
    order in each epoch, each as a random view; full batches only. Order and
    views depend on `seed` alone.

    With `training=False` every image comes once, in order, squashed to `size`
    as the papers evaluate; the last batch may be smaller.

    An image that cannot be read is logged and named in `Images.unreadable`, and
    the next readable one takes its place, so the number of batches is known;
    `eval_pipeline` counts each readable image exactly once.

    Args:
        data: A folder with one folder per class, a tar of such folders,
            `"tfds:name"`, arrays `(pixels, labels)`, see `open_images`; or Images,
            such as the parts that `hold_out` gives.
        size: int. Side of the square images in pixels, at least 32.
        batch: int. Images per batch.
        split: str. Which split of the data, where it has some.
        skip_unreadable_classes: bool. Whether classes without a readable image are
            left out instead of an error. Defaults to `False`.
        training: bool. Random views without end, or every image once.
            Defaults to `False`.
        crop: `"random"`, BiT's: squash to `precrop`, then cut `size` from anywhere;
            or `"inception"`: a box of 5 to 100 % of the area. Training only.
        precrop: int. Side before the random crop. Defaults to 1.25 times `size`.
        flip: bool. Whether every second view is mirrored. `False` where a mirror
            image has another label. Training only.
        mixup_alpha: float. Mixup with a coefficient from Beta(alpha, alpha), one
            per batch; BiT takes 0.1 from 20,000 images on. Training only.
            Defaults to `0`, none.
        seed: int, not negative. Training only. Defaults to `0`.

    Returns:
        tf.data.Dataset of pairs:

        - images, float32, `(batch, size, size, 3)`, RGB, channels last, in
          [-1, 1], as every network of `bit_keras` takes them;
        - targets, float32, `(batch, classes)`, one-hot, or mixed: for
          `CategoricalCrossentropy`. Classes are sorted by name,
          `open_images(data, split).classes`.

    Raises:
        DataError: The data cannot be found or used, see `open_images`; all
            images to train with are of one class.
        SizeError: `size` or `precrop` is too small.

    Example:

    ```python
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, 40, 50, 3), "uint8")
    labels = ["cat", "dog", "fish"] * 4
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None, num_classes=3)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    history = model.fit(
        bit_keras.data.image_dataset((pixels, labels), size=32, batch=4, training=True),
        validation_data=bit_keras.data.image_dataset((pixels, labels), size=32, batch=4),
        steps_per_epoch=2,
        shuffle=False,
        verbose=0,
    )
    sorted(history.history)  # ['loss', 'val_loss']
    ```

    Reference:
        [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370), section 3.3.
    """
    images = (
        data
        if isinstance(data, Images)
        else open_images(data, split, skip_unreadable_classes=skip_unreadable_classes)
    )
    if training:
        transform = TrainTransform(size, crop, precrop, flip)
        return train_pipeline(images, transform, batch, seed=seed, mixup_alpha=mixup_alpha)
    return ordered_pipeline(images, size, batch)
