"""Models by name: classifier, pooled features, feature maps."""

import logging
import os
from collections.abc import Sequence

import keras
from keras import layers

from bit_keras.checkpoints import (
    CheckpointFile,
    open_checkpoint,
    pretrained_path,
    require_known,
    take_arrays,
)
from bit_keras.checkpoints.names import head_classes
from bit_keras.errors import BitKerasError, UnknownModelError
from bit_keras.layers.moments import Tensor
from bit_keras.models.resnet_v2 import FEATURE_MAPS, feature_maps
from bit_keras.registry import MINIMUM_SIZE, Architecture, Checkpoint, model_info

_logger = logging.getLogger("bit_keras")

InputShape = tuple[int | None, int | None, int]
Weights = str | os.PathLike | None


def create_classifier(
    name: str,
    weights: Weights = "pretrained",
    num_classes: int | None = None,
    input_shape: InputShape = (None, None, 3),
    classifier_activation: str | None = None,
    include_preprocessing: bool = False,
) -> keras.Model:
    """A network with its head: images to logits.

    The result is an ordinary Keras model. Its blocks are layers named `block1`
    to `block4`, its head is named `head`: `model.get_layer("block1").trainable =
    False` freezes a block.

    Args:
        name: str. A model name or an alias; see `bit_keras.list_models`.
        weights: `"pretrained"`, `None` (random, with a zero head) or the path of
            an official npz file. Defaults to `"pretrained"`.
        num_classes: int. A width other than the file's replaces the head with a
            zero one, and logs it. Defaults to that of the checkpoint.
        input_shape: tuple of height, width and 3; sides may be `None` or any
            number of pixels from 32 up. Defaults to `(None, None, 3)`.
        classifier_activation: str. `"softmax"`, `"sigmoid"` or `None` for
            logits. ImageNet-21k heads are multi-label: sigmoid. Defaults to `None`.
        include_preprocessing: bool. Take pixels in [0, 255] and rescale them
            inside. Defaults to `False`.

    Returns:
        keras.Model. Input: RGB images, channels last, `(batch, height, width,
        3)`, float32 in [-1, 1], or [0, 255] with `include_preprocessing`. Output:
        float32 `(batch, num_classes)`, logits unless an activation is asked for.

    Raises:
        UnknownModelError: No such model.
        CheckpointError: The weights do not fit or are damaged.
        DownloadError: The weights cannot be fetched.
        BitKerasError: An argument that makes no sense.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None, num_classes=5)
    model.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape  # (1, 5)
    ```

    Reference:
        [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370).
    """
    checkpoint = model_info(name)
    if num_classes is not None and num_classes < 1:
        raise BitKerasError(
            f"num_classes must be at least 1 and is {num_classes}; "
            "create_feature_extractor builds a network without a head."
        )
    if classifier_activation not in (None, "softmax", "sigmoid"):
        raise BitKerasError(
            "classifier_activation must be None, 'softmax' or 'sigmoid' and is "
            f"{classifier_activation!r}."
        )
    inputs, maps = _network(checkpoint.architecture, input_shape, include_preprocessing)
    # After all arguments are checked: opening may mean to download gigabytes.
    arrays = _open(weights, checkpoint)
    classes = num_classes or checkpoint.classes or _classes_of(arrays, checkpoint)
    outputs = _head(maps, classes)
    network = keras.Model(inputs, outputs, name=checkpoint.name)
    if arrays is not None:
        found = head_classes(arrays.shapes)
        replace_head = num_classes is not None and num_classes != found
        if replace_head:
            _logger.info(
                "%s: a new head for %d classes, all zero, %s.",
                checkpoint.name,
                num_classes,
                f"replaces the one for {found}" if found else "is added to a file without one",
            )
        with arrays:
            take_arrays(network, arrays, replace_head=replace_head)
    if classifier_activation is None:
        return network
    outputs = layers.Activation(classifier_activation, dtype=_full_dtype(), name="scores")(outputs)
    return keras.Model(inputs, outputs, name=checkpoint.name)


def create_feature_extractor(
    name: str,
    weights: Weights = "pretrained",
    input_shape: InputShape = (None, None, 3),
    include_preprocessing: bool = False,
) -> keras.Model:
    """A network without its head: images to one feature vector each.

    Args:
        name: str. A model name or an alias; see `bit_keras.list_models`.
        weights: `"pretrained"`, `None` (random) or the path of an official npz
            file. Defaults to `"pretrained"`.
        input_shape: tuple of height, width and 3; sides may be `None` or any
            number of pixels from 32 up. Defaults to `(None, None, 3)`.
        include_preprocessing: bool. Take pixels in [0, 255] and rescale them
            inside. Defaults to `False`.

    Returns:
        keras.Model. Input: RGB images, channels last, `(batch, height, width,
        3)`, float32 in [-1, 1], or [0, 255] with `include_preprocessing`. Output:
        float32 `(batch, channels)`, the mean of `pre_logits_map`: not negative.

    Raises:
        The errors of `create_classifier`.

    Example:

    ```python
    model = bit_keras.create_feature_extractor("bit_tiny.cifar10", weights=None)
    model.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape  # (1, 1024)
    ```
    """
    maps = _loaded_maps(model_info(name), weights, input_shape, include_preprocessing)
    return keras.Model(maps.input, _pool(maps.output["pre_logits_map"]), name=maps.name)


