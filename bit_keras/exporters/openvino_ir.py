"""Target `openvino`: a folder with OpenVINO's own format, converted from the ONNX graph."""

import dataclasses
import os
import tempfile
from pathlib import Path

import keras

from bit_keras.artifacts.checksums import seal
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.runtimes import open_program
from bit_keras.atomic import new_directory
from bit_keras.errors import ExportError
from bit_keras.exporters.description import compared, describe
from bit_keras.exporters.onnx.onnx_export import at_any_size, write_network
from bit_keras.exporters.outputs import ExportedNetwork, reference_outputs
from bit_keras.exporters.saved_model_folder import write_members
from bit_keras.exporters.serving_signatures import labels_asset
from bit_keras.exporters.targets import precision_of
from bit_keras.extras import require_extra
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import RGB

#: The graph, next to `model.bin` with the weights.
MODEL = "model.xml"


def export_openvino(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    quantize: str = "none",
    size: int | None = None,
    input_range: tuple[float, float] = (-1.0, 1.0),
    spec: ClassifierSpec | None = None,
    allow_nonfinite: bool = False,
) -> Metadata:
    """Writes a model as a folder of OpenVINO IR: `model.xml` and `model.bin`.

    Input, outputs and names are those of `bit_keras.exporters.onnx.export_onnx`. The
    labels of a classifier are in `labels.tsv`, the metadata and a stored input
    and output for `bit_keras.artifacts.Artifact.verify` in `assets.extra`. What OpenVINO's Model
    API and Model Server need to know is in the graph: the layout, and below `model_info` the type
    of the model, its labels, scale and mean, and how images are resized. With `quantize="float16"`
    weights are stored in float16, and the device chooses what it computes in.

    On a processor with bfloat16 OpenVINO computes in it by default: set
    `INFERENCE_PRECISION_HINT` to `f32` for the outputs of Keras.

    The options are described, and checked, by `bit_keras.export`, which calls this function.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError, SizeError, BitKerasError: As `bit_keras.export`.
    """
    require_extra(
        "openvino", "onnx", "openvino", purpose="Exporting to OpenVINO", error=ExportError
    )
    network = ExportedNetwork.of(model)
    metadata = describe(network.model, "openvino", input_range, spec, allow_nonfinite)
    metadata = at_any_size(metadata, network.model, size, spec)
    metadata = dataclasses.replace(metadata, precision=precision_of(quantize), folded=True)
    with new_directory(path) as folder:
        _write_graph(network, folder, metadata)
        reference = reference_outputs(network, metadata)
        metadata = compared(metadata, lambda: open_program(folder), reference, allow_nonfinite)
        labels_asset(metadata, folder)
        write_members(folder, metadata, reference)
        seal(folder)
    return metadata


def _write_graph(network: ExportedNetwork, folder: Path, metadata: Metadata) -> None:
    import openvino

    # In the new folder, which goes with its content if the process is killed.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        file = Path(scratch) / "model.onnx"
        full = dataclasses.replace(metadata, precision="float32")
        write_network(network, file, full)
        graph = openvino.convert_model(file)
        openvino.layout_helpers.set_layout(graph.input(), openvino.Layout("NHWC"))
        for name, value in model_info_of(metadata).items():
            graph.set_rt_info(value, ["model_info", name])
        openvino.save_model(graph, folder / MODEL, compress_to_fp16=metadata.precision == "float16")


def model_info_of(metadata: Metadata) -> dict[str, str]:
    """What OpenVINO's Model API reads in the runtime information of a graph.

    Args:
        metadata: Metadata.

    Returns:
        dict of str to str, from the names of parameters to values as their parser takes them
        (`open-edge-platform/model_api`, `models/parameters.py` and `models/types.py`).
    """
    low, high = metadata.input_range
    scale = 255 / (high - low)  # Of pixels.
    info = {
        # It takes images as OpenCV reads them, BGR.
        "reverse_input_channels": "True",
        "mean_values": " ".join([f"{abs(low) * scale:g}"] * RGB),
        "scale_values": " ".join([f"{scale:g}"] * RGB),
    }
    if metadata.variant == "classification":
        info |= {"model_type": "Classification", "output_raw_scores": "True"}
    spec = metadata.spec
    if spec is None:
        return info
    resizing = spec.transform.resizing
    return info | {
        # They are separated by spaces.
        "labels": " ".join("_".join(name.split()) for name in spec.labels.names),
        "multilabel": str(spec.activation == "sigmoid"),
        # The nearest to the transform: it knows no crop of what was resized to more than the side.
        "resize_type": "standard" if resizing.mode == "squash" else "crop",
        "interpolation_mode": "CUBIC" if resizing.interpolation == "bicubic" else "LINEAR",
    }
