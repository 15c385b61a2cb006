"""Target `hub`: a reusable SavedModel that `hub.KerasLayer` calls and fine-tunes.

The interface is the one of `tensorflow/hub`, `docs/reusable_saved_models.md`.
`model.export` and `tf.saved_model.save(model)` do not write it: they leave out
the callable root or the list of trainable variables.
"""

import os
import re
from collections.abc import Callable

import keras
import tensorflow as tf

import bit_keras
from bit_keras.atomic import new_directory
from bit_keras.errors import ExportError
from bit_keras.export.artifact import (
    INPUT_RANGES,
    OUTPUTS,
    TOLERANCE,
    Metadata,
    Variant,
    golden_images,
    write_golden,
)
from bit_keras.export.task import checked_task
from bit_keras.preprocessing import Task
from bit_keras.registry import model_info


def export_hub(
    model: keras.Model,
    path: str | os.PathLike,
    input_range: tuple[float, float] = (-1.0, 1.0),
    task: Task | None = None,
) -> Metadata:
    """Writes a model as a reusable SavedModel.

    The artifact has a callable root with an optional Python bool `training`,
    `variables`, `trainable_variables` and `regularization_losses`, the signature
    `serving_default` (`inputs` -> `logits` or `features`) for any batch, height
    and width, and a stored input and output for `bit_keras.export.verify`. It
    loads in TensorFlow 2.10 and later.

    Args:
        model: From `create_classifier` or `create_feature_extractor`, on the
            TensorFlow backend.
        path: The folder to create; it must not exist. Whole or absent.
        input_range: `(-1.0, 1.0)`, BiT's own, or `(0.0, 1.0)`, the common image
            range of TF Hub. Defaults to `(-1.0, 1.0)`.
        task: Task. The labels and the transform of a classifier, which travel in
            the metadata. Defaults to what the registry knows of the model's name.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError: Another backend, an unknown range, a model that is no BiT, a
            task with another number of classes, or TensorFlow cannot write.
        BitKerasError: The path exists, or its parent does not.

    Example:

    ```python
    from bit_keras.export.hub import export_hub

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    export_hub(model, "bit_tiny").variant  # 'classification'
    ```
    """
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            "A SavedModel can be written with the TensorFlow backend alone, and this process "
            f"runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow."
        )
    input_range = _checked(input_range)
    metadata = _describe(model, input_range, task)
    with new_directory(path) as partial:
        root = ReusableModel(model, OUTPUTS[metadata.variant], input_range)
        try:
            tf.saved_model.save(
                root, os.fspath(partial), signatures={"serving_default": root.serve}
            )
        except tf.errors.OpError as error:
            # Without the graph node in front and the name of the kernel behind.
            reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", error.message)
            raise ExportError(
                f"{path} could not be written ({reason}); nothing was left behind."
            ) from error
        metadata.write(partial)
        height, width = _golden_size(model, metadata)
        answer = model(golden_images(height, width, (-1.0, 1.0)), training=False)
        write_golden(partial, golden_images(height, width, input_range), answer.numpy())
    return metadata


class ReusableModel(tf.train.Checkpoint):
    """A Keras model behind the interface of a reusable SavedModel.

    `tf.train.Checkpoint`, not `tf.Module`: the variable lists of a module are
    properties, which are not saved.

    Args:
        model: keras.Model with one input and one output.
        output: str. The name of the output in the signature.
        input_range: tuple of 2 floats. The range that callers scale pixels to.
    """

    def __init__(self, model: keras.Model, output: str, input_range: tuple[float, float]) -> None:
        super().__init__()
        self.variables = [variable.value for variable in model.variables]
        self.trainable_variables = [variable.value for variable in model.trainable_variables]
        self.regularization_losses = [
            _regularization_loss(variable)
            for variable in model.trainable_variables
            if variable.regularizer is not None
        ]
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="inputs")
        infer = _traced(model, images, input_range, training=False)
        train = infer
        if any(variable.path.endswith("/moving_mean") for variable in model.variables):
            # Only BatchNorm computes something else in training.
            train = _traced(model, images, input_range, training=True)

        # No input signature: the Python value of `training` picks the trace.
        self.__call__ = tf.function(
            lambda inputs, training=False: train(inputs) if training else infer(inputs),
            autograph=False,
        )
        for training in (False, True):
            self.__call__.get_concrete_function(images, training=training)
        #: The endpoint that `keras.layers.TFSMLayer` calls unless told otherwise.
        self.serve = tf.function(
            lambda inputs: {output: infer(inputs)}, input_signature=[images], autograph=False
        )


def _traced(
    model: keras.Model, images: tf.TensorSpec, input_range: tuple[float, float], *, training: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network as one graph that every entry point shares; separate ones weigh twice."""
    low, high = input_range

    def network(inputs: tf.Tensor) -> tf.Tensor:
        if input_range != (-1.0, 1.0):
            inputs = (inputs - low) * (2.0 / (high - low)) - 1.0
        return model(inputs, training=training)

    return tf.function(network, input_signature=[images], autograph=False)


def _regularization_loss(variable: keras.Variable) -> Callable[[], tf.Tensor]:
    # A closure, not a default argument: defaults would become inputs of the graph.
    return tf.function(
        lambda: variable.regularizer(variable.value), input_signature=[], autograph=False
    )


def _describe(model: keras.Model, input_range: tuple[float, float], task: Task | None) -> Metadata:
    checkpoint = model_info(model.name)
    variants: dict[str, Variant] = {"head": "classification", "features": "feature_extraction"}
    last = model.layers[-1].name
    if last not in variants:
        raise ExportError(
            f"The last layer of {model.name} is {last!r}; the target hub takes what "
            "create_classifier (without an activation) and create_feature_extractor return."
        )
    if any(layer.name == "rescaling" for layer in model.layers):
        raise ExportError(
            f"{model.name} takes pixels in [0, 255]; build it without include_preprocessing, and "
            "say with input_range what the artifact takes."
        )
    if variants[last] == "classification":
        task = checked_task(model, task)
    elif task is not None:
        raise ExportError(f"{model.name} returns features, and the task is that of a classifier.")
    return Metadata(
        model=checkpoint.name,
        target="hub",
        variant=variants[last],
        input_range=input_range,
        outputs=model.output_shape[-1],
        task=None if task is None else task.to_json(),
        tolerance=TOLERANCE,
        versions={
            "bit_keras": bit_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    )


def _golden_size(model: keras.Model, metadata: Metadata) -> tuple[int, int]:
    height, width = model.input_shape[1:3]
    tasked = metadata.task and metadata.task["transform"]["size"]
    free = tasked or model_info(metadata.model).size or 224
    return height or free, width or free


def _checked(input_range: tuple[float, float]) -> tuple[float, float]:
    input_range = (float(input_range[0]), float(input_range[1]))
    if input_range not in INPUT_RANGES:
        raise ExportError(
            f"input_range must be (-1, 1) or (0, 1). Received: input_range={input_range}"
        )
    return input_range
