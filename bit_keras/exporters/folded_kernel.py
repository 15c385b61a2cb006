"""Kernels that are standardised when a SavedModel is loaded, and not stored twice."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from bit_keras.layers import StdConv2D
from bit_keras.models.folding import clone_with, require_same_outputs


def with_folded_kernels(model: keras.Model) -> tuple[keras.Model, "KernelFiller"]:
    """A network that shares all its weights with `model`, and uses folded kernels.

    Args:
        model: keras.Model of this package.

    Returns:
        The network, and what fills its folded kernels. A SavedModel of the network has to
        contain both.

    Raises:
        BitKerasError: The network computes something else than `model`.
    """
    layers: dict[str, StdConv2D] = {}
    folded: dict[str, tf.Variable] = {}

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, StdConv2D):
            return layer
        layers[layer.name] = layer
        folded[layer.name] = _unsaved_variable(layer.standardized_kernel(), layer.name)
        return FoldedConv2D(layer, folded[layer.name])

    network = clone_with(model, swap)
    require_same_outputs(model, network)
    return network, KernelFiller(layers, folded)


def _unsaved_variable(value: tf.Tensor, name: str) -> tf.Variable:
    """An ordinary variable that the checkpoint of a SavedModel omits.

    A program that loads the SavedModel and saves it again does store it, as any other.
    """
    variable = tf.Variable(value, trainable=False, name=f"folded/{name}")
    export = variable._export_to_saved_model_graph

    def export_unsaved(object_map: Any, *args: Any, **kwargs: Any) -> Any:
        resources = export(object_map, *args, **kwargs)
        # The same for the variable that stands for it in the graph, whose saver C++ runs.
        object_map[variable]._serialize_to_tensors = dict
        return resources

    # What `tf.saved_model.save` asks objects for, here: no tensors. TensorFlow has no public
    # way to say so.
    variable._serialize_to_tensors = dict
    variable._export_to_saved_model_graph = export_unsaved
    return variable


class KernelFiller(tf.saved_model.experimental.TrackableResource):
    """Assigns standardised kernels to variables, by what every loader runs after restoring.

    It has no resource of its own: `_initialize` of a resource is the only function that
    the loaders in Python and in C++ both call.

    Args:
        layers: dict of StdConv2D by name.
        folded: dict of tf.Variable, their standardised kernels, by the same names.
    """

    def __init__(self, layers: Mapping[str, StdConv2D], folded: Mapping[str, tf.Variable]) -> None:
        super().__init__()
        self._layers, self._folded = layers, folded
        kernels = {name: layer.kernel.value for name, layer in layers.items()}
        # Attributes of a resource are not tracked. `keras.Model.export` saves this object
        # without the root that contains its variables.
        self._track_trackable(tf.train.Checkpoint(kernels=kernels, folded=folded), "state")

    def _create_resource(self) -> tf.Tensor:
        return tf.zeros([])

    def _initialize(self) -> None:
        for name, layer in self._layers.items():
            self._folded[name].assign(layer.standardized_kernel())


class FoldedConv2D(keras.layers.Layer):
    """The convolution of a `StdConv2D`, with a kernel that is standardised already."""

    def __init__(self, layer: StdConv2D, kernel: tf.Variable) -> None:
        super().__init__(name=layer.name)
        self._layer, self._kernel = layer, kernel

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        layer = self._layer
        return keras.ops.conv(
            inputs,
            tf.convert_to_tensor(self._kernel),
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        return self._layer.compute_output_shape(input_shape)
