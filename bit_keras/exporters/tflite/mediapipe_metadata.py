"""What MediaPipe's image tasks, and people, read in a TFLite file next to the model.

A flatbuffer of its own, `ModelMetadata`, is a buffer of the model; the files that it
names, and whatever else travels with the model, are an archive at its end.

Reference:
    `metadata_schema.fbs` (`tensorflow/tflite-support`,
    `tensorflow_lite_support/metadata/metadata_schema.fbs`; the same in
    `google-ai-edge/mediapipe`, `mediapipe/tasks/metadata/metadata_schema.fbs`).
"""

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.artifacts.runtimes.tflite_file import DIGEST, digest_of
from bit_keras.errors import ExportError
from bit_keras.exporters.tflite.flatbuffer import (
    ALIGNMENT,
    BUFFERS,
    METADATA,
    NewRoot,
    offset_vector,
)
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import model_info

#: The member of the archive that has the labels, one a line.
LABELS = "labels.txt"

#: The name by which a model refers to its metadata, and the identifier of these.
_ENTRY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"

#: The oldest version of the schema that has every field which is written here.
_PARSER_VERSION = "1.0.0"

#: The fields of each table, in the order of `metadata_schema.fbs`, as far as they are needed;
#: a union is two fields, the first of which says what the second one contains.
_FIELDS = {
    "AssociatedFile": ("name", "description", "type"),
    "ImageSize": ("width", "height"),
    "ImageProperties": ("color_space", "default_size"),
    "FeatureProperties": (),
    "Content": ("content_properties_type", "content_properties"),
    "NormalizationOptions": ("mean", "std"),
    "ProcessUnit": ("options_type", "options"),
    "Stats": ("max", "min"),
    "TensorMetadata": (
        "name",
        "description",
        "dimension_names",
        "content",
        "process_units",
        "stats",
        "associated_files",
    ),
    "SubGraphMetadata": (
        "name",
        "description",
        "input_tensor_metadata",
        "output_tensor_metadata",
    ),
    "ModelMetadata": (
        "name",
        "description",
        "version",
        "subgraph_metadata",
        "author",
        "license",
        "associated_files",
        "min_parser_version",
    ),
}

#: `AssociatedFileType`, `ColorSpaceType`, and what the unions can contain.
_TENSOR_AXIS_LABELS = np.int8(2)
_RGB = np.int8(1)
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = np.uint8(1), np.uint8(2)
_NORMALIZATION_OPTIONS = np.uint8(1)

_MEANINGS = {
    "logits": "What the network gives for each class, before {activation}.",
    "features": "The pooled features of the image.",
    CLASS_MAPS: "What each position gives for each class, (batch, height, width, classes); "
    "the mean over the positions are the logits.",
}

#: The outputs whose numbers are one for each class. Class maps have labels along their last
#: axis too, but MediaPipe refuses a file with another number of labels than of numbers.
_LABELLED = ("probabilities", "logits")

_SCORES = {
    "softmax": "The probability of each class; all of them add up to 1.",
    "sigmoid": "The probability of each class by itself; an image can be of several.",
}


@dataclasses.dataclass(frozen=True)
class _Table:
    """A table of the schema: strings, lists, tables, and NumPy scalars by their dtype."""

    type: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


def with_metadata(
    model: bytes, metadata: Metadata, spec: ClassifierSpec | None, members: Mapping[str, bytes]
) -> bytes:
    """A TFLite file that says what it is.

    MediaPipe's ImageClassifier and ImageEmbedder take it as it is, where the size of
    its images is fixed.

    Args:
        model: bytes. A TFLite model with one subgraph, whose outputs a signature names.
        metadata: Metadata. Of the artifact.
        spec: ClassifierSpec, or None where labels are not known.
        members: mapping from a path to the content of a file. What else is in the
            archive at the end, where the digest of all before it is too.

    Returns:
        bytes. The same for the same arguments.

    Raises:
        ExportError: A label contains a line break.
    """
    content = _serialised(_model_metadata(model, metadata, spec))
    files = dict(members) if spec is None else {LABELS: _labels(spec), **members}
    file = io.BytesIO()
    file.write(_root_with_entry(model, content))
    file.write(model)
    with file.getbuffer() as content_before:
        files[DIGEST] = digest_of(content_before).encode()
    # Offsets count from the beginning of the file, where it is read from.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path, data in files.items():
            archive.writestr(_member(path), data)
    return file.getvalue()


def _labels(spec: ClassifierSpec) -> bytes:
    for name in spec.labels.names:
        if len(name.splitlines()) != 1:
            raise ExportError(
                f"The label {name!r} is not a single line, and {LABELS} has one a line; rename it."
            )
    return "".join(f"{name}\n" for name in spec.labels.names).encode()


def _member(path: str) -> zipfile.ZipInfo:
    """A member without the time and the system that it was written on."""
    member = zipfile.ZipInfo(path)
    member.create_system = 3
    member.external_attr = 0o644 << 16
    return member


def _root_with_entry(model: bytes, content: bytes) -> bytes:
    """The bytes to put before a model, so that it refers to the metadata in them."""
    head = NewRoot(model)
    builder = head.builder
    # Aligned, for it is a flatbuffer itself.
    builder.StartVector(1, len(content), ALIGNMENT)
    for byte in reversed(content):
        builder.PrependUint8(byte)
    data = builder.EndVector()
    schema.BufferStart(builder)
    schema.BufferAddData(builder, data)
    buffers = head.extended(BUFFERS, [schema.BufferEnd(builder)])
    name = builder.CreateString(_ENTRY)
    schema.MetadataStart(builder)
    schema.MetadataAddName(builder, name)
    schema.MetadataAddBuffer(builder, buffers - 1)
    head.extended(METADATA, [schema.MetadataEnd(builder)])
    return head.bytes()


