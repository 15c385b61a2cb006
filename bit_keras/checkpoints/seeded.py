"""Seeded values in the official layout: stand-ins where no real weights can be had."""

import zlib
from collections.abc import Mapping

import keras
import numpy as np

from bit_keras.checkpoints.files import Arrays
from bit_keras.checkpoints.transfer import ModelArrays
from bit_keras.registry import Shape

#: What scales the last normalisation of a residual unit. Without it every unit
#: adds as much as all before it carry, and rounding grows as in no trained
#: network: a change of 1e-7 in the input moves the last map of an R152x2 by
#: 2e-5, with it by 1e-6.
_RESIDUAL_SCALE = np.float32(0.25)


class SeededArrays(Arrays):
    """Reproducible random arrays for every weight of an architecture.

    The values have the scale of trained ones: kernels as Kaiming initialises
    them, gains around 1 (a quarter at the end of a residual unit, so that
    rounding does not grow with the depth), offsets around 0, a head whose logits
    spread. An array depends only on its name and the seed.

    Args:
        shapes: Mapping from official name to shape.
        seed: int. Defaults to `0`.

    Example:

    ```python
    from bit_keras.checkpoints.seeded import SeededArrays
    from bit_keras.checkpoints.names import official_shapes
    from bit_keras.checkpoints.files import write_npz

    architecture = bit_keras.model_info("bit_tiny.cifar10").architecture
    write_npz("tiny.npz", SeededArrays(official_shapes(architecture, classes=10)))
    ```
    """

    def __init__(self, shapes: Mapping[str, Shape], seed: int = 0) -> None:
        self.shapes = dict(shapes)
        self._seed = seed

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self.shapes[name]
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        normal = generator.standard_normal(shape, dtype=np.float32)
        if name.endswith("/kernel"):
            return normal * np.float32(np.sqrt(2.0 / np.prod(shape[:-1])))
        if name.endswith("/moving_variance"):
            return np.exp(0.1 * normal)
        scale = _RESIDUAL_SCALE if "/c/" in name and name.endswith(("gamma", "beta")) else 1
        return scale * (1.0 + 0.1 * normal if name.endswith("/gamma") else 0.1 * normal)


def fill_with_seeded_values(model: keras.Model, seed: int = 0) -> None:
    """Gives every weight of a network its `SeededArrays` value.

    Args:
        model: keras.Model from a builder.
        seed: int. Defaults to `0`.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.checkpoints.fill_with_seeded_values(model)
    ```
    """
    target = ModelArrays(model)
    values = SeededArrays(target.shapes, seed)
    for name in target:
        target.assign(name, values[name])
