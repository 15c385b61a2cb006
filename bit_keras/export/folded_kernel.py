"""Kernels that are standardised when a SavedModel is loaded, and not stored twice."""

from typing import Any

import keras
import tensorflow as tf

from bit_keras.layers import StdConv2D
from bit_keras.models.folding import clone_with


class FoldedKernel(tf.saved_model.experimental.TrackableResource):
    """The standardised kernel of a layer, computed from the stored one by every loader.

    Args:
        layer: StdConv2D.
    """

    def __init__(self, layer: StdConv2D) -> None:
        super().__init__()
        self._layer = layer
        self.kernel = layer.kernel.value  # Restored before the resource is initialised.

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(
            dtype=tf.float32,
            shape=self.kernel.shape,
            # A graph finds the kernel by this name.
            shared_name=f"folded/{self._layer.name}",
        )

    def _initialize(self) -> None:
        tf.raw_ops.AssignVariableOp(
            resource=self.resource_handle, value=self._layer.standardized_kernel()
        )

    def read(self) -> tf.Tensor:
        """The standardised kernel, float32 `(height, width, in, out)`."""
        value = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32)
        return tf.ensure_shape(value, self.kernel.shape)


class FoldedConv2D(keras.layers.Layer):
    """The convolution of a `StdConv2D`, with the kernel of a `FoldedKernel`."""

    def __init__(self, layer: StdConv2D, kernel: FoldedKernel) -> None:
        super().__init__(name=layer.name)
        self._layer, self._kernel = layer, kernel

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        layer = self._layer
        return keras.ops.conv(
            inputs,
            self._kernel.read(),
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        return self._layer.compute_output_shape(input_shape)


def with_folded_kernels(model: keras.Model) -> tuple[keras.Model, dict[str, FoldedKernel]]:
    """A network that shares all its weights with `model`, and uses folded kernels.

    Args:
        model: keras.Model of this package.

    Returns:
        The network, and its FoldedKernel by the name of the layer.
    """
    kernels: dict[str, FoldedKernel] = {}

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, StdConv2D):
            return layer
        kernels[layer.name] = FoldedKernel(layer)
        return FoldedConv2D(layer, kernels[layer.name])

    return clone_with(model, swap), kernels
