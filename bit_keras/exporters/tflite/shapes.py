"""The shapes that a TFLite model states for its tensors.

The converter is given an open batch: for one image it omits or rewrites operations
whose effect on a single image is none, and the file then fails, or computes something
else, where a caller resizes the batch. (`[b, H, W, C] - [b, C]` is broadcast along W
where b = W.) Afterwards the file states a batch of one, since accelerators take no open
shapes.
"""

import numpy as np
from flatbuffers.table import Table

from bit_keras.exporters.tflite.flatbuffer import (
    INTEGER,
    SUBGRAPHS,
    integers,
    patched,
    root_table,
    tables,
)
from bit_keras.registry import RGB

#: Fields of the tables `SubGraph` and `Tensor` (`schema.fbs`).
_TENSORS, _INPUTS = 0, 1
_SHAPE, _SHAPE_SIGNATURE = 0, 7

#: A side that is not stated.
_OPEN = -1


def with_batch_of_one(model: bytes) -> bytes:
    """A model with an open batch, for one image unless a caller resizes it.

    Args:
        model: bytes. From the converter, with one subgraph; no side is open but the batch.
    """
    patches = {}
    for tensor in tables(_subgraph(model), _TENSORS):
        position, signature = integers(tensor, _SHAPE_SIGNATURE)
        if _OPEN in signature:
            patches[position] = integers(tensor, _SHAPE)[1].tobytes()
    return patched(model, patches)


def with_default_size(model: bytes, size: int) -> bytes:
    """A model for images of any size, which are squares of `size` unless a caller resizes them.

    MediaPipe resizes images to what the input states; the converter states one pixel.

    Args:
        model: bytes. From the converter, with one subgraph and one input.
        size: int.
    """
    subgraph = _subgraph(model)
    [number] = integers(subgraph, _INPUTS)[1]
    position, _ = integers(tables(subgraph, _TENSORS)[number], _SHAPE)
    return patched(model, {position: np.array((1, size, size, RGB), INTEGER).tobytes()})


def _subgraph(model: bytes) -> Table:
    [subgraph] = tables(root_table(model), SUBGRAPHS)
    return subgraph
