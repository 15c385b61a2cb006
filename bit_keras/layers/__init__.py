"""Keras layers: convolution with weight standardisation, and group normalisation."""

from bit_keras.layers.group_norm import GroupNorm as GroupNorm
from bit_keras.layers.std_conv2d import StdConv2D as StdConv2D
