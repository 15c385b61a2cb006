"""Where the weights of an ONNX model are: in its file, or in another next to it."""

from typing import BinaryIO

import numpy as np
from onnx import TensorProto, numpy_helper

#: Bytes of weights from which on they are in a file of their own. Protocol buffers end at
#: 2 GiB, and the graph and the metadata take a few megabytes of that.
EXTERNAL_DATA_FROM = 2_000_000_000

#: Smaller arrays stay in the model, as in `onnx.external_data_helper`: shapes are among
#: them, which checkers read.
_SMALLEST_EXTERNAL = 1024

#: Weights begin at a page of memory, so that a runtime can map them
#: (`onnx/onnx`, `docs/ExternalData.md`).
_PAGE = 4096


class Weights:
    """The initializers of a graph, added one at a time.

    Args:
        data: A file, open to be written, that takes the large ones; `None` keeps them in
            the model.
        location: str. What the model is to call that file.
    """

    def __init__(self, data: BinaryIO | None = None, location: str = "") -> None:
        self.tensors: list[TensorProto] = []
        self._data = data
        self._location = location

    def add(self, name: str, array: np.ndarray) -> str:
        """Adds an array and returns its name."""
        if self._data is None or array.nbytes < _SMALLEST_EXTERNAL:
            self.tensors.append(numpy_helper.from_array(array, name))
        else:
            self.tensors.append(self._external(name, array, self._data))
        return name

    def _external(self, name: str, array: np.ndarray, data: BinaryIO) -> TensorProto:
        offset = -(-data.tell() // _PAGE) * _PAGE
        data.seek(offset)
        data.write(np.ascontiguousarray(array).data)
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=numpy_helper.from_array(array[:0]).data_type,
            data_location=TensorProto.EXTERNAL,
        )
        entries = {"location": self._location, "offset": offset, "length": array.nbytes}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor
