"""Target `onnx`: a file for ONNX Runtime, OpenVINO and whatever else reads the format."""

from bit_keras.exporters.onnx.onnx_export import export_onnx as export_onnx
