"""Random weights of any size, under the official npz names and at a realistic scale."""

import numpy as np


def random_weights(
    units=(1, 1, 1, 1), base_filters=8, width=1, classes=5, normalization="group", seed=0
):
    """Draw the weights of a network.

    Args:
        units: the number of units of each block.
        base_filters: the root's output channels at width 1 (64 in the published networks).
        width: the factor on all channels.
        classes: the outputs of the head; None leaves the head out.
        normalization: `"group"`, or `"batch"` for the names of the BatchNorm sibling.
        seed: equal seeds give equal weights.

    Returns:
        A dict of float64 arrays by npz name. Their values are exact in float32, so that a float32
        network and a float64 one can contain the same weights.
    """
    channels = base_filters * width
    drawing = _Drawing(normalization, seed)
    drawing.kernel("resnet/root_block", 7, 3, channels)
    inputs = channels
    for block, depth in enumerate(units, start=1):
        middle = channels * 2 ** (block - 1)
        for number in range(1, depth + 1):
            path = f"resnet/block{block}/unit{number:02d}"
            drawing.unit(path, inputs, middle, projection=number == 1)
            inputs = 4 * middle
    drawing.norm("resnet", inputs)
    if classes is not None:
        drawing.normal("resnet/head/conv2d/kernel", (1, 1, inputs, classes), 0.0, 0.1)
        drawing.normal("resnet/head/conv2d/bias", (classes,), 0.0, 0.1)
    return drawing.weights


class _Drawing:
    """The weights initialised so far."""

    def __init__(self, normalization, seed):
        layers = {
            "group": ("standardized_conv2d", "group_norm"),
            "batch": ("conv2d", "batch_norm"),
        }
        self.convolution_layer, self.norm_layer = layers[normalization]
        self.generator = np.random.default_rng(seed)
        self.weights = {}

    def add(self, name, array):
        self.weights[name] = array.astype(np.float32).astype(np.float64)

    def normal(self, name, shape, mean, deviation):
        self.add(name, self.generator.normal(mean, deviation, shape))

    def kernel(self, path, size, inputs, outputs):
        # He et al., "Delving Deep into Rectifiers" (arXiv 1502.01852), equation 10.
        deviation = np.sqrt(2 / (size * size * inputs))
        shape = (size, size, inputs, outputs)
        self.normal(f"{path}/{self.convolution_layer}/kernel", shape, 0.0, deviation)

    def norm(self, path, channels):
        path = f"{path}/{self.norm_layer}"
        self.normal(f"{path}/gamma", (channels,), 1.0, 0.1)
        self.normal(f"{path}/beta", (channels,), 0.0, 0.1)
        if self.norm_layer == "batch_norm":
            self.normal(f"{path}/moving_mean", (channels,), 0.0, 0.1)
            self.add(f"{path}/moving_variance", self.generator.uniform(0.5, 2.0, channels))

    def unit(self, path, inputs, middle, projection):
        self.norm(f"{path}/a", inputs)
        if projection:
            self.kernel(f"{path}/a/proj", 1, inputs, 4 * middle)
        self.kernel(f"{path}/a", 1, inputs, middle)
        self.norm(f"{path}/b", middle)
        self.kernel(f"{path}/b", 3, middle, middle)
        self.norm(f"{path}/c", middle)
        self.kernel(f"{path}/c", 1, middle, 4 * middle)
