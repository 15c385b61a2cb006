"""Writes the files that some peers run, each in a process of its own.

    python -m bit_keras.benchmark.peer_files onnx NETWORK FILE.onnx
    python -m bit_keras.benchmark.peer_files int8 FILE.onnx FILE.xml

NETWORK is a `Network` in JSON.
"""

import json
import sys

from bit_keras.benchmark.entries import Network
from bit_keras.benchmark.worker import images_of, reason_of

#: Images that NNCF looks at: its ranges decide about accuracy, which random weights have not.
_CALIBRATION_IMAGES = 8


def write_onnx(network: str, path: str) -> None:
    """The network with folded kernels and reproducible values, in float32."""
    from bit_keras.checkpoints import fill_with_seeded_values
    from bit_keras.exporters.onnx import export_onnx
    from bit_keras.models import create_classifier, create_feature_extractor

    parsed = Network(**json.loads(network))
    shape = (parsed.height, parsed.width, 3)
    if parsed.classes is None:
        model = create_feature_extractor(parsed.model, weights=None, input_shape=shape)
    else:
        model = create_classifier(
            parsed.model, weights=None, num_classes=parsed.classes, input_shape=shape
        )
    fill_with_seeded_values(model)
    export_onnx(model, path)


def write_int8(onnx: str, path: str) -> None:
    """NNCF's quantisation after training, with its defaults, of an ONNX file."""
    import nncf
    import openvino

    network = openvino.Core().read_model(onnx)
    _, height, width, _ = network.inputs[0].partial_shape
    images = images_of(
        Network("", height.get_length(), width.get_length(), None), _CALIBRATION_IMAGES, "float32"
    )
    quantised = nncf.quantize(network, nncf.Dataset(list(images[:, None])))
    openvino.save_model(quantised, path, compress_to_fp16=False)


def main() -> None:
    """Does what the first argument says; the last line of standard error is the reason."""
    spec, source, path = sys.argv[1:]
    try:
        {"onnx": write_onnx, "int8": write_int8}[spec](source, path)
    # Whatever the packages raise is the reason in the rows of the peers.
    except Exception as error:
        print(reason_of(error), file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
