"""Gradients of a layer on any backend, and of a NumPy function by differences."""

import keras
import numpy as np


class Shift(keras.layers.Layer):
    """Adds a weight of zeros to its input, so that the input gets a gradient too."""

    def build(self, input_shape):
        self.shift = self.add_weight(name="shift", shape=input_shape, initializer="zeros")

    def call(self, inputs):
        return inputs + self.shift


def gradients(layer, inputs, cotangent):
    """Gradients of `sum(layer(inputs) * cotangent)`, by the name of the weight, and of the inputs.

    One step of gradient descent with the rate 1 moves every weight by its gradient.
    """
    images = keras.Input(batch_shape=inputs.shape)
    model = keras.Model(images, layer(Shift()(images)))
    model.compile(
        keras.optimizers.SGD(1.0),
        loss=lambda y_true, y_pred: keras.ops.sum(y_true * y_pred),
        # As a graph, TensorFlow 2.21 may update a weight before all that reads it has run: its
        # `dependency_optimization` drops the order of reads and writes (without that pass it is
        # right). Two Dense layers of Keras show it too, and at the rate 1 it is plain to see.
        run_eagerly=True,
    )
    before = _values(model)
    model.train_on_batch(inputs, cotangent)
    after = _values(model)
    moved = {name: before[name] - after[name] for name in before}
    return moved | {"inputs": moved.pop("shift")}


def _values(model):
    # Copies: TensorFlow lends NumPy the memory that the next step writes to.
    return {w.name: keras.ops.convert_to_numpy(w).astype("float64") for w in model.weights}


def central_differences(function, argument, step=1e-6):
    """The gradient of a float64 function from arrays to numbers, to about 1e-9."""
    gradient = np.zeros_like(argument)
    for index in np.ndindex(argument.shape):
        moved = np.zeros_like(argument)
        moved[index] = step
        difference = function(argument + moved) - function(argument - moved)
        gradient[index] = difference / (2 * step)
    return gradient


def relative_error(actual, expected):
    """The largest difference, in units of the largest expected value."""
    actual = keras.ops.convert_to_numpy(actual).astype("float64")
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / np.abs(expected).max()
