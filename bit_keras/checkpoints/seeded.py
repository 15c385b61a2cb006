"""Seeded values in the official layout: stand-ins where no real weights can be had."""

import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from bit_keras.checkpoints.names import official_shapes
from bit_keras.registry import Architecture, Shape


class SeededArrays(Mapping[str, np.ndarray]):
    """Reproducible random arrays for every weight of an architecture.

    The values have the scale of trained ones: kernels as Kaiming initialises
    them, gains around 1, offsets around 0, a head whose logits spread. An array
    depends on its name and the seed alone.

    Args:
        architecture: Architecture.
        classes: int or None. Width of the head; `None` leaves it out.
        seed: int. Defaults to `0`.

    Example:

    ```python
    architecture = bit_keras.model_info("bit_tiny.cifar10").architecture
    write_npz("tiny.npz", SeededArrays(architecture, classes=10))
    ```
    """

    def __init__(self, architecture: Architecture, classes: int | None, seed: int = 0) -> None:
        self.shapes: dict[str, Shape] = official_shapes(architecture, classes)
        self._seed = seed

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self.shapes[name]
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        normal = generator.standard_normal(shape, dtype=np.float32)
        if name.endswith("/kernel"):
            return normal * np.float32(np.sqrt(2.0 / np.prod(shape[:-1])))
        if name.endswith("/gamma"):
            return 1.0 + 0.1 * normal
        if name.endswith("/moving_variance"):
            return np.exp(0.1 * normal)
        return 0.1 * normal

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)
