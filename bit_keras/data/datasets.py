"""Batches of labelled images for `model.fit`."""

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
    """Creates batches of images and targets for `model.fit`, on every Keras backend.

    With `training=True` the dataset is infinite: pass `steps_per_epoch` to `fit`, and
    `shuffle=False` to avoid a warning of Keras. Each epoch has a new random order,
    each image is augmented, and all batches are full. The result depends only on
    `seed`.

    With `training=False` the dataset contains every image once, in order, resized to
    `size` without a crop as in the papers. The last batch may be smaller.

    An image that cannot be read is logged, added to `Images.unreadable`, and replaced
    by the next readable one, so that the number of batches is known.

    Args:
        data: A folder with one folder per class, a tar of such folders, `"tfds:name"`
            or arrays `(pixels, labels)`, see `open_images`; or Images, for example
            the parts returned by `hold_out`.
        size: int. Side of the square images in pixels, at least 32.
        batch: int. Images per batch.
        split: str. Name of a split, if the data has splits.
        skip_unreadable_classes: bool. Whether to skip classes without a readable
            image instead of raising an error. Defaults to `False`.
        training: bool. Whether to return augmented images without end, instead of
            every image once. Defaults to `False`.
        crop: `"random"`: resize to `precrop`, then crop `size` at a random position,
            as BiT does; or `"inception"`: crop 5 to 100 % of the area. Training only.
        precrop: int. Side before the random crop. Defaults to 1.25 times `size`.
        flip: bool. Whether to mirror half of the images. Set it to `False` if mirroring
            changes the label. Training only. Defaults to `True`.
        mixup_alpha: float. Mixup with a coefficient from Beta(alpha, alpha), one
            per batch; BiT uses 0.1 from 20,000 images up. Training only.
            Defaults to `0`, no mixup.
        seed: int, not negative. Training only. Defaults to `0`.

    Returns:
        tf.data.Dataset of pairs:

        - images, float32, `(batch, size, size, 3)`, RGB, channels last, in
          [-1, 1], the input of all models of `bit_keras`;
        - targets, float32, `(batch, classes)`, one-hot or mixed, for
          `CategoricalCrossentropy`. The classes are
          `open_images(data, split).classes`, sorted by name.

    Raises:
        DataError: The data cannot be found or used, see `open_images`; or all
            training images are of one class.
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
