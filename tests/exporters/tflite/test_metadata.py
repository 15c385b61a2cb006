"""The metadata of a TFLite file, as another program's reader of the format finds it."""

import dataclasses
import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.artifacts.runtimes.tflite_file import DIGEST
from bit_keras.errors import ExportError
from bit_keras.exporters.tflite.mediapipe_metadata import with_metadata
from bit_keras.preprocessing import Labels, load_labels, spec_of
from bit_keras.registry import model_info
from tests.exporters.tflite.metadata import described
from tests.exporters.tflite.models import NAME, extractor, model_of

MEMBERS = {"assets.extra/bit_keras.json": b"{}", "assets.extra/golden.npz": bytes(range(256))}

pytestmark = pytest.mark.filterwarnings(
    # It is one of the two programs that have to run the files.
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)


def file_of(quantize, spec=None, members=MEMBERS, **changes):
    changes = {"task": (spec or spec_of(NAME)).to_json(), **changes}
    return with_metadata(model_of(quantize), described(quantize, **changes), members)


def content_of(file):
    """The bytes of the metadata in a file."""
    model = schema.Model.GetRootAs(file)
    entries = {
        model.Metadata(index).Name(): model.Metadata(index).Buffer()
        for index in range(model.MetadataLength())
    }
    return model.Buffers(entries[b"TFLITE_METADATA"]).DataAsNumpy()


