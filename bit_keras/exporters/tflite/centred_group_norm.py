"""GroupNorm in the form that TFLite can compute in integers."""

from keras import ops

from bit_keras.layers import GroupNorm
from bit_keras.layers.moments import Tensor


class CentredGroupNorm(GroupNorm):
    """The function of `GroupNorm`, with the mean of its group taken from every pixel first.

    `GroupNorm` combines moments of channels, small tensors of numbers of very different
    size, which 8 bits cannot contain; here the squares are those of centred pixels, and
    every tensor is four-dimensional. In float it takes longer.
    """

    def call(self, inputs: Tensor) -> Tensor:
        channels = inputs.shape[-1]
        centred = inputs - self._mean_of_groups(inputs)
        # Not a square, which TFLite would merge with the subtraction: SQUARED_DIFFERENCE in
        # int8 ends the process where the scales are far apart (`squared_difference.cc`).
        variance = self._mean_of_groups(centred * centred)
        scale = ops.reshape(self.gamma, (1, 1, 1, channels)) * ops.rsqrt(variance + self.epsilon)
        return centred * scale + ops.reshape(self.beta, (1, 1, 1, channels))

    def _mean_of_groups(self, x: Tensor) -> Tensor:
        """The mean of each group, `(batch, 1, 1, channels)`, the same for all its channels.

        Four axes throughout: the converter omits a reshape of `(1, channels)` that changes
        nothing for one image, and callers may resize the batch.
        """
        channels = x.shape[-1]
        members = channels // self.groups
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        if members == 1:
            return mean
        mean = ops.reshape(mean, (-1, 1, self.groups, members))
        mean = ops.mean(mean, axis=-1, keepdims=True)
        return ops.reshape(ops.tile(mean, (1, 1, 1, members)), (-1, 1, 1, channels))
