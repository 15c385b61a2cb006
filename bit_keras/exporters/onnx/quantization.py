"""Convolutions and head of an ONNX file in 8 bits, by ONNX Runtime's static quantisation."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

#: What is quantised; everything else stays in float32, and so do the sums of the residual
#: units and the statistics of GroupNorm.
_OPERATORS = ["Conv", "Gemm"]

#: In float32 the first convolution takes two fifths off the error of `bit_tiny.cifar10`, and
#: no time that could be measured.
_IN_FLOAT = ["stem_conv"]

#: Images that are looked at together.
_BATCH = 8


def quantize_file(source: Path, target: Path, name: str, images: np.ndarray) -> None:
    """Writes the quantised counterpart of an ONNX file, whose weights are in it.

    Activations are unsigned, with the range that they take on the images, and weights are
    signed, with a scale for each output channel: with signed activations ONNX Runtime
    takes more time on x86 than in float32.

    Args:
        source: From `bit_keras.exporters.onnx.onnx_export.write_network`.
        target: The file to write.
        name: str. Of the images in the file.
        images: float32 array of images in the range and the layout of the file.
    """
    # Its advice about pre-processing is for graphs with shapes to infer and nodes to merge.
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            source,
            target,
            _Images(name, images),
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=_IN_FLOAT,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


class _Images(CalibrationDataReader):
    """Images as `quantize_static` reads them: batch after batch, then None."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._name = name
        self._batches: Iterator[np.ndarray] = (
            images[start : start + _BATCH] for start in range(0, len(images), _BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}
