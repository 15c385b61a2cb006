"""Open files whose arrays are changed on their way into a network."""

import numpy as np

from bit_keras.checkpoints.files import ArrayFile


class ArrayFileView(ArrayFile):
    """The arrays of an open file; what a subclass changes is made when it is requested.

    Args:
        arrays: ArrayFile. It is closed with this object.
    """

    def __init__(self, arrays: ArrayFile) -> None:
        super().__init__(arrays.path)
        self._arrays = arrays
        self.shapes, self.dtypes = dict(arrays.shapes), dict(arrays.dtypes)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def verify(self) -> None:
        self._arrays.verify()

    def close(self) -> None:
        self._arrays.close()
