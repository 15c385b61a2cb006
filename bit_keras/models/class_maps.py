"""Where in a image each class is seen: the head, before the mean is taken."""

import keras

from bit_keras.errors import BitKerasError
from bit_keras.layers.functional import Functional
from bit_keras.registry import checkpoint_of


def create_class_maps(classifier: keras.Model, name: str | None = None) -> keras.Model:
    """A network from images to class activation maps, with the weights of a classifier.

    The head of a BiT is linear and follows the mean over all positions, so it may as
    well be applied to every position first: the mean of the map of a class *is* its
    logit, up to rounding, bias included. Nothing is approximated.

    Args:
        classifier: keras.Model from `create_classifier`, with or without an activation.
            Its layers are shared: training one trains the other.
        name: str. What the Keras model is called. Defaults to the name of `classifier`.

    Returns:
        keras.Model. Input: that of the classifier. Output: float32 `(batch,
        height / 32, width / 32, classes)`, sides rounded up: what each position adds
        to the logit of each class.

    Raises:
        BitKerasError: The model has no head.

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
            f"{classifier.name} has no head, so it sees no classes; pass what create_classifier "
            "returns."
        )
    maps = layers["head"](layers["features"].input)
    return Functional(
        classifier.input,
        maps,
        name=name or classifier.name,
        checkpoint=checkpoint_of(classifier),
    )
