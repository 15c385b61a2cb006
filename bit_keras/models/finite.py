"""Weights that are numbers: what a training that diverged leaves is not exported."""

import keras
import numpy as np

from bit_keras.errors import BitKerasError


def require_finite_weights(model: keras.Model) -> None:
    """Raises where a weight of a model is infinite or not a number.

    Raises:
        BitKerasError: With the name of the first such weight, and how many values these are.
    """
    for weight in model.weights:
        array = keras.ops.convert_to_numpy(keras.ops.cast(weight, "float32"))
        bad = array.size - np.count_nonzero(np.isfinite(array))
        if bad:
            raise BitKerasError(
                f"{bad:,} of the {array.size:,} values of the weight {weight.path!r} of the model "
                f"{model.name!r} are not finite (NaN or infinite), so its outputs would not be "
                "numbers; its training has diverged. To take it as it is: --allow-nonfinite, in "
                "Python allow_nonfinite=True."
            )
