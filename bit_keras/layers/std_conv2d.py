"""2D convolution with weight standardisation."""

from typing import Any

import keras
from keras import ops

from bit_keras.layers.moments import Tensor, at_least_float32, mean_and_variance

#: Added to the kernel's variance (`google-research/big_transfer`,
#: `bit_tf2/models.py`; timm's 1e-8 moves the features by 7e-6).
EPSILON = 1e-10


@keras.saving.register_keras_serializable("bit_keras")
class StdConv2D(keras.layers.Conv2D):
    """2D convolution layer with a standardised kernel.

    Before every use, each output filter of the kernel is shifted and scaled to
    mean 0 and variance 1 over height, width and input channels,

        k' = (k - mean(k)) / sqrt(var(k) + epsilon),

    so the output does not depend on the scale and the offset of `k`. The
    statistics are computed in float32 under every dtype policy, from the stored
    kernel; only the standardised kernel is cast to the compute dtype. The layer
    has no learnable gain.

    Args:
        filters: int. Number of output channels.
        kernel_size: int or tuple of 2 ints, in pixels.
        epsilon: float. Added to the variance. Defaults to `1e-10`, the value of
            the released weights.
        **kwargs: Arguments of `keras.layers.Conv2D`.

    Input shape:
        `(batch, height, width, channels)`, any float dtype.

    Output shape:
        `(batch, new_height, new_width, filters)`, the compute dtype.

    Raises:
        ValueError: `epsilon` is not positive.

    Example:

    ```python
    layer = bit_keras.layers.StdConv2D(64, 7, strides=2, use_bias=False)
    layer(np.zeros((1, 224, 224, 3))).shape  # (1, 109, 109, 64)
    ```

    Reference:
        [Qiao et al., 2019](https://arxiv.org/abs/1903.10520); epsilon from
        `google-research/big_transfer`, `bit_tf2/models.py`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        *,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ) -> None:
        if not epsilon > 0:
            raise ValueError(
                "`epsilon` must be positive; otherwise constant filters are divided by zero. "
                f"Received: epsilon={epsilon}"
            )
        super().__init__(filters, kernel_size, **kwargs)
        self.epsilon = epsilon

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> keras.Variable:
        if name == "kernel":
            kwargs["autocast"] = False  # The statistics need the full precision.
        return super().add_weight(*args, name=name, **kwargs)

    def standardized_kernel(self) -> Tensor:
        """Returns the standardised kernel, `(height, width, in, out)`, at least float32."""
        return self._standardize(self.kernel)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return super().convolution_op(
            inputs, ops.cast(self._standardize(kernel), self.compute_dtype)
        )

    def _standardize(self, kernel: Tensor) -> Tensor:
        kernel = at_least_float32(ops.convert_to_tensor(kernel))
        mean, variance = mean_and_variance(kernel, axes=(0, 1, 2))
        return (kernel - mean) * ops.rsqrt(variance + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
