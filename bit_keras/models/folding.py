"""The same function without weight standardisation at run time."""

from collections.abc import Callable, Iterator

import keras

from bit_keras.layers import StdConv2D


def fold_weight_standardization(model: keras.Model) -> keras.Model:
    """A copy of a model with plain convolutions that compute the same.

    Standardising the 53 kernels of an R50x1 takes as long for one image as for a
    thousand, and nothing depends on the image: here it is done once, and the
    results are the kernels of `keras.layers.Conv2D`. Names, inputs and outputs
    stay. The copy is for inference: to train it is to train another network,
    without standardisation.

    Args:
        model: keras.Model, of this package or with one inside. It is not changed.

    Returns:
        keras.Model with weights of its own. It differs from `model` by the
        rounding of float32 at most.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10")
    folded = bit_keras.fold_weight_standardization(model)
    type(folded.get_layer("stem_conv")).__name__  # 'Conv2D'
    ```

    Reference:
        [Qiao et al., 2019](https://arxiv.org/abs/1903.10520). Standardising a folded
        kernel again changes nothing, so an official file may hold it too.
    """
    folded = clone_with(model, _plain)
    for source, target in zip(leaf_layers(model), leaf_layers(folded), strict=True):
        weights = source.get_weights()
        if isinstance(source, StdConv2D):
            weights[0] = keras.ops.convert_to_numpy(source.standardized_kernel())
        target.set_weights(weights)
    return folded


def clone_with(
    model: keras.Model, swap: Callable[[keras.layers.Layer], keras.layers.Layer]
) -> keras.Model:
    """A copy of a model in which `swap` gives the layer for each that holds no others."""
    return keras.models.clone_model(model, clone_function=swap, recursive=True)


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it, without these models themselves."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def _plain(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if not isinstance(layer, StdConv2D):
        return layer.__class__.from_config(config)
    del config["epsilon"]
    return keras.layers.Conv2D.from_config(config)
