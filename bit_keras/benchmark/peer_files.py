"""Writes the files that some peers run; each function runs in a process of its own."""

from typing import Any

from bit_keras.benchmark.entries import Network
from bit_keras.benchmark.worker import images_of
from bit_keras.extras import require_extra

#: Images that NNCF looks at: its ranges decide about accuracy, which random weights have not.
_CALIBRATION_IMAGES = 8


def write_onnx(job: dict[str, Any]) -> None:
    """Writes `path`: a `Network` with folded kernels and reproducible values, in float32."""
    from bit_keras.checkpoints import fill_with_seeded_values
    from bit_keras.exporters.onnx import export_onnx
    from bit_keras.models import create_classifier, create_feature_extractor

    network = Network(**job["source"])
    shape = (network.height, network.width, 3)
    if network.classes is None:
        model = create_feature_extractor(network.model, weights=None, input_shape=shape)
    else:
        model = create_classifier(
            network.model, weights=None, num_classes=network.classes, input_shape=shape
        )
    fill_with_seeded_values(model)
    export_onnx(model, job["path"])


def write_int8(job: dict[str, Any]) -> None:
    """Writes `path`: an ONNX file quantised after training by NNCF with its defaults."""
    require_extra("benchmark", "nncf", "openvino", purpose="Quantising for OpenVINO")
    import nncf
    import openvino

    network = openvino.Core().read_model(job["source"])
    _, height, width, _ = network.inputs[0].partial_shape
    images = images_of(
        Network("", height.get_length(), width.get_length(), None), _CALIBRATION_IMAGES, "float32"
    )
    quantised = nncf.quantize(network, nncf.Dataset(list(images[:, None])))
    openvino.save_model(quantised, job["path"], compress_to_fp16=False)
