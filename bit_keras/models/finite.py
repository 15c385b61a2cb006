"""Checks that the weights of a model are finite."""

import keras
import numpy as np

from bit_keras.errors import BitKerasError


def require_finite_weights(model: keras.Model) -> None:
    """Raises an error if a weight of a model is infinite or not a number.

    Raises:
        BitKerasError: The message names the first such weight and the number of values.
    """
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise BitKerasError(
                f"{bad:,} of the {array.size:,} values of the weight {weight.path!r} of the model "
                f"{model.name!r} are not finite (NaN or infinite); the training has probably "
                "diverged. To accept such weights, use --allow-nonfinite, in Python "
                "allow_nonfinite=True."
            )
