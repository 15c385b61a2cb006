"""Target `hub`: a reusable SavedModel that `hub.KerasLayer` calls and fine-tunes.

The interface is the one of `tensorflow/hub`, `docs/reusable_saved_models.md`.
`model.export` and `tf.saved_model.save(model)` do not write it: they omit
the callable root or the list of trainable variables.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.atomic import new_directory, scratch_directory
from bit_keras.exporters.description import describe
from bit_keras.exporters.folded_kernel import with_folded_kernels
from bit_keras.exporters.image_bytes import MAX_PIXELS
from bit_keras.exporters.outputs import ExportedNetwork, apply_level
from bit_keras.exporters.saved_model_folder import save, write_reference
from bit_keras.exporters.serving_signatures import labels_asset, rescaled, serving_signatures
from bit_keras.exporters.specs import transform_and_spec
from bit_keras.preprocessing import ClassifierSpec, EvalTransform


def export_hub(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    input_range: tuple[float, float] = (-1.0, 1.0),
    spec: ClassifierSpec | None = None,
    folded: bool = False,
    allow_nonfinite: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Metadata:
    """Writes a model as a reusable SavedModel.

    The artifact has a callable root with an optional Python bool `training`,
    `variables`, `trainable_variables` and `regularization_losses`, the signature
    `serving_default` (`inputs` -> `logits` or `features`) for any batch, height
    and width, and a stored input and output for `bit_keras.artifacts.Artifact.verify`. It
    loads in TensorFlow 2.10 and later. Each further output level has a signature of its own:
    `inputs` -> the output. All signatures share the weights and the graph.

    With `folded` it is also an artifact for servers, with the signatures of
    `bit_keras.exporters.serving.export_serving`. They use kernels that are standardised
    when the artifact is loaded: after fine-tuning, save it and load it again. The
    callable root always uses the kernels as they are. OpenVINO, the converter of
    TensorFlow.js and the scope of a `tf.distribute` strategy do not take such an artifact.

    The options are described, and checked, by `bit_keras.export`, which calls this function.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError, SizeError, BitKerasError: As `bit_keras.export`.
    """
    network = ExportedNetwork.of(model)
    metadata = describe(network.model, "hub", input_range, spec, allow_nonfinite)
    transform = None
    if folded:
        transform, _ = transform_and_spec(network.model, None, spec)
        metadata = dataclasses.replace(metadata, folded=True, max_pixels=max_pixels)
    with new_directory(path) as folder, scratch_directory() as scratch:
        if transform is None:
            root = ReusableModel(network, metadata)
            levels = {name: getattr(root, name) for name in network.levels}
            save(root, {"serving_default": root.serve, **levels}, folder, path)
        else:
            served = ServedReusableModel(network, metadata, transform, scratch)
            save(served, served.endpoints, folder, path)
        write_reference(network, metadata, folder, transform)
    return metadata


class ReusableModel(tf.train.Checkpoint):
    """A Keras model with the interface of a reusable SavedModel.

    `tf.train.Checkpoint`, not `tf.Module`: the variable lists of a module are
    properties, which are not saved.

    Args:
        network: ExportedNetwork. Each further level has an endpoint of its name.
        metadata: Metadata.
    """

    def __init__(self, network: ExportedNetwork, metadata: Metadata) -> None:
        super().__init__()
        model = network.model
        self.variables = [variable.value for variable in model.variables]
        self.trainable_variables = [variable.value for variable in model.trainable_variables]
        self.regularization_losses = [
            _regularization_loss(variable)
            for variable in model.trainable_variables
            if variable.regularizer is not None
        ]
        images = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="inputs")
        if network.levels:
            infer = self._add_levels(network, images, metadata)
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

    def _add_levels(
        self, network: ExportedNetwork, images: tf.TensorSpec, metadata: Metadata
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        """Adds the endpoints, and returns the network over the graph that all of them share."""
        core = _traced(network.graph(), images, metadata, training=False)

        def endpoint(number: int, name: str) -> Callable:
            return tf.function(
                lambda inputs: {name: apply_level(name, network.model, core(inputs)[number])},
                input_signature=[images],
                autograph=False,
            )

        for number, name in enumerate(network.levels, start=2):
            setattr(self, name, endpoint(number, name))
        return lambda inputs: core(inputs)[1]


class ServedReusableModel(ReusableModel):
    """A reusable SavedModel with the signatures of a server over folded kernels.

    Args:
        network: ExportedNetwork. Each further level has an endpoint of its name.
        metadata: Metadata.
        transform: EvalTransform. Of encoded images.
        folder: Path. Where the class list is written, for `tf.saved_model.save` to
            copy.
    """

    def __init__(
        self,
        network: ExportedNetwork,
        metadata: Metadata,
        transform: EvalTransform,
        folder: Path,
    ) -> None:
        super().__init__(ExportedNetwork(network.model), metadata)
        graph, self.filler = with_folded_kernels(network.graph())
        self.labels = labels_asset(metadata, folder)
        images = tf.TensorSpec([None, *network.model.input_shape[1:]], tf.float32)
        self.endpoints = serving_signatures(graph, metadata, images, transform, network.levels)


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
