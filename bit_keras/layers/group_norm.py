"""Group normalisation."""

import math
from typing import Any

import keras
from keras import ops

from bit_keras.layers.moments import Tensor, at_least_float32, mean_and_variance

#: Groups of every GroupNorm in BiT (`google-research/big_transfer`, `bit_tf2/models.py`).
GROUPS = 32

#: Added to the variance (the same file; Keras's own layer has 1e-3).
EPSILON = 1e-5


@keras.saving.register_keras_serializable("bit_keras")
class GroupNorm(keras.layers.Layer):
    """Normalises groups of neighbouring channels, separately for each image.

    With the mean and the variance of a group over all positions and all of its
    channels,

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta.

    The statistics are computed in float32 under every dtype policy, first per
    channel and then combined per group by the law of total variance. This does
    not cancel, keeps all tensors in four dimensions (as TFLite requires) and
    reads memory in order. With `keras.layers.GroupNormalization`, which reshapes
    the image to five dimensions, a forward pass of R50x1 on two cores takes
    1.26 times as long at batch 8 (`benchmarks/group_norm.py`).

    Args:
        groups: int. Number of groups, a divisor of the channels. Defaults to `32`.
        epsilon: float. Added to the variance. Defaults to `1e-5`, the value of
            the released weights; `keras.layers.GroupNormalization` has `1e-3`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., channels)`, channels last, any float dtype.

    Output shape:
        Same as the input, in the compute dtype.

    Raises:
        ValueError: `groups` does not divide the channels, or an argument is not
            positive.

    Example:

    ```python
    layer = bit_keras.layers.GroupNorm(groups=2)
    layer(np.ones((1, 8, 8, 4))).shape  # (1, 8, 8, 4)
    ```

    Reference:
        [Wu and He, 2018](https://arxiv.org/abs/1803.08494); groups and epsilon
        from `google-research/big_transfer`, `bit_tf2/models.py`.
    """

    def __init__(self, groups: int = GROUPS, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(groups, int) or groups < 1:
            raise ValueError(f"`groups` must be a positive integer. Received: groups={groups}")
        if not epsilon > 0:
            raise ValueError(f"`epsilon` must be positive. Received: epsilon={epsilon}")
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                "The last dimension of the input, the channels, must be defined. "
                f"Received: input_shape={input_shape}"
            )
        if channels % self.groups:
            near = math.gcd(channels, self.groups)
            raise ValueError(
                f"`groups` must be a divisor of the number of channels, {channels}, for example "
                f"{near}. Received: groups={self.groups}, input_shape={input_shape}"
            )
        self.gamma = self._add_parameter("gamma", channels, "ones")
        self.beta = self._add_parameter("beta", channels, "zeros")

    def _add_parameter(self, name: str, channels: int, initializer: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(channels,), initializer=initializer, autocast=False
        )

    def call(self, inputs: Tensor) -> Tensor:
        x = at_least_float32(inputs)
        rank, channels = len(x.shape), x.shape[-1]
        grouped = (-1, self.groups, channels // self.groups)

        mean, variance = mean_and_variance(x, axes=tuple(range(1, rank - 1)))
        mean, variance = ops.reshape(mean, grouped), ops.reshape(variance, grouped)
        # Law of total variance: the variance within the channels plus that between them.
        group_mean, between = mean_and_variance(mean, axes=(-1,))
        group_variance = ops.mean(variance, axis=-1, keepdims=True) + between

        gamma = ops.reshape(ops.cast(self.gamma, x.dtype), grouped)
        beta = ops.reshape(ops.cast(self.beta, x.dtype), grouped)
        scale = gamma * ops.rsqrt(group_variance + self.epsilon)
        shift = beta - group_mean * scale

        per_channel = (-1, *(1,) * (rank - 2), channels)
        y = x * ops.reshape(scale, per_channel) + ops.reshape(shift, per_channel)
        return ops.cast(y, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
