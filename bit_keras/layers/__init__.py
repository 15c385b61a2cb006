"""The two layers that make a BiT: weight standardisation and GroupNorm."""

from bit_keras.layers.group_norm import GroupNorm as GroupNorm
from bit_keras.layers.std_conv2d import StdConv2D as StdConv2D
