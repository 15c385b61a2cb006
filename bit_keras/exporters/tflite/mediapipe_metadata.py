"""What MediaPipe's image tasks, and people, read in a TFLite file next to the model.

A flatbuffer of its own, `ModelMetadata`, is a buffer of the model; the files that it
names, and whatever else travels with the model, are an archive at its end.

Reference:
    `metadata_schema.fbs` (`tensorflow/tflite-support`,
    `tensorflow_lite_support/metadata/metadata_schema.fbs`; the same in
    `google-ai-edge/mediapipe`, `mediapipe/tasks/metadata/metadata_schema.fbs`).
"""

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
    "AssociatedFile": "name description type",
    "ImageSize": "width height",
    "ImageProperties": "color_space default_size",
    "FeatureProperties": "",
    "Content": "content_properties_type content_properties",
    "NormalizationOptions": "mean std",
    "ProcessUnit": "options_type options",
    "Stats": "max min",
    "TensorMetadata": "name description dimension_names content process_units stats "
    "associated_files",
    "SubGraphMetadata": "name description input_tensor_metadata output_tensor_metadata",
    "ModelMetadata": "name description version subgraph_metadata author license associated_files "
    "min_parser_version",
}

#: `AssociatedFileType`, `ColorSpaceType`, and what the unions can contain: a byte each.
_TENSOR_AXIS_LABELS = np.uint8(2)
_RGB = np.uint8(1)
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


class _Table:
    """A table of the schema: strings, lists, tables, and NumPy scalars by their dtype."""

    def __init__(self, type: str, /, **fields: Any) -> None:
        self.type, self.fields = type, fields


def with_metadata(model: bytes, metadata: Metadata, members: Mapping[str, bytes]) -> bytes:
    """A TFLite file that says what it is.

    MediaPipe's ImageClassifier and ImageEmbedder take it as it is, where the size of
    its images is fixed.

    Args:
        model: bytes. A TFLite model with one subgraph, whose outputs a signature names.
        metadata: Metadata. Of the artifact.
        members: mapping from a path to the content of a file. What else is in the
            archive at the end, where the digest of all before it is too.

    Returns:
        bytes. The same for the same arguments.

    Raises:
        ExportError: A label contains a line break.
    """
    spec = metadata.spec
    builder = flatbuffers.Builder()
    builder.Finish(_table(builder, _model_metadata(model, metadata, spec)), _IDENTIFIER)
    files = dict(members) if spec is None else {LABELS: _labels(spec), **members}
    file = io.BytesIO()
    file.write(_root_with_entry(model, bytes(builder.Output())))
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
    head.extended(METADATA, [schema.MetadataT(_ENTRY, buffers - 1).Pack(builder)])
    return head.bytes()


def _model_metadata(model: bytes, metadata: Metadata, spec: ClassifierSpec | None) -> _Table:
    checkpoint, version = model_info(metadata.model), metadata.versions["bit_keras"]
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    (subgraph,) = content.subgraphs
    names = {
        output.tensorIndex: output.name.decode()
        for signature in content.signatureDefs
        for output in signature.outputs
    }
    tensors = _Table(
        "SubGraphMetadata",
        input_tensor_metadata=[_input(subgraph.tensors[subgraph.inputs[0]], metadata)],
        output_tensor_metadata=[_output(names[tensor], spec) for tensor in subgraph.outputs],
    )
    return _Table(
        "ModelMetadata",
        name=metadata.model,
        description=checkpoint.description,
        version=version,
        subgraph_metadata=[tensors],
        author=f"Exported by bit_keras {version}",
        license=f"{checkpoint.license}, of the published weights {checkpoint.name}",
        min_parser_version=_PARSER_VERSION,
    )


def _input(tensor: schema.TensorT, metadata: Metadata) -> _Table:
    mean, std = _normalization(tensor, metadata.input_range)
    properties = _Table("ImageProperties", color_space=_RGB)
    if metadata.size is not None:
        size = np.uint32(metadata.size)
        properties.fields["default_size"] = _Table("ImageSize", width=size, height=size)
    options = _Table("NormalizationOptions", mean=[mean], std=[std])
    return _Table(
        "TensorMetadata",
        name="inputs",
        description="RGB image, (batch, height, width, 3).",
        content=_content(_IMAGE_PROPERTIES, properties),
        process_units=[_Table("ProcessUnit", options_type=_NORMALIZATION_OPTIONS, options=options)],
        stats=_Table("Stats", max=[(255 - mean) / std], min=[-mean / std]),
    )


def _normalization(tensor: schema.TensorT, limits: tuple[float, float]) -> tuple[float, float]:
    """Mean and standard deviation that bring a pixel in [0, 255] to what the tensor stands for.

    A quantised input takes the pixel itself, and stands for scale x (pixel - zero point):
    "Quantized models share the same normalization parameters as their corresponding float
    models" (`metadata_schema.fbs`).
    """
    scale = getattr(tensor.quantization, "scale", None)
    if scale is not None and len(scale):
        return float(tensor.quantization.zeroPoint[0]), 1 / float(scale[0])
    low, high = limits
    std = 255 / (high - low)
    return -low * std, std


def _output(name: str, spec: ClassifierSpec | None) -> _Table:
    activation = spec.activation if spec else "softmax"
    meaning = _SCORES[activation] if name == "probabilities" else _MEANINGS[name]
    output = _Table(
        "TensorMetadata",
        name=name,
        description=meaning.format(activation=activation),
        content=_content(_FEATURE_PROPERTIES, _Table("FeatureProperties")),
    )
    if name == "probabilities":
        output.fields["stats"] = _Table("Stats", max=[1.0], min=[0.0])
    if spec is not None and name in _LABELLED:
        labels = _Table(
            "AssociatedFile",
            name=LABELS,
            description=f"The classes of {spec.labels.name}, in the order of the tensor.",
            type=_TENSOR_AXIS_LABELS,
        )
        output.fields["associated_files"] = [labels]
    return output


def _content(properties_type: np.uint8, properties: _Table) -> _Table:
    return _Table("Content", content_properties_type=properties_type, content_properties=properties)


def _written(builder: flatbuffers.Builder, value: Any) -> Any:
    """Writes what does not stand in a table itself, and returns what stands there for it."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, _Table):
        return _table(builder, value)
    if not isinstance(value, Sequence):
        return value
    if isinstance(value[0], float):
        return builder.CreateNumpyVector(np.array(value, np.float32))
    return offset_vector(builder, [_written(builder, table) for table in value])


def _table(builder: flatbuffers.Builder, table: _Table) -> int:
    names = _FIELDS[table.type].split()
    written = {name: _written(builder, value) for name, value in table.fields.items()}
    builder.StartObject(len(names))
    for name, value in written.items():
        prepend = {
            np.uint8: builder.PrependUint8Slot,
            np.uint32: builder.PrependUint32Slot,
            int: builder.PrependUOffsetTRelativeSlot,
        }[type(value)]
        prepend(names.index(name), int(value), 0)
    return builder.EndObject()
