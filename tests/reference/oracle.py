"""The whole network once more, in float64 NumPy, for the library to be compared with.

It shares no code with the library, and it is written to be read from top to bottom next to the
papers: Kolesnikov et al., "Big Transfer" (arXiv 1912.11370), for the network; He et al., "Identity
Mappings in Deep Residual Networks" (arXiv 1603.05027), for the pre-activation units; Qiao et al.,
"Weight Standardization" (arXiv 1903.10520), and Wu and He, "Group Normalization"
(arXiv 1803.08494), for the two layers.

Where the papers are silent, the authors' code decides: google-research/big_transfer,
bit_pytorch/models.py. The same function computes the BatchNorm sibling that pytorch-image-models
calls `resnetv2_50.a1h_in1k`.
"""

import numpy as np

EPSILONS = {
    # StdConv2d of google-research/big_transfer, bit_pytorch/models.py. Ports differ: transformers
    # has 1e-8.
    "weight_standardization": 1e-10,
    # The default of torch.nn.GroupNorm, which bit_pytorch/models.py keeps.
    "group_norm": 1e-5,
    # The default of torch.nn.BatchNorm2d, which timm/models/resnetv2.py keeps.
    "batch_norm": 1e-5,
}

# Both sides get the same padding, at every input size: bit_pytorch/models.py never pads "SAME".
ROOT_PADDING = 3
THREE_BY_THREE_PADDING = 1
POOL_PADDING = 1

# `ConstantPad2d(1, 0)` in bit_pytorch/models.py, whose comment says that the pool's own padding is
# not the same: the root's output has both signs, so a zero at the border can be the largest value.
POOL_BORDER = 0.0
# The BatchNorm sibling does use the pool's own padding: `stem_type=''` in timm/models/resnetv2.py.
BATCH_NORM_POOL_BORDER = -np.inf


def standardize(kernel, epsilon):
    """Give every output channel of a `(height, width, in, out)` kernel mean 0 and variance 1."""
    mean = kernel.mean(axis=(0, 1, 2))
    variance = kernel.var(axis=(0, 1, 2))
    return (kernel - mean) / np.sqrt(variance + epsilon)


def windows_of(images, size, stride):
    """View `(batch, height, width, channels)` as `(batch, rows, columns, channels, size, size)`."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    return windows[:, ::stride, ::stride]


def pad(images, padding, value):
    """Surround height and width with `padding` cells of `value`."""
    return np.pad(images, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), constant_values=value)


def convolve(images, kernel, stride=1, padding=0):
    """Convolve as deep learning does (without flipping the kernel)."""
    windows = windows_of(pad(images, padding, 0.0), kernel.shape[0], stride)
    return np.tensordot(windows, kernel, axes=((4, 5, 3), (0, 1, 2)))


def max_pool(images, border):
    """Take the largest of every 3 x 3 window, at stride 2, of images surrounded by `border`."""
    return windows_of(pad(images, POOL_PADDING, border), size=3, stride=2).max(axis=(4, 5))


def group_normalize(images, gamma, beta, groups, epsilon):
    """Normalise each image by the moments of each group of neighbouring channels."""
    grouped = images.reshape(*images.shape[:3], groups, -1)
    mean = grouped.mean(axis=(1, 2, 4), keepdims=True)
    variance = grouped.var(axis=(1, 2, 4), keepdims=True)
    normalized = (grouped - mean) / np.sqrt(variance + epsilon)
    return normalized.reshape(images.shape) * gamma + beta


def batch_normalize(images, gamma, beta, moving_mean, moving_variance, epsilon):
    """Normalise each channel by the moments that training recorded."""
    return (images - moving_mean) / np.sqrt(moving_variance + epsilon) * gamma + beta


class Network:
    """The network that one set of weights describes: `features` runs it."""

    def __init__(self, weights, groups, epsilons):
        self.weights = {name: np.asarray(array, np.float64) for name, array in weights.items()}
        self.groups = groups
        self.epsilons = epsilons
        self.has_batch_norm = "resnet/root_block/conv2d/kernel" in self.weights

    def convolve(self, images, path, stride=1, padding=0):
        if self.has_batch_norm:
            return convolve(images, self.weights[f"{path}/conv2d/kernel"], stride, padding)
        kernel = self.weights[f"{path}/standardized_conv2d/kernel"]
        kernel = standardize(kernel, self.epsilons["weight_standardization"])
        return convolve(images, kernel, stride, padding)

    def normalize_and_rectify(self, images, path):
        if self.has_batch_norm:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            arrays = (self.weights[f"{path}/batch_norm/{name}"] for name in names)
            normalized = batch_normalize(images, *arrays, self.epsilons["batch_norm"])
        else:
            arrays = (self.weights[f"{path}/group_norm/{name}"] for name in ("gamma", "beta"))
            normalized = group_normalize(images, *arrays, self.groups, self.epsilons["group_norm"])
        return np.maximum(normalized, 0.0)

    def unit(self, images, path, stride):
        # The projection reads the pre-activated images, the identity shortcut the raw ones, and the
        # stride sits on the 3 x 3 convolution: PreActBottleneck of bit_pytorch/models.py.
        activated = self.normalize_and_rectify(images, f"{path}/a")
        shortcut = images
        if any(name.startswith(f"{path}/a/proj/") for name in self.weights):
            shortcut = self.convolve(activated, f"{path}/a/proj", stride)
        residual = self.convolve(activated, f"{path}/a")
        residual = self.normalize_and_rectify(residual, f"{path}/b")
        residual = self.convolve(residual, f"{path}/b", stride, THREE_BY_THREE_PADDING)
        residual = self.normalize_and_rectify(residual, f"{path}/c")
        residual = self.convolve(residual, f"{path}/c")
        return shortcut + residual

    def block(self, images, path, stride):
        units = {name.split("/")[2] for name in self.weights if name.startswith(f"{path}/unit")}
        for unit in sorted(units):
            images = self.unit(images, f"{path}/{unit}", stride if unit == "unit01" else 1)
        return images


def features(images, weights, groups=32, epsilons=EPSILONS):
    """Compute every named feature of the network.

    Args:
        images: `(batch, height, width, 3)`, RGB in [-1, 1].
        weights: arrays by official npz name (`resnet/...`). Depth, width, projections and the type
            of normalisation are read from the names and shapes; a head is optional.
        groups: the number of groups of every group normalisation.
        epsilons: what is added to the variances, with the keys of `EPSILONS`.

    Returns:
        A dict of float64 arrays: `stem`, `block1` to `block4`, `pre_logits_map`, `features` and,
        with a head, `logits`.
    """
    network = Network(weights, groups, epsilons)
    named = {}
    images = np.asarray(images, np.float64)
    images = named["stem"] = network.convolve(images, "resnet/root_block", 2, ROOT_PADDING)
    images = max_pool(images, BATCH_NORM_POOL_BORDER if network.has_batch_norm else POOL_BORDER)
    for number, stride in ((1, 1), (2, 2), (3, 2), (4, 2)):
        images = named[f"block{number}"] = network.block(images, f"resnet/block{number}", stride)
    images = named["pre_logits_map"] = network.normalize_and_rectify(images, "resnet")
    pooled = named["features"] = images.mean(axis=(1, 2))
    if "resnet/head/conv2d/kernel" in network.weights:
        kernel = network.weights["resnet/head/conv2d/kernel"][0, 0]
        named["logits"] = pooled @ kernel + network.weights["resnet/head/conv2d/bias"]
    return named
