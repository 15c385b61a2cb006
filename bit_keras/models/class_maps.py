"""Class activation maps: the head, applied to every position before the mean."""

import keras

from bit_keras.errors import BitKerasError
from bit_keras.layers.functional import Functional
from bit_keras.registry import checkpoint_of


def create_class_maps(classifier: keras.Model, name: str | None = None) -> keras.Model:
    """Creates a model that returns the class activation maps of a classifier.

    The head of a BiT is linear and follows the mean over all positions. Applied to
    every position instead, it gives one map per class, whose mean is the logit of the
    class, up to rounding and with the bias included. The maps are exact.

    Args:
        classifier: keras.Model from `create_classifier`, with or without an activation.
            Its layers are shared: training one model trains the other.
        name: str. Name of the Keras model. Defaults to the name of `classifier`.

    Returns:
        keras.Model. Input: that of the classifier. Output: float32 `(batch,
        height / 32, width / 32, classes)`, sides rounded up: the contribution of each
        position to the logit of each class.

    Raises:
        BitKerasError: The model does not have a head.

    Example:

    ```python
    classifier = bit_keras.create_classifier("bit_tiny.cifar10")
    class_maps = bit_keras.create_class_maps(classifier)
    class_maps.predict(np.zeros((1, 64, 64, 3)), verbose=0).shape  # (1, 2, 2, 10)
    ```

    Reference:
        [Zhou et al., 2015](https://arxiv.org/abs/1512.04150).
    """
    layers = {layer.name: layer for layer in classifier.layers}
    if not {"features", "head"} <= layers.keys():
        raise BitKerasError(
            "Class activation maps need a classifier with a head, as create_classifier returns "
            f"it. Received: classifier={classifier.name!r}"
        )
    maps = layers["head"](layers["features"].input)
    return Functional(
        classifier.input,
        maps,
        name=name or classifier.name,
        checkpoint=checkpoint_of(classifier),
    )