def _model_metadata(model: bytes, metadata: Metadata, spec: ClassifierSpec | None) -> _Table:
    checkpoint = model_info(metadata.model)
    subgraph = schema.Model.GetRootAs(model).Subgraphs(0)
    fields = {
        "input_tensor_metadata": [_input(subgraph.Tensors(subgraph.Inputs(0)), metadata)],
        "output_tensor_metadata": [_output(name, spec) for name in _output_names(model)],
    }
    return _Table(
        "ModelMetadata",
        {
            "name": metadata.model,
            "description": checkpoint.description,
            "version": metadata.versions["bit_keras"],
            "subgraph_metadata": [_Table("SubGraphMetadata", fields)],
            "author": f"Exported by bit_keras {metadata.versions['bit_keras']}",
            "license": f"{checkpoint.license}, of the published weights {checkpoint.name}",
            "min_parser_version": _PARSER_VERSION,
        },
    )


def _input(tensor: schema.Tensor, metadata: Metadata) -> _Table:
    mean, std = _normalization(tensor, metadata.input_range)
    properties: dict[str, Any] = {"color_space": _RGB}
    if metadata.size is not None:
        size = np.uint32(metadata.size)
        properties["default_size"] = _Table("ImageSize", {"width": size, "height": size})
    options = _Table("NormalizationOptions", {"mean": [mean], "std": [std]})
    return _Table(
        "TensorMetadata",
        {
            "name": "inputs",
            "description": "RGB image, (batch, height, width, 3).",
            "content": _content(_IMAGE_PROPERTIES, _Table("ImageProperties", properties)),
            "process_units": [
                _Table("ProcessUnit", {"options_type": _NORMALIZATION_OPTIONS, "options": options})
            ],
            "stats": _Table("Stats", {"max": [(255 - mean) / std], "min": [-mean / std]}),
        },
    )


def _normalization(tensor: schema.Tensor, limits: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation that bring a pixel in [0, 255] to what the tensor stands for.

    A quantised input takes the pixel itself, and stands for scale x (pixel - zero point):
    "Quantized models share the same normalization parameters as their corresponding float
    models" (`metadata_schema.fbs`).
    """
    quantization = tensor.Quantization()
    if quantization is not None and quantization.ScaleLength():
        return float(quantization.ZeroPoint(0)), 1 / quantization.Scale(0)
    low, high = limits
    std = 255 / (high - low)
    return -low * std, std


def _output_names(model: bytes) -> list[str]:
    """The names that signatures give to the outputs of the subgraph, in its order."""
    root = schema.Model.GetRootAs(model)
    names: dict[int, str] = {}
    for index in range(root.SignatureDefsLength()):
        signature = root.SignatureDefs(index)
        outputs = [signature.Outputs(number) for number in range(signature.OutputsLength())]
        names |= {output.TensorIndex(): output.Name().decode() for output in outputs}
    return [names[tensor] for tensor in root.Subgraphs(0).OutputsAsNumpy()]


def _output(name: str, spec: ClassifierSpec | None) -> _Table:
    activation = spec.activation if spec else "softmax"
    meaning = _SCORES[activation] if name == "probabilities" else _MEANINGS[name]
    fields: dict[str, Any] = {
        "name": name,
        "description": meaning.format(activation=activation),
        "content": _content(_FEATURE_PROPERTIES, _Table("FeatureProperties")),
    }
    if name == "probabilities":
        fields["stats"] = _Table("Stats", {"max": [1.0], "min": [0.0]})
    if spec is not None and name in _LABELLED:
        labels = {
            "name": LABELS,
            "description": f"The classes of {spec.labels.name}, in the order of the tensor.",
            "type": _TENSOR_AXIS_LABELS,
        }
        fields["associated_files"] = [_Table("AssociatedFile", labels)]
    return _Table("TensorMetadata", fields)


def _content(properties_type: np.uint8, properties: _Table) -> _Table:
    return _Table(
        "Content", {"content_properties_type": properties_type, "content_properties": properties}
    )


def _serialised(table: _Table) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(_written(builder, table), _IDENTIFIER)
    return bytes(builder.Output())


def _written(builder: flatbuffers.Builder, value: Any) -> Any:
    """Writes what does not stand in a table itself, and returns what stands there for it."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Sequence):
        return _vector(builder, value)
    if isinstance(value, _Table):
        return _table(builder, value)
    return value


def _vector(builder: flatbuffers.Builder, values: Sequence[Any]) -> int:
    """A vector of numbers, or of whatever is elsewhere."""
    if isinstance(values[0], float):
        return builder.CreateNumpyVector(np.array(values, np.float32))
    return offset_vector(builder, [_written(builder, value) for value in values])


def _table(builder: flatbuffers.Builder, table: _Table) -> int:
    names = _FIELDS[table.type]
    written = {name: _written(builder, value) for name, value in table.fields.items()}
    builder.StartObject(len(names))
    for name, value in written.items():
        field = names.index(name)
        if isinstance(value, np.int8):
            builder.PrependInt8Slot(field, int(value), 0)
        elif isinstance(value, np.uint8):
            builder.PrependUint8Slot(field, int(value), 0)
        elif isinstance(value, np.uint32):
            builder.PrependUint32Slot(field, int(value), 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, value, 0)
    return builder.EndObject()
