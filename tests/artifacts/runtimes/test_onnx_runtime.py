"""What is inside an ONNX file, tensor by tensor."""

import numpy as np
import pytest

from bit_keras.artifacts.runtimes.onnx_runtime import intermediate_tensors
from bit_keras.errors import ExportError
from tests.artifacts.runtimes.conftest import IMAGES


def test_the_results_of_operations_are_shown_in_their_order(onnx_file, expected):
    tensors = list(intermediate_tensors(onnx_file, IMAGES))
    names = ["floats", "first", "maps", "rectified", "features", "logits"]
    assert [tensor.name for tensor in tensors] == names
    assert {tensor.dtype for tensor in tensors} == {"float32"}
    maps = tensors[3].values
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), expected["features"], rtol=1e-5, atol=1e-5)


def test_weights_next_to_the_file_are_found(onnx_file, expected, tmp_path):
    import onnx

    path = tmp_path / "large.onnx"
    model = onnx.load(onnx_file)
    options = {"save_as_external_data": True, "location": "large.onnx.data", "size_threshold": 64}
    onnx.save(model, path, **options)
    *_, logits = intermediate_tensors(path, IMAGES)
    np.testing.assert_allclose(logits.values, expected["logits"], rtol=1e-5, atol=1e-5)
    (tmp_path / "large.onnx.data").unlink()
    with pytest.raises(ExportError, match="cannot be loaded by ONNX Runtime"):
        list(intermediate_tensors(path, IMAGES))
