"""Functions that build classifiers, feature extractors and feature maps by name."""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence

import keras
from keras import layers

from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.abstract_model import abstract_model
from bit_keras.checkpoints.download import pretrained_path
from bit_keras.checkpoints.files import ArrayFile
from bit_keras.checkpoints.hugging_face import is_repository
from bit_keras.checkpoints.names import head_classes, input_channels, official_shapes
from bit_keras.checkpoints.published import published_checkpoint
from bit_keras.checkpoints.transfer import require_equal, require_known, take_arrays
from bit_keras.checkpoints.views import ArraysWithChannels, ArraysWithClasses
from bit_keras.errors import BitKerasError
from bit_keras.layers.functional import Functional
from bit_keras.layers.moments import Tensor
from bit_keras.models.resnet_v2 import FEATURE_MAPS, feature_maps
from bit_keras.preprocessing import Labels
from bit_keras.preprocessing.labels import class_list_of
from bit_keras.registry import (
    MINIMUM_SIZE,
    RGB,
    Architecture,
    Checkpoint,
    checkpoint_of,
    model_info,
)
from bit_keras.sources import Source, resolve

_logger = logging.getLogger("bit_keras")

InputShape = tuple[int | None, int | None, int]
Weights = str | os.PathLike | None


def create_classifier(
    checkpoint: str | None = None,
    weights: Weights = "pretrained",
    num_classes: int | None = None,
    input_shape: InputShape = (None, None, RGB),
    classifier_activation: str | None = None,
    include_preprocessing: bool = False,
    in_channels: int | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> keras.Model:
    """Creates an image classifier by name.

    The result is an ordinary Keras model. Its blocks are layers named `block1`
    to `block4`, its head is named `head`. To freeze a block, set
    `model.get_layer("block1").trainable = False`.

    For images with another number of channels than three, the stem convolution is
    adapted, which is logged. From three channels on, an image whose channel `c` is
    channel `c % 3` of an RGB image has the outputs of the RGB image. For any number
    of channels, an image with equal channels has the outputs of the grey RGB image.

    Args:
        checkpoint: str. A model name or an alias; see `bit_keras.list_models`.
        weights: `"pretrained"`, `None` (random, with a zero head), the path of a
            checkpoint of any format, or a repository of the Hugging Face hub
            (`hf://OWNER/NAME` or `timm/NAME`). If `checkpoint` is a repository,
            `"pretrained"` weights are downloaded from it. Defaults to `"pretrained"`.
        num_classes: int. Number of classes. A number other than that of the file
            replaces the head by a zero one, which is logged; 0 omits the head, like
            `create_feature_extractor`. Defaults to the number of the checkpoint.
        input_shape: tuple of height, width and channels. Height and width are `None`
            or at least 32 pixels. Defaults to `(None, None, 3)`.
        classifier_activation: str. `"softmax"`, `"sigmoid"` or `None` for
            logits. ImageNet-21k heads are multi-label: sigmoid. Defaults to `None`.
        include_preprocessing: bool. Whether the model takes pixels in [0, 255] and
            rescales them. Defaults to `False`.
        in_channels: int. Number of channels of the images, at least 1. Defaults to
            the channels of `input_shape`.
        classes: sequence of str. Ids of the checkpoint's class list, for ImageNet
            WordNet ids. The head keeps only these classes, in this order, which is
            logged. Pass the same to `bit_keras.decode_predictions`, and to exports
            `spec=bit_keras.preprocessing.spec_of(name, classes=classes)`. Defaults to
            all classes.
        name: str. Name of the Keras model, for example inside another model, whose
            layers need different names. Labels and transform stay those of the
            checkpoint. Defaults to the name of the checkpoint. If `checkpoint` is not
            given, `name` is the checkpoint.

    Returns:
        keras.Model. Input: images, channels last, `(batch, height, width,
        channels)`, float32 in [-1, 1], or [0, 255] with `include_preprocessing`.
        Output: float32 `(batch, num_classes)`, logits or, with
        `classifier_activation`, scores.

    Raises:
        UnknownModelError: The model does not exist.
        UnknownLabelsError: `classes` is given, but the checkpoint has no class list.
        CheckpointError: The weights do not fit or are damaged.
        DownloadError: The weights cannot be downloaded.
        BitKerasError: An argument is invalid.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None, num_classes=5)
    model.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape  # (1, 5)

    grey = bit_keras.create_classifier("bit_tiny.cifar10", in_channels=1)
    grey.predict(np.zeros((1, 64, 64, 1)), verbose=0).shape  # (1, 10)

    pets = bit_keras.create_classifier("bit_tiny.cifar10", classes=["dog", "cat"])
    pets.output_shape  # (None, 2)
    ```

    To keep the ImageNet-1k classes of an ImageNet-21k head (all but the teddy bear, which
    ImageNet-21k lacks):

    ```python
    from bit_keras.preprocessing import load_labels

    known = set(load_labels("imagenet_21k").ids)
    classes = [class_id for class_id in load_labels("imagenet_1k").ids if class_id in known]
    model = bit_keras.create_classifier("bit_r50x1.in21k", weights=None, classes=classes)
    model.output_shape  # (None, 999)
    ```

    Reference:
        [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370).
    """
    record, weights, name = _named(checkpoint, weights, name)
    _check_head(num_classes, classes, classifier_activation)
    shape = _full_shape(input_shape, in_channels)
    if num_classes == 0:
        return create_feature_extractor(
            record.name, weights, shape, include_preprocessing, name=name
        )
    selection = None if classes is None else _selection(record, classes)
    if selection is not None:
        num_classes = len(selection[1])
    inputs, maps = _network(
        record.architecture, shape, include_preprocessing, random=weights is None
    )
    # Opened only after all arguments are checked, because it may download gigabytes.
    with _opened(weights, record, shape[-1], selection) as arrays:
        outputs = _head(maps, num_classes or record.classes)
        network = Functional(inputs, outputs, name=name, checkpoint=record.name)
        if arrays is not None:
            _take_with_head(network, arrays, num_classes)
    if classifier_activation is None:
        return network
    outputs = layers.Activation(classifier_activation, dtype=_full_dtype(), name="scores")(outputs)
    return Functional(inputs, outputs, name=name, checkpoint=record.name)


def create_feature_extractor(
    checkpoint: str | None = None,
    weights: Weights = "pretrained",
    input_shape: InputShape = (None, None, RGB),
    include_preprocessing: bool = False,
    in_channels: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Creates a model that returns one feature vector for each image.

    Args:
        checkpoint: str. A model name or an alias; see `bit_keras.list_models`.
        weights: `"pretrained"`, `None` (random), or a path or repository as in
            `create_classifier`. Defaults to `"pretrained"`.
        input_shape: tuple of height, width and channels. Height and width are `None`
            or at least 32 pixels. Defaults to `(None, None, 3)`.
        include_preprocessing: bool. Whether the model takes pixels in [0, 255] and
            rescales them. Defaults to `False`.
        in_channels: int. Number of channels of the images, at least 1. The stem
            convolution is adapted as in `create_classifier`. Defaults to the channels
            of `input_shape`.
        name: str. Name of the Keras model; see `create_classifier`. Defaults to the
            name of the checkpoint.

    Returns:
        keras.Model. Input: images, channels last, `(batch, height, width,
        channels)`, float32 in [-1, 1], or [0, 255] with `include_preprocessing`.
        Output: float32 `(batch, features)`, the mean of `pre_logits_map` over all
        positions, not negative.

    Raises:
        BitKerasError: See `create_classifier`.

    Example:

    ```python
    model = bit_keras.create_feature_extractor("bit_tiny.cifar10", weights=None)
    model.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape  # (1, 1024)
    ```
    """
    shape = _full_shape(input_shape, in_channels)
    record, weights, name = _named(checkpoint, weights, name)
    maps = _loaded_maps(record, weights, shape, include_preprocessing)
    features = _pool(maps.output["pre_logits_map"])
    return Functional(maps.input, features, name=name, checkpoint=record.name)


def create_feature_maps(
    checkpoint: str | None = None,
    weights: Weights = "pretrained",
    levels: Sequence[str] = FEATURE_MAPS,
    input_shape: InputShape = (None, None, RGB),
    include_preprocessing: bool = False,
    in_channels: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Creates a model that returns feature maps by name, for dense tasks.

    Args:
        checkpoint: str. A model name or an alias; see `bit_keras.list_models`.
        weights: `"pretrained"`, `None` (random), or a path or repository as in
            `create_classifier`. Defaults to `"pretrained"`.
        levels: sequence of str. Any of `stem` (stride 2, the stem convolution
            before pooling), `block1` to `block4` (strides 4, 8, 16, 32: residual
            sums, not normalised) and `pre_logits_map` (stride 32, after the last
            GroupNorm and ReLU). Defaults to all.
        input_shape: tuple of height, width and channels. Height and width are `None`
            or at least 32 pixels. Defaults to `(None, None, 3)`.
        include_preprocessing: bool. Whether the model takes pixels in [0, 255] and
            rescales them. Defaults to `False`.
        in_channels: int. Number of channels of the images, at least 1. The stem
            convolution is adapted as in `create_classifier`. Defaults to the channels
            of `input_shape`.
        name: str. Name of the Keras model; see `create_classifier`. Defaults to the
            name of the checkpoint.

    Returns:
        keras.Model. Input: see `create_feature_extractor`. Output: dict from level
        to map, `(batch, height / stride, width / stride, features)`, sides rounded
        up, in the compute dtype.

    Raises:
        BitKerasError: See `create_classifier`; or a level is unknown.

    Example:

    ```python
    model = bit_keras.create_feature_maps("bit_tiny.cifar10", weights=None, levels=("block2",))
    model.predict(np.zeros((1, 64, 64, 3)), verbose=0)["block2"].shape  # (1, 8, 8, 256)
    ```
    """
    levels = [levels] if isinstance(levels, str) else list(levels)
    unknown = [level for level in levels if level not in FEATURE_MAPS]
    if unknown or not levels:
        raise BitKerasError(
            f"`levels` must be any of {', '.join(FEATURE_MAPS)}. Received: levels={levels}"
        )
    shape = _full_shape(input_shape, in_channels)
    record, weights, name = _named(checkpoint, weights, name)
    maps = _loaded_maps(record, weights, shape, include_preprocessing)
    outputs = {level: maps.output[level] for level in levels}
    return Functional(maps.input, outputs, name=name, checkpoint=record.name)


def network_of_file(
    source: str | os.PathLike | Source, name: str | None = None, allow_nonfinite: bool = False
) -> keras.Model:
    """Builds the network of a checkpoint file, with its weights.

    Architecture and number of channels are recognised from the content. If the name of
    the source is the name or an alias of a checkpoint with the same architecture and
    head, the model gets its name, and with it labels and image size. Otherwise the model
    gets the name of the architecture.

    Args:
        source: A checkpoint, as `bit_keras.sources.resolve` takes it. A file
            without a head gives a feature extractor.
        name: str. Name of the model, instead of the recognised one.
        allow_nonfinite: bool. Accept weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model, like those of `create_classifier` or `create_feature_extractor`.

    Raises:
        CheckpointError: The file is damaged or does not match a registered architecture.
        DownloadError: The weights cannot be downloaded.

    Example:

    ```python
    from bit_keras.checkpoints.download import pretrained_path
    from bit_keras.models.builders import network_of_file

    path = pretrained_path(bit_keras.model_info("bit_tiny.cifar10"))
    network_of_file(path).output_shape  # (None, 10)
    ```
    """
    source = resolve(source)
    with open_checkpoint(source.weights(), allow_nonfinite) as arrays:
        network = _network_for(arrays, name or _name(source.name, arrays))
        take_arrays(network, arrays)
    return network


def network_without_weights(source: str | os.PathLike, arrays: ArrayFile) -> keras.Model:
    """Builds the abstract network of a checkpoint: without weights, to get its configuration.

    Args:
        source: The source of the arrays; see `network_of_file`.
        arrays: ArrayFile, with the official names.

    Returns:
        keras.Model whose variables take no memory. It cannot be called.

    Raises:
        CheckpointError: The arrays do not match a registered architecture.

    Example:

    ```python
    from bit_keras.checkpoints import open_checkpoint
    from bit_keras.checkpoints.download import pretrained_path
    from bit_keras.models.builders import network_without_weights

    path = pretrained_path(bit_keras.model_info("bit_tiny.cifar10"))
    with open_checkpoint(path) as arrays:
        model = network_without_weights(path, arrays)
    model.name  # 'bit_tiny.cifar10'
    ```
    """
    name = _name(source, arrays)
    return abstract_model(functools.partial(_network_for, arrays, name))


def _name(source: str | os.PathLike, arrays: ArrayFile) -> str:
    checkpoint = published_checkpoint(source, arrays.shapes)
    return require_known(arrays).name if checkpoint is None else checkpoint.name


def _network_for(arrays: ArrayFile, name: str) -> keras.Model:
    """Returns the network whose weights have the names and shapes of the arrays."""
    architecture, classes = require_known(arrays), head_classes(arrays.shapes)
    shape = (None, None, input_channels(arrays.shapes))
    inputs, maps = _network(architecture, shape, include_preprocessing=False, random=False)
    outputs = _pool(maps["pre_logits_map"]) if classes is None else _head(maps, classes)
    return Functional(inputs, outputs, name=name, checkpoint=name)


def _named(
    checkpoint: str | None, weights: Weights, name: str | None
) -> tuple[Checkpoint, Weights, str]:
    """Returns the record of a model, its weights, and the name of the Keras model.

    If `checkpoint` is a repository, the weights are those of the repository.
    """
    if checkpoint is None:
        checkpoint, name = name, None
    if checkpoint is None:
        raise BitKerasError(
            "`checkpoint` must be a model name; `bit-keras list` shows all. "
            "Received: checkpoint=None"
        )
    record = model_info(checkpoint)
    published = weights == "pretrained" and is_repository(checkpoint)
    return record, checkpoint if published else weights, name or record.name


def _loaded_maps(
    checkpoint: Checkpoint, weights: Weights, shape: InputShape, include_preprocessing: bool
) -> keras.Model:
    """Returns all feature maps, so that a file must fill the whole network without its head."""
    inputs, maps = _network(
        checkpoint.architecture, shape, include_preprocessing, random=weights is None
    )
    network = Functional(inputs, maps, checkpoint=checkpoint.name)
    with _opened(weights, checkpoint, shape[-1]) as arrays:
        if arrays is not None:
            take_arrays(network, arrays)
    return network


def _network(
    architecture: Architecture, shape: InputShape, include_preprocessing: bool, *, random: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    inputs = keras.Input(shape, name="inputs")
    images = inputs
    if include_preprocessing:
        images = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(inputs)
    return inputs, feature_maps(images, architecture, random=random)


def _head(maps: dict[str, Tensor], classes: int) -> Tensor:
    head = layers.Dense(classes, kernel_initializer="zeros", dtype=_full_dtype(), name="head")
    return head(_pool(maps["pre_logits_map"]))


def _pool(x: Tensor) -> Tensor:
    return layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=_full_dtype(), name="features"
    )(x)


def _full_dtype() -> str:
    """Returns the compute dtype, at least float32: half precision is too coarse for a mean."""
    compute_dtype = keras.config.dtype_policy().compute_dtype
    return "float32" if compute_dtype in ("float16", "bfloat16") else compute_dtype


def _check_head(
    num_classes: int | None, classes: Sequence[str] | None, classifier_activation: str | None
) -> None:
    if num_classes is not None and num_classes < 0:
        raise BitKerasError(
            "`num_classes` must be at least 1, or 0 for a network without a head. "
            f"Received: num_classes={num_classes}"
        )
    if classifier_activation not in (None, "softmax", "sigmoid"):
        raise BitKerasError(
            "`classifier_activation` must be None, 'softmax' or 'sigmoid'. "
            f"Received: classifier_activation={classifier_activation!r}"
        )
    if classes is not None and num_classes is not None:
        raise BitKerasError(
            "`classes` selects classes of the head and `num_classes` replaces it; pass only one of "
            f"them. Received: classes={list(classes)[:3]}, num_classes={num_classes}"
        )
    if num_classes == 0 and classifier_activation is not None:
        raise BitKerasError(
            "`classifier_activation` must be None if num_classes=0 omits the head. "
            f"Received: classifier_activation={classifier_activation!r}"
        )


def _full_shape(input_shape: InputShape, in_channels: int | None) -> InputShape:
    """Returns height, width and channels of the images, after checking them."""
    try:
        height, width, channels = input_shape
    except (TypeError, ValueError):
        height = width = channels = 0
    sides_fit = all(side is None or side >= MINIMUM_SIZE for side in (height, width))
    if not sides_fit or channels is None or channels < 1:
        raise BitKerasError(
            f"`input_shape` must be (height, width, channels) with sides of at least "
            f"{MINIMUM_SIZE} pixels, or None for any size, and at least 1 channel. "
            f"Received: input_shape={input_shape}"
        )
    if in_channels is None:
        return height, width, channels
    if in_channels < 1:
        raise BitKerasError(
            f"`in_channels` must be at least 1. Received: in_channels={in_channels}"
        )
    if channels not in (RGB, in_channels):
        raise BitKerasError(
            "`input_shape` and `in_channels` must have the same number of channels. "
            f"Received: input_shape={input_shape}, in_channels={in_channels}"
        )
    return height, width, in_channels


def _selection(checkpoint: Checkpoint, classes: Sequence[str]) -> tuple[Labels, list[int]]:
    """Returns the class list of a checkpoint, and the indices of the classes to keep."""
    labels = class_list_of(checkpoint)
    return labels, labels.indices_of(classes)


@contextlib.contextmanager
def _opened(
    weights: Weights,
    checkpoint: Checkpoint,
    channels: int,
    selection: tuple[Labels, list[int]] | None = None,
) -> Iterator[ArrayFile | None]:
    """Opens the arrays for a network, adapted to its channels and classes; None for random."""
    if weights is None:
        yield None
        return
    path = pretrained_path(checkpoint) if weights == "pretrained" else resolve(weights).weights()
    with open_checkpoint(path) as file:
        arrays: ArrayFile = file
        found, classes = input_channels(file.shapes), head_classes(file.shapes)
        if channels != found or selection is not None:
            # Checked before the arrays are adapted, so that errors describe the file itself.
            expected = official_shapes(checkpoint.architecture, classes, found)
            require_equal(expected, file.shapes, checkpoint.name, file)
        if channels != found:
            arrays = ArraysWithChannels(arrays, channels)
            _logger.info(
                "%s: the stem convolution is adapted from %d to %d channels.",
                checkpoint.name,
                found,
                channels,
            )
        if selection is not None:
            labels, indices = selection
            arrays = ArraysWithClasses(arrays, labels, indices)
            _logger.info(
                "%s: %d of the %d classes are kept.", checkpoint.name, len(indices), len(labels)
            )
        yield arrays


def _take_with_head(network: keras.Model, arrays: ArrayFile, num_classes: int | None) -> None:
    """Fills a classifier, except for its head if `num_classes` differs from the file's."""
    found = head_classes(arrays.shapes)
    replace_head = num_classes not in (None, found)
    if replace_head:
        _logger.info(
            "%s: a new head for %d classes, all zero, %s.",
            checkpoint_of(network),
            num_classes,
            f"replaces the one for {found}" if found else "is added to a file without one",
        )
    take_arrays(network, arrays, replace_head=replace_head)
