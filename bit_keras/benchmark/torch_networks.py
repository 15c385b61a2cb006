"""The same networks in PyTorch, from timm and transformers."""

import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from bit_keras.benchmark.entries import Entry
from bit_keras.errors import BitKerasError
from bit_keras.registry import Architecture, model_info


def build(entry: Entry, threads: int) -> torch.nn.Module:
    """A network with random weights: how fast it is does not depend on them."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    architecture = model_info(entry.network.model).architecture
    builder = _timm if entry.program == "timm" else _transformers
    return builder(architecture, entry.network.classes).eval()


def engine(entry: Entry) -> str:
    """The package that the network is from, and what it runs in."""
    version = importlib.metadata.version(entry.program)
    return f"{entry.program} {version}, PyTorch {torch.__version__}"


def forward_pass(network: torch.nn.Module, images: np.ndarray, precision: str) -> Callable[[], Any]:
    """A call without gradients on images in the layout that PyTorch's networks take."""
    x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))

    @torch.inference_mode()
    def call() -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return network(x)

    return call


def _timm(architecture: Architecture, classes: int | None) -> torch.nn.Module:
    import timm

    name = architecture.name
    if architecture.normalization == "group":
        name = f"resnetv2_{name.removeprefix('bit_r')}_bit"
    if not timm.is_model(name):
        raise BitKerasError(f"timm does not have the network {architecture.name}.")
    return timm.create_model(name, num_classes=classes or 0)


def _transformers(architecture: Architecture, classes: int | None) -> torch.nn.Module:
    import transformers

    if architecture.normalization != "group":
        raise BitKerasError("transformers has only BiT, and not the networks with BatchNorm.")
    # Its `width_factor` leaves the stem, the final norm and the head at width 1, so the widths
    # are written out (transformers, `models/bit/modeling_bit.py`).
    configuration = transformers.BitConfig(
        embedding_size=architecture.stem_filters,
        hidden_sizes=[architecture.block_filters(block) for block in range(1, 5)],
        depths=list(architecture.units),
        num_groups=architecture.groups,
    )
    if classes is None:
        return transformers.BitModel(configuration)
    configuration.num_labels = classes
    return transformers.BitForImageClassification(configuration)
