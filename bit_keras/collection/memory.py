"""How much memory there is, and how much the making of an artifact takes."""

import os
from pathlib import Path

from bit_keras.artifacts.reference import REFERENCE_SIZE
from bit_keras.collection.recipe import Item
from bit_keras.errors import ExportError
from bit_keras.registry import Architecture

#: What a process takes whatever it builds, and for each value that a residual unit gives: two
#: images go through the network, and Keras keeps what all its layers give.
_FRAMEWORK_BYTES = 10**9
_BYTES_PER_OUTPUT = 34


def free_memory() -> int:
    """Bytes that processes can take on this machine; the limit of a container is not seen.

    Raises:
        ExportError: The system does not tell.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(fields["MemAvailable"].removesuffix("kB")) * 1024
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    raise ExportError("This system does not tell how much memory is free; say it with --memory.")


def estimated_memory(item: Item) -> int:
    """Bytes that the largest process of a build takes, 8 to 33 % above what was measured.

    It is the one that writes the SavedModel, with TensorFlow 2.21 on Linux, in GB:

    | weights | target | measured | estimated |
    |---|---|---|---|
    | R50x1 at 160, 224 and 448 pixels | hub | 1.13, 1.17, 1.62 | 1.34, 1.43, 2.00 |
    | | serving | 1.22, 1.28, 1.72 | 1.46, 1.56, 2.12 |
    | R152x2 at 128, 224 and 384 pixels | hub | 3.17, 3.21, 4.70 | 3.53, 4.16, 5.90 |
    | | serving | 3.56, 4.13, 5.82 | 4.65, 5.30, 7.03 |
    | R50x3 for ImageNet-21k at 224 pixels | hub, serving | 4.28, 6.04 | 4.88, 6.54 |
    | R101x3 at 448 pixels | hub, serving | 6.41, 8.22 | 8.37, 10.23 |
    """
    architecture = item.checkpoint.architecture
    weights = 4 * architecture.parameters(item.checkpoint.classes)
    copies = 2.4 if item.target == "hub" else 3.6
    outputs = _unit_outputs(architecture, item.size or item.checkpoint.size or REFERENCE_SIZE)
    return int(_FRAMEWORK_BYTES + copies * weights + _BYTES_PER_OUTPUT * outputs)


def _unit_outputs(architecture: Architecture, size: int) -> float:
    """Values that all residual units together give for a square image."""
    return sum(
        unit.filters * (size / 2 ** (unit.block + 1)) ** 2 for unit in architecture.residual_units()
    )
