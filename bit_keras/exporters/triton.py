"""Models in a repository of Triton Inference Server, which the tests here do not run.

`config.pbtxt` is the text of a `ModelConfig` (`triton-inference-server/common`,
`protobuf/model_config.proto`).
"""

import json
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import keras

from bit_keras.artifacts.members import TRITON_FILES
from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.artifacts.runtimes.program import DEFAULT_SIGNATURE
from bit_keras.errors import ExportError
from bit_keras.exporters.outputs import ExportedNetwork
from bit_keras.exporters.serving import BATCH_SIZES, export_serving, version_folder
from bit_keras.preprocessing import ClassifierSpec

CONFIG = "config.pbtxt"
LABELS = "labels.txt"

#: What Triton runs each file with (`triton-inference-server/backend`, `README.md`).
_PLATFORMS = MappingProxyType({"serving": "tensorflow_savedmodel", "onnx": "onnxruntime_onnx"})

#: The outputs whose positions are classes, so that Triton can return their labels.
_OF_CLASSES = (OUTPUTS["classification"], "probabilities")


class _Tensor(NamedTuple):
    """An input or an output: `dims` with the batch, -1 where anything goes."""

    name: str
    data_type: str
    dims: tuple[int, ...]


def export_triton(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    target: str = "serving",
    version: int = 1,
    **options: Any,
) -> Metadata:
    """Writes a model into a model repository of Triton Inference Server.

    The folder `path` is one model of the repository, and its name the model's:

    - `config.pbtxt`: platform, largest batch, inputs and outputs;
    - `labels.txt`, of a classifier: a class in each line, for Triton's classification
      extension;
    - `VERSION/model.savedmodel`, a folder as `export_serving` writes, or
      `VERSION/model.onnx`, a file as `export_onnx` writes.

    A SavedModel is served through its signature `serving_default`. Requests with images are
    merged to batches of up to 8. Requests with encoded images (`default_signature`) are not
    merged, since one that cannot be read fails its whole batch; nor are those of an ONNX file
    with a fixed batch. Edit `config.pbtxt` to change that.

    Args:
        model: The model.
        path: The folder of the model; its parent is the repository. It is created, or has
            the `config.pbtxt` of a former version. Written atomically.
        target: `"serving"` for a SavedModel, or `"onnx"`. Defaults to `"serving"`.
        version: int. From 1. Defaults to `1`.
        **options: Of `export_serving`, but for `batch_sizes`, or of `export_onnx`.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError: A folder that is not a model of a repository, a version with other inputs,
            outputs or labels than the former ones, and as `bit_keras.export`.
        SizeError, BitKerasError: As `bit_keras.export`.
    """
    path = Path(path)
    if path.is_dir() and any(path.iterdir()) and not (path / CONFIG).is_file():
        raise ExportError(
            f"{path} has no {CONFIG}, so it is not a model of a Triton repository; choose a new "
            "folder."
        )
    with version_folder(path, version) as folder:
        artifact = folder / TRITON_FILES[target]
        if target == "serving":
            metadata = _export_saved_model(model, artifact, options)
            inputs, outputs = _of_saved_model(artifact)
        else:
            from bit_keras.exporters.onnx import export_onnx

            metadata = export_onnx(model, artifact, **options)
            inputs, outputs = _of_onnx(artifact)
        # The folder of all versions, new or not.
        labels = _labels(metadata, outputs)
        _describe(folder.parent, path.resolve().name, target, inputs, outputs, labels)
    return metadata


def _export_saved_model(
    model: keras.Model | ExportedNetwork, artifact: Path, options: dict[str, Any]
) -> Metadata:
    """Writes a SavedModel; Triton has no use for the requests that warm TensorFlow Serving up."""
    versions = artifact.with_name("versions")
    metadata = export_serving(model, versions, batch_sizes=(), **options)
    (versions / "1").rename(artifact)
    versions.rmdir()
    return metadata


def _of_saved_model(artifact: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    """The inputs and outputs of the signature that Triton calls."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    types = {tf.float32: "TYPE_FP32", tf.string: "TYPE_STRING"}
    document = saved_model_pb2.SavedModel.FromString((artifact / "saved_model.pb").read_bytes())
    signature = document.meta_graphs[0].signature_def[DEFAULT_SIGNATURE]

    def tensors(infos: Any) -> list[_Tensor]:
        return [
            _Tensor(
                name,
                types[tf.as_dtype(info.dtype)],
                tuple(dim.size for dim in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items())
        ]

    return tensors(signature.inputs), tensors(signature.outputs)


def _of_onnx(artifact: Path) -> tuple[list[_Tensor], list[_Tensor]]:
    import onnx

    graph = onnx.load(artifact, load_external_data=False).graph

    def tensors(values: Any) -> list[_Tensor]:
        return [
            # All inputs and outputs are float32, whatever is between them.
            _Tensor(
                value.name,
                "TYPE_FP32",
                # An open one has a name, and the value 0.
                tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim),
            )
            for value in values
        ]

    return tensors(graph.input), tensors(graph.output)


def _labels(metadata: Metadata, outputs: list[_Tensor]) -> bytes:
    """The content of `labels.txt`; nothing where no output has one value for each class."""
    if metadata.task is None or not any(output.name in _OF_CLASSES for output in outputs):
        return b""
    names = ClassifierSpec.from_json(metadata.task).labels.names
    for name in names:
        if len(name.splitlines()) > 1:
            raise ExportError(f"The label {name!r} contains a line break; rename it.")
    return "".join(f"{name}\n" for name in names).encode()


def _describe(
    folder: Path,
    name: str,
    target: str,
    inputs: list[_Tensor],
    outputs: list[_Tensor],
    labels: bytes,
) -> None:
    """Writes what all versions of a model share, or compares it with what is there."""
    (images,) = inputs
    batched = images.dims[0] == -1 and images.data_type != "TYPE_STRING"
    signature = _block("input", inputs, batched) + _block("output", outputs, batched)
    config, listed = folder / CONFIG, folder / LABELS
    if not config.exists():
        header = [
            f"name: {_quoted(name)}",
            f"platform: {_quoted(_PLATFORMS[target])}",
            f"max_batch_size: {BATCH_SIZES[-1] if batched else 0}",
            *(["dynamic_batching { }"] if batched else []),
        ]
        config.write_text("\n".join(header) + f"\n{signature}", "utf-8")
        if labels:
            listed.write_bytes(labels)
        return
    # The rest may have been edited for the machine that serves it.
    text = config.read_bytes()
    if any(part.encode() not in text for part in (signature, _quoted(_PLATFORMS[target]))):
        raise ExportError(
            f"{config} describes a model with another platform, other inputs or other outputs; "
            "write this one to a folder of its own."
        )
    if labels and (not listed.is_file() or listed.read_bytes() != labels):
        raise ExportError(
            f"{listed} does not list the classes of this model; write it to a folder of its own."
        )


def _block(title: str, tensors: list[_Tensor], batched: bool) -> str:
    """The field `input` or `output`; the server adds the batch to `dims` where it batches."""
    entries = []
    for tensor in tensors:
        dims = tensor.dims[1:] if batched else tensor.dims
        lines = [
            f"name: {_quoted(tensor.name)}",
            f"data_type: {tensor.data_type}",
            f"dims: [ {', '.join(map(str, dims))} ]",
        ]
        if tensor.name in _OF_CLASSES:
            lines.append(f"label_filename: {_quoted(LABELS)}")
        entries.append("  {\n" + "".join(f"    {line}\n" for line in lines) + "  }")
    return f"{title} [\n" + ",\n".join(entries) + "\n]\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
