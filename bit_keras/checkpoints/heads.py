"""Heads that keep some of their classes."""

from collections.abc import Sequence

import numpy as np

from bit_keras.checkpoints.files import ArrayFile
from bit_keras.checkpoints.names import head_classes, is_head
from bit_keras.checkpoints.views import ArrayFileView
from bit_keras.errors import CheckpointError
from bit_keras.preprocessing import Labels


class ArraysWithClasses(ArrayFileView):
    """The weights of a classifier whose head keeps some classes, in an order of one's own.

    Args:
        arrays: ArrayFile, under the official names. It is closed with this object.
        labels: Labels. Of the head in the file.
        indices: sequence of int. Of the classes to keep, in their new order.

    Raises:
        CheckpointError: The head in the file is not that of the labels.
    """

    def __init__(self, arrays: ArrayFile, labels: Labels, indices: Sequence[int]) -> None:
        super().__init__(arrays)
        found = head_classes(arrays.shapes)
        if found != len(labels):
            head = "no head" if found is None else f"a head for {found} classes"
            raise CheckpointError(
                f"{arrays.path} has {head}, and classes can be selected from one for the "
                f"{len(labels)} of {labels.name} only; take the file of the model name, or "
                "replace the head with num_classes=."
            )
        self._indices = list(indices)
        for name in filter(is_head, arrays.shapes):
            self.shapes[name] = (*arrays.shapes[name][:-1], len(self._indices))

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[name]
        return array.take(self._indices, axis=-1) if is_head(name) else array
