"""Target `hub`: a reusable SavedModel that `hub.KerasLayer` calls and fine-tunes.

The interface is the one of `tensorflow/hub`, `docs/reusable_saved_models.md`.
`model.export` and `tf.saved_model.save(model)` do not write it: they leave out
the callable root or the list of trainable variables.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.atomic import new_directory, scratch_directory
from bit_keras.exporters.folded_kernel import with_folded_kernels
from bit_keras.exporters.image_bytes import MAX_PIXELS, checked_max_pixels
from bit_keras.exporters.saved_model import (
    describe,
    features_and_outputs,
    save,
    write_reference,
)
from bit_keras.exporters.serving_signatures import labels_asset, rescaled, serving_signatures
from bit_keras.exporters.specs import transform_and_spec
from bit_keras.exporters.targets import require_class_maps
from bit_keras.preprocessing import ClassifierSpec, EvalTransform


def export_hub(
    model: keras.Model,
    path: str | os.PathLike,
    input_range: tuple[float, float] = (-1.0, 1.0),
    spec: ClassifierSpec | None = None,
    folded: bool = False,
    class_maps: bool = False,
    allow_nonfinite: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Metadata:
    """Writes a model as a reusable SavedModel.

    The artifact has a callable root with an optional Python bool `training`,
    `variables`, `trainable_variables` and `regularization_losses`, the signature
    `serving_default` (`inputs` -> `logits` or `features`) for any batch, height
    and width, and a stored input and output for `bit_keras.artifacts.verify`. It
    loads in TensorFlow 2.10 and later.

    With `class_maps` it has the signature `class_maps` too: `inputs` -> `class_maps`,
    float32 `(batch, height / 32, width / 32, classes)`, sides rounded up, what
    `bit_keras.create_class_maps` gives. All signatures share the weights and the graph.

    With `folded` it is also an artifact for servers, with the signatures of
    `bit_keras.exporters.serving.export_serving`. They use kernels that are standardised
    when the artifact is loaded: after fine-tuning, save it and load it again. The
    callable root always uses the kernels as they are. OpenVINO, the converter of
    TensorFlow.js and the scope of a `tf.distribute` strategy do not take such an artifact.

    Args:
        model: From `create_classifier` or `create_feature_extractor`, on the
            TensorFlow backend.
        path: The folder to create; it must not exist. Written atomically.
        input_range: `(-1.0, 1.0)`, BiT's own, or `(0.0, 1.0)`, the common image
            range of TF Hub. Defaults to `(-1.0, 1.0)`.
        spec: ClassifierSpec. The labels and the transform of a classifier, which travel in
            the metadata. Defaults to what the registry knows of the model's name.
        folded: bool. Add the signatures of a server. Defaults to `False`.
        class_maps: bool. Add the signature `class_maps`. Defaults to `False`.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to `False`.
        max_pixels: int. With `folded`, the most pixels of an encoded image, which its
            header states. Defaults to 25,000,000.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError: Another backend, an unknown range, a model that is not a BiT, a
            task with another number of classes, class maps of a feature extractor, or
            TensorFlow cannot write.
        SizeError: `folded`, and the size of the images is not known.
        BitKerasError: The path exists, or its parent does not; or `folded`, and the
            network takes other images than RGB squares.

    Example:

    ```python
    from bit_keras.exporters.hub import export_hub

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    export_hub(model, "bit_tiny").variant  # 'classification'
    ```
    """
    metadata = describe(model, "hub", input_range, spec, allow_nonfinite)
    if class_maps:
        require_class_maps(metadata)
    if not folded:
        with new_directory(path) as folder:
            root = ReusableModel(model, metadata, class_maps)
            signatures = {"serving_default": root.serve}
            if class_maps:
                signatures[CLASS_MAPS] = root.class_maps
            save(root, signatures, folder, path)
            write_reference(model, metadata, folder, class_maps=class_maps)
        return metadata
    transform, spec = transform_and_spec(model, None, spec)
    metadata = dataclasses.replace(metadata, folded=True, max_pixels=checked_max_pixels(max_pixels))
    with new_directory(path) as folder:
        with scratch_directory() as scratch:
            served = ServedReusableModel(model, metadata, spec, transform, scratch, class_maps)
            save(served, served.endpoints, folder, path)
        write_reference(model, metadata, folder, transform, class_maps)
    return metadata


class ReusableModel(tf.train.Checkpoint):
    """A Keras model behind the interface of a reusable SavedModel.

    `tf.train.Checkpoint`, not `tf.Module`: the variable lists of a module are
    properties, which are not saved.

    Args:
        model: keras.Model with one input and one output.
        metadata: Metadata.
        class_maps: bool. Whether there is an endpoint `class_maps`.
    """

    def __init__(self, model: keras.Model, metadata: Metadata, class_maps: bool = False) -> None:
        super().__init__()
        self.variables = [variable.value for variable in model.variables]
        self.trainable_variables = [variable.value for variable in model.trainable_variables]
        self.regularization_losses = [
            _regularization_loss(variable)
            for variable in model.trainable_variables
            if variable.regularizer is not None
        ]
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="inputs")
        if class_maps:
            infer = self._add_class_maps(model, images, metadata)
        else:
            infer = _traced(model, images, metadata, training=False)
        train = infer
        if any(variable.path.endswith("/moving_mean") for variable in model.variables):
            # Only BatchNorm computes something else in training.
            train = _traced(model, images, metadata, training=True)

        # No input signature: the Python value of `training` picks the trace.
        self.__call__ = tf.function(
            lambda inputs, training=False: train(inputs) if training else infer(inputs),
            autograph=False,
        )
        for training in (False, True):
            self.__call__.get_concrete_function(images, training=training)
        output = OUTPUTS[metadata.variant]
        #: The endpoint that `keras.layers.TFSMLayer` calls unless told otherwise.
        self.serve = tf.function(
            lambda inputs: {output: infer(inputs)}, input_signature=[images], autograph=False
        )

    def _add_class_maps(
        self, model: keras.Model, images: tf.TensorSpec, metadata: Metadata
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        """Adds the endpoint, and returns the network over the graph that both share."""
        network = features_and_outputs(model, class_maps=True)
        core, head = _traced(network, images, metadata, training=False), model.get_layer("head")
        self.class_maps = tf.function(
            lambda inputs: {CLASS_MAPS: head(core(inputs)[2])},
            input_signature=[images],
            autograph=False,
        )
        return lambda inputs: core(inputs)[1]


class ServedReusableModel(ReusableModel):
    """A reusable SavedModel with the signatures of a server over folded kernels.

    Args:
        model: keras.Model from a builder.
        metadata: Metadata.
        spec: ClassifierSpec, or None for a feature extractor.
        transform: EvalTransform. Of encoded images.
        folder: Path. Where the class list is written, for `tf.saved_model.save` to
            copy.
        class_maps: bool. Whether there is an endpoint `class_maps`.
    """

    def __init__(
        self,
        model: keras.Model,
        metadata: Metadata,
        spec: ClassifierSpec | None,
        transform: EvalTransform,
        folder: Path,
        class_maps: bool = False,
    ) -> None:
        super().__init__(model, metadata)
        network, self.filler = with_folded_kernels(features_and_outputs(model, class_maps))
        self.labels = None if spec is None else labels_asset(spec.labels, folder)
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        self.endpoints = serving_signatures(network, metadata, images, spec, transform, class_maps)


def _traced(
    model: keras.Model, images: tf.TensorSpec, metadata: Metadata, *, training: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network as one graph that every entry point shares; separate ones weigh twice."""
    return tf.function(
        lambda inputs: model(rescaled(inputs, metadata.input_range), training=training),
        input_signature=[images],
        autograph=False,
    )


def _regularization_loss(variable: keras.Variable) -> Callable[[], tf.Tensor]:
    # A closure, not a default argument: defaults would become inputs of the graph.
    return tf.function(
        lambda: variable.regularizer(variable.value), input_signature=[], autograph=False
    )