def read(file):
    """The metadata as MediaPipe's own code reads them."""
    spec = importlib.util.find_spec("mediapipe")
    if spec is None:
        pytest.skip("mediapipe, whose schema reads the metadata, is not installed")
    # By its path: the packages above it need modules that are not in the wheel.
    path = Path(spec.origin).parent / "tasks/metadata/metadata_schema_py_generated.py"
    spec = importlib.util.spec_from_file_location("metadata_schema", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    content = content_of(file).tobytes()
    assert module.ModelMetadata.ModelMetadataBufferHasIdentifier(content, 0)
    return module, module.ModelMetadataT.InitFromObj(module.ModelMetadata.GetRootAs(content))


def plain(value):
    """What was read, as dicts, lists and numbers, without what is empty."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | np.ndarray):
        return [plain(one) for one in value]
    if hasattr(value, "__dict__"):
        fields = {name: plain(field) for name, field in vars(value).items()}
        return {name: field for name, field in fields.items() if field not in (None, 0, [])}
    return value


def test_all_of_it_reads_back():
    schema_of, metadata = read(file_of("none"))
    labels = [
        {
            "name": "labels.txt",
            "description": "The classes of cifar10, in the order of the tensor.",
            "type": schema_of.AssociatedFileType.TENSOR_AXIS_LABELS,
        }
    ]
    features = {"contentPropertiesType": schema_of.ContentProperties.FeatureProperties}
    features["contentProperties"] = {}
    found = plain(metadata)
    [subgraph] = found.pop("subgraphMetadata")
    assert found == {
        "name": NAME,
        "description": model_info(NAME).description,
        "version": "0.0",
        "author": "Exported by bit_keras 0.0",
        "license": "Apache-2.0, of the published weights bit_tiny.cifar10",
        "minParserVersion": "1.0.0",
    }
    assert subgraph["inputTensorMetadata"] == [
        {
            "name": "inputs",
            "description": "RGB image, (batch, height, width, 3).",
            "content": {
                "contentPropertiesType": schema_of.ContentProperties.ImageProperties,
                "contentProperties": {
                    "colorSpace": schema_of.ColorSpaceType.RGB,
                    "defaultSize": {"width": 64, "height": 64},
                },
            },
            "processUnits": [
                {
                    "optionsType": schema_of.ProcessUnitOptions.NormalizationOptions,
                    "options": {"mean": [127.5], "std": [127.5]},
                }
            ],
            "stats": {"max": [1.0], "min": [-1.0]},
        }
    ]
    assert subgraph["outputTensorMetadata"] == [
        {
            "name": "probabilities",
            "description": "The probability of each class; all of them add up to 1.",
            "content": features,
            "stats": {"max": [1.0], "min": [0.0]},
            "associatedFiles": labels,
        },
        {
            "name": "logits",
            "description": "What the network gives for each class, before softmax.",
            "content": features,
            "associatedFiles": labels,
        },
        {
            "name": "features",
            "description": "The pooled features of the image.",
            "content": features,
        },
    ]


@pytest.mark.parametrize(
    ("changes", "mean", "std", "limits"),
    [
        ({"input_range": (0.0, 1.0)}, 0.0, 255.0, (0.0, 1.0)),
        ({"input_range": (-1.0, 1.0), "size": None}, 127.5, 127.5, (-1.0, 1.0)),
    ],
)
def test_the_range_of_images_is_what_the_file_says(changes, mean, std, limits):
    _, metadata = read(file_of("none", **changes))
    inputs = metadata.subgraphMetadata[0].inputTensorMetadata[0]
    options = inputs.processUnits[0].options
    assert (options.mean[0], options.std[0]) == (mean, std)
    assert (inputs.stats.min[0], inputs.stats.max[0]) == limits


def test_pixels_of_a_quantised_file_are_normalised_to_what_its_tensor_stands_for():
    _, metadata = read(file_of("int8-pure"))
    options = metadata.subgraphMetadata[0].inputTensorMetadata[0].processUnits[0].options
    interpreter = tf.lite.Interpreter(model_content=file_of("int8-pure"))
    scale, zero_point = interpreter.get_input_details()[0]["quantization"]
    # (pixel - mean) / std, quantised again, is the pixel.
    pixels = np.arange(256)
    real = (pixels - options.mean[0]) / options.std[0]
    assert (np.rint(real / scale + zero_point) == pixels).all()


def test_multi_label_scores_say_that_they_do_not_add_up():
    _, metadata = read(file_of("none", dataclasses.replace(spec_of(NAME), activation="sigmoid")))
    probabilities, logits, _ = metadata.subgraphMetadata[0].outputTensorMetadata
    assert probabilities.description == (
        b"The probability of each class by itself; an image can be of several."
    )
    assert logits.description == b"What the network gives for each class, before sigmoid."


def test_a_feature_extractor_has_no_labels():
    metadata = dataclasses.replace(described("none"), variant="feature_extraction", task=None)
    file = with_metadata(extractor(), metadata, MEMBERS)
    _, found = read(file)
    [features] = found.subgraphMetadata[0].outputTensorMetadata
    assert (features.name, features.associatedFiles) == (b"features", None)
    assert zipfile.ZipFile(io.BytesIO(file)).namelist() == [*MEMBERS, DIGEST]


def test_the_archive_has_the_labels_and_the_members_as_they_are():
    with zipfile.ZipFile(io.BytesIO(file_of("none"))) as archive:
        assert archive.testzip() is None
        names = archive.read("labels.txt").decode().splitlines()
        assert names == list(load_labels("cifar10").names)
        for path, content in MEMBERS.items():
            assert archive.read(path) == content
        for member in archive.infolist():
            # As they are: readers on phones map them. Where they are: no offset to be added.
            assert member.compress_type == zipfile.ZIP_STORED
            assert file_of("none")[member.header_offset :][:4] == b"PK\x03\x04"


def test_labels_of_several_lines_are_refused():
    names = ("a\nb", *"bcdefghij")
    spec = dataclasses.replace(spec_of(NAME), labels=Labels("lines", tuple("abcdefghij"), names))
    with pytest.raises(ExportError, match=r"label 'a\\nb' is not a single line.*rename it"):
        file_of("none", spec)


def test_the_same_model_gives_the_same_bytes():
    assert file_of("dynamic") == file_of("dynamic")


@pytest.mark.parametrize("quantize", ["none", "float16", "dynamic", "int8-pure"])
def test_the_model_computes_what_it_did(quantize):
    outputs = []
    for content in (model_of(quantize), file_of(quantize)):
        interpreter = tf.lite.Interpreter(model_content=content)
        details = interpreter.get_input_details()[0]
        images = np.full(details["shape"], 1, details["dtype"])
        outputs.append(interpreter.get_signature_runner("serving_default")(inputs=images))
    before, after = outputs
    assert before.keys() == after.keys() == {"features", "logits", "probabilities"}
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def buffers(model):
    """Where the buffers of a model are in its bytes, and how long they are."""
    root, start = schema.Model.GetRootAs(model), np.frombuffer(model, np.uint8).ctypes.data
    data = [root.Buffers(index).DataAsNumpy() for index in range(root.BuffersLength())]
    # It is 0 where there are none.
    return [(one.ctypes.data - start, len(one)) for one in data if not isinstance(one, int)]


def test_weights_keep_their_alignment():
    before, after = buffers(model_of("none")), buffers(file_of("none"))
    assert len(after) == len(before) + 1
    assert [(place % 16, length) for place, length in after[:-1]] == [
        (place % 16, length) for place, length in before
    ]
    place, length = after[-1]
    assert place % 16 == 0
    assert file_of("none")[place : place + length] == content_of(file_of("none")).tobytes()


def test_only_some_kilobytes_are_added():
    archive = sum(len(content) for content in MEMBERS.values())
    assert len(file_of("none")) - len(model_of("none")) - archive < 16_384
