"""Mean and variance for both layers, computed in two passes and at least float32."""

from typing import Any, TypeAlias

import keras
from keras import ops

#: A tensor of the current backend, or a KerasTensor.
Tensor: TypeAlias = Any


def at_least_float32(x: Tensor) -> Tensor:
    """Casts `x` to float32, unless it is float64.

    Half precision is not enough for statistics: 1e-10 is 0.0 in float16, and
    bfloat16 has 8 bits for a sum over thousands of values.
    """
    # PyTorch's dtypes are not equal to their names.
    is_float64 = keras.backend.standardize_dtype(x.dtype) == "float64"
    return ops.cast(x, "float64" if is_float64 else "float32")


def mean_and_variance(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Returns mean and biased variance of `x` over `axes`, which are kept with size 1.

    The variance is the mean square of the centred values. `E[x^2] - E[x]^2`,
    which `keras.ops.moments` computes on PyTorch, cancels: its relative error is
    2e-2 in float32 if the mean is 100 standard deviations.
    """
    mean = ops.mean(x, axis=axes, keepdims=True)
    return mean, ops.mean(ops.square(x - mean), axis=axes, keepdims=True)
