"""Opens labelled images from anywhere, and creates batches of them for `model.fit`."""

import dataclasses
import os
import stat
from pathlib import Path
from typing import Literal

import tensorflow as tf

from bit_keras.data.arrays import array_images
from bit_keras.data.data_source import DataSource
from bit_keras.data.folder import folder_listing
from bit_keras.data.images import Images
from bit_keras.data.layout import labelled
from bit_keras.data.listing import shown
from bit_keras.data.pipeline import ordered_pipeline, train_pipeline
from bit_keras.data.tar import tar_listing
from bit_keras.data.tfds import PREFIX, tfds_source
from bit_keras.errors import DataError, reason_of
from bit_keras.preprocessing import TrainTransform

Data = str | os.PathLike | tuple


def open_data_source(data: Data, *, skip_unreadable_classes: bool = False) -> DataSource:
    """Lists labelled images and their splits.

    Args:
        data: See `open_images`.
        skip_unreadable_classes: See `open_images`. Defaults to `False`.

    Raises:
        DataError: See `open_images`.
    """
    if isinstance(data, tuple):
        images = array_images(data)
        source = DataSource("The tuple of arrays", (), lambda split: images, {})
    elif isinstance(data, str) and data.startswith(PREFIX):
        source = tfds_source(data)
    else:
        path = _existing(data)
        source = labelled(folder_listing(path) if path.is_dir() else tar_listing(path))
    return dataclasses.replace(source, skip_unreadable_classes=skip_unreadable_classes)


def open_images(
    data: Data, split: str | None = None, *, skip_unreadable_classes: bool = False
) -> Images:
    """Opens labelled images, and decodes one image of each class to check it.

    A folder contains one folder per class, or one folder per split with class folders
    inside: `<class>/**/<image>` or `<split>/<class>/**/<image>`. Splits are recognised by
    their usual names in any case, such as `train`, `training`, `val`, `valid`,
    `validation`, `dev`, `test`, `testing` and `eval`. The classes are the sorted names of
    the class folders, the same for all splits.

    Image files are recognised by their extension or else by their content; HEIC needs
    pillow-heif. Links are followed, and each file counts once per split. Other files,
    broken or cyclic links, named pipes and devices are skipped; the log of `bit_keras`
    states their number and the reason. Hidden files are ignored.

    Args:
        data: One of:

            - str or os.PathLike: a folder, or an uncompressed tar of such a folder,
              which is read without unpacking it;
            - `"tfds:name"`, `"tfds:name/config"` or `"tfds:name/config:version"`: a
              data set of TensorFlow Datasets that is prepared on this machine,
              in `TFDS_DATA_DIR` or `~/tensorflow_datasets`; nothing is downloaded;
            - tuple `(pixels, labels)` or `(pixels, labels, classes)`: uint8
              pixels `(n, height, width, 3)` or a list of arrays of any sizes;
              labels as integers from 0 or as strings; names of the classes.
        split: str. Name of a split, if the data has splits, or another name with the
            same meaning (`"validation"` finds a folder `Val`). Defaults to `None`.
        skip_unreadable_classes: bool. Whether to skip classes without a readable image,
            with a warning, instead of raising an error. Defaults to `False`.

    Returns:
        Images.

    Raises:
        DataError: The path, data set or split does not exist, or contains no images;
            images are outside class folders; folders may be splits or classes; a class
            has no readable image; the archive is compressed or damaged; arrays and
            labels do not fit.

    Example:

    ```python
    pixels = np.zeros((4, 40, 50, 3), "uint8")
    images = bit_keras.data.open_images((pixels, [0, 1, 1, 0], ["cat", "dog"]))
    images.classes, images[3].shape  # (('cat', 'dog'), (40, 50, 3))
    ```
    """
    source = open_data_source(data, skip_unreadable_classes=skip_unreadable_classes)
    return source.images(split)


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


def _existing(data: str | os.PathLike) -> Path:
    if not isinstance(data, str | os.PathLike):
        raise DataError(
            "`data` must be the path of a folder or a tar, 'tfds:name', or a tuple (pixels, "
            f"labels). Received: an object of type {type(data).__name__}"
        )
    path = Path(data)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"There is no folder or archive {shown(str(path))}; for a data set of TensorFlow "
            f"Datasets, use {PREFIX}{shown(path.name)}."
        ) from None
    # A parent folder may not be accessible, and a name may be invalid as a path.
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(str(path))} cannot be read ({reason_of(error)}).") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise DataError(f"{shown(str(path))} is neither a folder nor an ordinary file.")
    return path
