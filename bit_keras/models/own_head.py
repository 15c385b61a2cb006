"""Converts a user's model, a feature extractor with a Dense layer, to a classifier."""

from typing import Any

import keras

from bit_keras.errors import BitKerasError
from bit_keras.layers.functional import Functional
from bit_keras.preprocessing.classifier_spec import Activation
from bit_keras.registry import checkpoint_of

#: Layers that do nothing at inference.
_IDENTITIES = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.RandomBrightness,
    keras.layers.RandomContrast,
    keras.layers.RandomFlip,
    keras.layers.RandomRotation,
    keras.layers.RandomTranslation,
    keras.layers.RandomZoom,
    keras.layers.SpatialDropout2D,
)


def with_own_head(model: keras.Model) -> tuple[keras.Model, Activation]:
    """Converts a feature extractor with a Dense layer to an equivalent classifier.

    Args:
        model: keras.Model. A Sequential or Functional model that is a chain: a network from
            `create_feature_extractor`, then one `keras.layers.Dense`, with or without an
            activation or an activation layer after it. Layers that do nothing at inference,
            such as `keras.layers.Dropout`, are ignored. The model is not changed.

    Returns:
        tuple of a keras.Model, like those of `create_classifier`, which shares the layers of
        the extractor; and `"softmax"` or `"sigmoid"`, the activation for its logits.

    Raises:
        BitKerasError: The model has another structure. The message names the layer.

    Example:

    ```python
    extractor = bit_keras.create_feature_extractor("bit_tiny.cifar10", weights=None)
    layers = [keras.Input((64, 64, 3)), extractor, keras.layers.Dense(3, activation="sigmoid")]
    classifier, activation = bit_keras.models.with_own_head(keras.Sequential(layers))
    classifier.layers[-1].name, activation  # ('head', 'sigmoid')
    ```
    """
    layers = [layer for layer in _operations(model) if not isinstance(layer, _IDENTITIES)]
    if not layers or not _is_extractor(layers[0]):
        raise _refusal(model, layers[0] if layers else model, "a network of this package")
    network, *rest = layers
    if not rest or type(rest[0]) is not keras.layers.Dense or rest[0].quantization_mode:
        raise _refusal(model, rest[0] if rest else network, "one Dense layer after the network")
    dense, *after = rest
    names = [_activation(layer) for layer in rest]
    known = [name for name in names if name != "linear"]
    if None in names or len(known) > 1 or any(isinstance(e, keras.layers.Dense) for e in after):
        odd = next((e for e, name in zip(rest, names, strict=True) if name is None), rest[-1])
        raise _refusal(model, odd, "at most a softmax or a sigmoid after the Dense layer")
    outputs = _logits(dense, network)
    classifier = Functional(
        network.inputs[0], outputs, name=model.name, checkpoint=checkpoint_of(network)
    )
    return classifier, "sigmoid" if known == ["sigmoid"] else "softmax"


def _operations(model: keras.Model) -> list[keras.Operation]:
    """Returns the operations of a model with one input and one output, in order.

    The accepted operations take one tensor each, so they form a chain.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise _refusal(model, model, "one input and one output")
    sequential = isinstance(model, keras.Sequential)
    operations = model.layers if sequential else model.operations
    return [each for each in operations if not isinstance(each, keras.layers.InputLayer)]


def _is_extractor(layer: keras.Operation) -> bool:
    return isinstance(layer, keras.Model) and layer.layers[-1].name == "features"


def _activation(layer: keras.Operation) -> str | None:
    """Returns the name of a layer's activation, or None if it is not supported."""
    if isinstance(layer, keras.layers.Softmax):
        return "softmax" if layer.axis == -1 else None
    if isinstance(layer, keras.layers.Dense | keras.layers.Activation):
        name = keras.activations.serialize(layer.activation)
        return name if name in ("linear", "sigmoid", "softmax") else None
    return None


def _logits(dense: keras.layers.Dense, network: keras.Model) -> Any:
    """Returns the output of a head with the weights of a Dense layer."""
    features = network.outputs[0]
    head = keras.layers.Dense(dense.units, dtype=features.dtype, name="head")
    outputs = head(features)
    # `kernel` includes a LoRA update, if there is one.
    head.kernel.assign(keras.ops.convert_to_numpy(dense.kernel))
    if dense.use_bias:
        head.bias.assign(keras.ops.convert_to_numpy(dense.bias))
    return outputs


def _refusal(model: keras.Model, layer: Any, expected: str) -> BitKerasError:
    return BitKerasError(
        f"The model {model.name!r} is not a classifier of this package: at {layer.name!r} "
        f"({type(layer).__name__}) {expected} was expected. Supported are the models of "
        "create_classifier and create_feature_extractor, and a chain of the latter and one Dense "
        "layer; use other models directly with Keras."
    )