def create_feature_maps(
    name: str,
    weights: Weights = "pretrained",
    levels: Sequence[str] = FEATURE_MAPS,
    input_shape: InputShape = (None, None, 3),
    include_preprocessing: bool = False,
) -> keras.Model:
    """A network that returns its feature maps by name, for dense tasks.

    Args:
        name: str. A model name or an alias; see `bit_keras.list_models`.
        weights: `"pretrained"`, `None` (random) or the path of an official npz
            file. Defaults to `"pretrained"`.
        levels: sequence of str, some of `stem` (stride 2, the root convolution
            before the pool), `block1` to `block4` (strides 4, 8, 16, 32: residual
            sums, not normalised) and `pre_logits_map` (stride 32, after the last
            GroupNorm and ReLU). Defaults to all.
        input_shape: tuple of height, width and 3; sides may be `None` or any
            number of pixels from 32 up. Defaults to `(None, None, 3)`.
        include_preprocessing: bool. Take pixels in [0, 255] and rescale them
            inside. Defaults to `False`.

    Returns:
        keras.Model. Input: as `create_feature_extractor`. Output: dict from level
        to map, `(batch, height / stride, width / stride, channels)` rounded up,
        the compute dtype.

    Raises:
        The errors of `create_classifier`, and BitKerasError for unknown levels.

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
            f"levels must be some of {', '.join(FEATURE_MAPS)}. Received: levels={levels}"
        )
    maps = _loaded_maps(model_info(name), weights, input_shape, include_preprocessing)
    return keras.Model(maps.input, {level: maps.output[level] for level in levels}, name=maps.name)


def network_of_file(path: str | os.PathLike) -> keras.Model:
    """The network that an official npz file belongs to, with its weights.

    The architecture is recognised from the content. Where the name of the file is
    an alias of a checkpoint with that architecture and head, the model bears the
    checkpoint's name, and so knows its labels and its image size; elsewhere that
    of the architecture.

    Args:
        path: An official npz file. Without a head it gives a feature extractor.

    Returns:
        keras.Model, as `create_classifier` or `create_feature_extractor` makes it.

    Raises:
        CheckpointError: The file is damaged, or no network of the registry.
    """
    with open_checkpoint(path) as arrays:
        architecture, classes = require_known(arrays), head_classes(arrays.shapes)
        name = _name_by_file(arrays.path.stem, architecture, classes) or architecture.name
        inputs, maps = _network(architecture, (None, None, 3), include_preprocessing=False)
        outputs = _pool(maps["pre_logits_map"]) if classes is None else _head(maps, classes)
        network = keras.Model(inputs, outputs, name=name)
        take_arrays(network, arrays)
    return network


def _name_by_file(stem: str, architecture: Architecture, classes: int | None) -> str | None:
    try:
        checkpoint = model_info(stem)
    except UnknownModelError:
        return None
    fits = checkpoint.architecture == architecture and classes in (None, checkpoint.classes)
    return checkpoint.name if fits else None


def _loaded_maps(
    checkpoint: Checkpoint, weights: Weights, input_shape: InputShape, include_preprocessing: bool
) -> keras.Model:
    """The whole network without its head, so that a file fills all of it or fails."""
    inputs, maps = _network(checkpoint.architecture, input_shape, include_preprocessing)
    network = keras.Model(inputs, maps, name=checkpoint.name)
    arrays = _open(weights, checkpoint)
    if arrays is not None:
        with arrays:
            take_arrays(network, arrays)
    return network


def _network(
    architecture: Architecture, input_shape: InputShape, include_preprocessing: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    inputs = keras.Input(_checked(input_shape), name="inputs")
    images = inputs
    if include_preprocessing:
        images = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling")(inputs)
    return inputs, feature_maps(images, architecture)


def _head(maps: dict[str, Tensor], classes: int) -> Tensor:
    head = layers.Dense(classes, kernel_initializer="zeros", dtype=_full_dtype(), name="head")
    return head(_pool(maps["pre_logits_map"]))


def _pool(x: Tensor) -> Tensor:
    return layers.GlobalAveragePooling2D(
        data_format="channels_last", dtype=_full_dtype(), name="features"
    )(x)


def _full_dtype() -> str:
    """At least float32: a mean or a sum of products in half precision loses the digits."""
    compute_dtype = keras.config.dtype_policy().compute_dtype
    return "float32" if compute_dtype in ("float16", "bfloat16") else compute_dtype


def _checked(input_shape: InputShape) -> InputShape:
    try:
        height, width, channels = input_shape
    except (TypeError, ValueError):
        height = width = channels = 0
    sides_fit = all(side is None or side >= MINIMUM_SIZE for side in (height, width))
    if channels != 3 or not sides_fit:
        raise BitKerasError(
            f"input_shape must be (height, width, 3) with sides of {MINIMUM_SIZE} pixels or more, "
            f"or None for any. Received: input_shape={input_shape}"
        )
    return height, width, channels


def _open(weights: Weights, checkpoint: Checkpoint) -> CheckpointFile | None:
    if weights is None:
        return None
    return open_checkpoint(pretrained_path(checkpoint) if weights == "pretrained" else weights)


def _classes_of(arrays: CheckpointFile | None, checkpoint: Checkpoint) -> int:
    classes = head_classes(arrays.shapes) if arrays is not None else None
    if classes is None:
        raise BitKerasError(
            f"No source states how many classes {checkpoint.name} has; pass num_classes=."
        )
    return classes
