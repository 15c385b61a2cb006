"""Triton's model repository, and SavedModels whose `serving_default` takes image files.

No Triton runs here. `config.pbtxt` is read with the messages of Triton, and compared with what
other programs say of the files that it describes.
"""

import base64
import importlib.metadata
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.exporters import export
from bit_keras.exporters.outputs import ExportedNetwork
from bit_keras.exporters.triton import export_triton
from bit_keras.inference import load_predictor
from bit_keras.preprocessing import ClassifierSpec, Labels, eval_transform
from tests.cifar10 import CLASSES, SAMPLES
from tests.cli.running import fails, run, succeeds

CAT = SAMPLES / "cat.jpg"
NAME = "bit_tiny.cifar10"


@pytest.fixture(scope="module")
def repository(trained, tmp_path_factory):
    """A repository with an ONNX model, and a SavedModel that takes image files."""
    folder = tmp_path_factory.mktemp("repository")
    export_triton(trained, folder / "images", target="onnx")
    export_triton(trained, folder / "files", default_signature="image_bytes")
    return folder


def model_config():
    """The fields of `model_config.proto` that are used here, with its numbers."""
    file = descriptor_pb2.FileDescriptorProto(
        name="model_config.proto", package="inference", syntax="proto3"
    )
    types = file.enum_type.add(name="DataType")
    for name, number in (("TYPE_INVALID", 0), ("TYPE_FP32", 11), ("TYPE_STRING", 13)):
        types.value.add(name=name, number=number)

    def message(name, *fields):
        added = file.message_type.add(name=name)
        for number, field, field_type in fields:
            repeated = field_type.endswith("*")
            field_type = field_type.removesuffix("*")
            entry = added.field.add(name=field, number=number)
            entry.label = entry.LABEL_REPEATED if repeated else entry.LABEL_OPTIONAL
            if field_type.startswith("TYPE_"):
                entry.type = entry.Type.Value(field_type)
            else:
                entry.type = entry.TYPE_ENUM if field_type == "DataType" else entry.TYPE_MESSAGE
                entry.type_name = f".inference.{field_type}"

    common = (1, "name", "TYPE_STRING"), (2, "data_type", "DataType")
    message("ModelInput", *common, (4, "dims", "TYPE_INT64*"))
    message(
        "ModelOutput", *common, (3, "dims", "TYPE_INT64*"), (4, "label_filename", "TYPE_STRING")
    )
    message("ModelDynamicBatching")
    message(
        "ModelConfig",
        (1, "name", "TYPE_STRING"),
        (2, "platform", "TYPE_STRING"),
        (4, "max_batch_size", "TYPE_INT32"),
        (5, "input", "ModelInput*"),
        (6, "output", "ModelOutput*"),
        (11, "dynamic_batching", "ModelDynamicBatching"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))()


def config_of(model):
    config = text_format.Parse((model / "config.pbtxt").read_text("utf-8"), model_config())
    assert config.name == model.name
    return config


def dims_of(tensors):
    return {tensor.name: tuple(tensor.dims) for tensor in tensors}


def shapes_of(values):
    """Those of ONNX Runtime, with -1 for what is open, as Triton writes it."""
    return {v.name: tuple(s if isinstance(s, int) else -1 for s in v.shape) for v in values}


# What Triton is told.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 64, "levels": ("class_maps",)},
        {"layout": "nchw", "size": 64},
        {"layout": "nchw", "size": 64, "batch": 2},
    ],
    ids=["open", "maps", "nchw", "fixed"],
)
def test_the_config_describes_the_onnx_file(options, trained, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    levels = options.get("levels", ())
    options = {name: value for name, value in options.items() if name != "levels"}
    export_triton(ExportedNetwork(trained, levels), tmp_path / "tiny", target="onnx", **options)
    config = config_of(tmp_path / "tiny")
    assert config.platform == "onnxruntime_onnx"
    session = onnxruntime.InferenceSession(tmp_path / "tiny" / "1" / "model.onnx")
    # Where it batches, the server puts the batch before the dims.
    before = () if "batch" in options else (-1,)
    assert config.max_batch_size == (0 if "batch" in options else 8)
    assert config.HasField("dynamic_batching") == ("batch" not in options)
    for tensors, values in (
        (config.input, session.get_inputs()),
        (config.output, session.get_outputs()),
    ):
        assert {n: before + d for n, d in dims_of(tensors).items()} == shapes_of(values)


def test_the_config_describes_the_saved_model(repository):
    config = config_of(repository / "files")
    assert (config.platform, config.max_batch_size) == ("tensorflow_savedmodel", 0)
    assert not config.HasField("dynamic_batching")
    loaded = tf.saved_model.load(str(repository / "files" / "1" / "model.savedmodel"))
    signature = loaded.signatures["serving_default"]
    types = {11: tf.float32, 13: tf.string}
    for tensors, specs in (
        (config.input, signature.structured_input_signature[1]),
        (config.output, signature.structured_outputs),
    ):
        told = {t.name: (types[t.data_type], tuple(t.dims)) for t in tensors}
        assert told == {
            name: (spec.dtype, tuple(-1 if side is None else side for side in spec.shape))
            for name, spec in specs.items()
        }


def test_the_labels_are_those_of_the_classes(repository):
    files = {output.label_filename for output in config_of(repository / "images").output}
    assert files == {"labels.txt", ""}
    assert (repository / "images" / "labels.txt").read_text().split() == list(CLASSES)
    # The scores of the five best classes have no label each.
    assert not (repository / "files" / "labels.txt").exists()


@pytest.mark.full
def test_triton_s_own_message_reads_the_config(repository):
    """Needs `pip install tritonclient[grpc]` in an environment below BIT_KERAS_CLIENTS."""
    folder = os.environ.get("BIT_KERAS_CLIENTS")
    if not folder:
        pytest.skip("BIT_KERAS_CLIENTS names no folder of environments.")
    pythons = [
        path.parents[3] / "bin" / "python"
        for path in Path(folder).glob("*/lib/python*/site-packages/tritonclient")
    ]
    if not pythons:
        pytest.skip(f"No environment in {folder} has tritonclient.")
    program = (
        "import sys\n"
        "from google.protobuf import text_format\n"
        "from tritonclient.grpc.model_config_pb2 import ModelConfig\n"
        "for name in sys.argv[1:]:\n"
        "    config = text_format.Parse(open(name).read(), ModelConfig())\n"
        "    print(config.name, config.max_batch_size, len(config.input), len(config.output))\n"
    )
    files = [repository / name / "config.pbtxt" for name in ("images", "files")]
    for python in pythons:
        process = subprocess.run(
            [python, "-c", program, *files], capture_output=True, text=True, check=False
        )
        assert process.stdout.splitlines() == ["images 8 1 3", "files 0 1 3"], process.stderr


# What this package does with the folder.


@pytest.mark.long
def test_the_folder_is_verified_and_asked_like_any_artifact(repository):
    image = eval_transform(NAME)(CAT)
    for name, differences in (
        ("images", {"serving_default (ONNX Runtime)", "features (ONNX Runtime)"}),
        ("files", {"serving_default", "inputs", "features", "image_bytes"}),
    ):
        verification = Artifact(repository / name).verify()
        assert verification.passed
        assert verification.differences.keys() == differences
        for path in (repository / name, repository / name / "1"):
            (ranked,) = load_predictor(path)([image], top=1)
            assert ranked[0][1] == "cat"


def test_the_first_signature_is_the_one_that_takes_images(repository):
    program = open_program(repository / "files" / "1" / "model.savedmodel")
    assert next(iter(program.signatures)) == "inputs"
    images = np.zeros((1, 64, 64, 3), "float32")
    assert program(images).keys() == {"logits", "probabilities"}


def test_versions_share_a_config_that_may_be_edited(trained, tmp_path):
    path = tmp_path / "tiny"
    export_triton(trained, path, target="onnx")
    config = path / "config.pbtxt"
    edited = config.read_text().replace("max_batch_size: 8", "max_batch_size: 64")
    config.write_text(edited + "instance_group [ { count: 2 } ]\n")
    export_triton(trained, path, target="onnx", version=2)
    assert config.read_text() == edited + "instance_group [ { count: 2 } ]\n"
    names = sorted(entry.name for entry in path.iterdir())
    assert names == ["1", "2", "config.pbtxt", "labels.txt"]
    with pytest.raises(BitKerasError, match="2 exists already"):
        export_triton(trained, path, target="onnx", version=2)


def test_a_version_that_is_another_model_is_refused(trained, tmp_path):
    path = tmp_path / "tiny"
    export_triton(trained, path, target="onnx")
    labels = Labels("others", tuple("abcdefghij"), tuple("abcdefghij"))
    spec = ClassifierSpec(labels, eval_transform(NAME))
    with pytest.raises(ExportError, match=r"labels\.txt does not list the classes"):
        export_triton(trained, path, target="onnx", version=2, spec=spec)
    with pytest.raises(ExportError, match=r"config\.pbtxt describes .* other inputs"):
        export_triton(trained, path, target="onnx", version=2, size=48)
    assert sorted(entry.name for entry in path.iterdir()) == ["1", "config.pbtxt", "labels.txt"]


def test_mistakes_are_named_and_leave_nothing(trained, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(ExportError, match=r"photos has no config\.pbtxt"):
        export_triton(trained, tmp_path / "photos")
    with pytest.raises(ExportError, match=r"layout goes with target='serving' or 'onnx'"):
        export(trained, tmp_path / "a", target="tflite", layout="triton")
    with pytest.raises(ExportError, match=r"default_signature must be inputs or .*'b64'"):
        export(trained, tmp_path / "a", "serving", layout="triton", default_signature="b64")
    broken = ClassifierSpec(
        Labels("broken", tuple("abcdefghij"), ("a\nb", *"bcdefghij")), eval_transform(NAME)
    )
    with pytest.raises(ExportError, match=r"label 'a\\nb' contains a line break"):
        export_triton(trained, tmp_path / "a", target="onnx", spec=broken)
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]


# The commands.


def test_the_command_writes_a_model_that_the_others_read(tmp_path):
    path = tmp_path / "tiny"
    options = ["--to", "onnx", "--layout", "triton", "--size", 64, "--out", path]
    result = succeeds("export", NAME, *options)
    assert result.stdout.startswith(f"Wrote {path / '1'}: {NAME}, classification")
    assert "exists already" in fails("export", NAME, *options)
    assert json.loads(succeeds("verify", path / "1", "--json").stdout)["passed"]
    (output,) = json.loads(succeeds("predict", path, CAT, "--json").stdout)
    assert output["predictions"][0]["label"] == "cat"
    # Its weights are changed for inference.
    again = ["--to", "keras", "--out", tmp_path / "a.keras"]
    assert "is an ONNX file, whose weights" in fails("export", path, *again)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "hub", "--layout", "triton"], "--layout goes with --to serving or onnx"),
        (
            ["--to", "serving", "--layout", "nchw"],
            "--layout must be triton with --to serving. Received: --layout nchw",
        ),
        (["--to", "onnx", "--version", "2"], "--version goes with --layout triton"),
        (
            ["--to", "serving", "--layout", "triton", "--batch-sizes", "1"],
            "--batch-sizes is for TensorFlow Serving",
        ),
        (["--to", "hub", "--default-signature", "inputs"], "goes with --to serving"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(options, sentence, tmp_path):
    result = run("export", NAME, *options, "--out", tmp_path / "a")
    assert result.exit_code == 2
    assert sentence in result.stderr


# Managed endpoints: no request names a signature.


@pytest.fixture(scope="module")
def endpoint(repository, tmp_path_factory):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from tensorflow_serving.config import model_server_config_pb2

    from tests.exporters.stand_in_server import stand_in_server

    served = tmp_path_factory.mktemp("served")
    (served / "1").symlink_to(repository / "files" / "1" / "model.savedmodel")
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.config.add(
        name="tiny", base_path=str(served), model_platform="tensorflow"
    )
    with stand_in_server(config) as server:
        yield server


def expected_score(trained):
    logits = trained.predict(eval_transform(NAME)(CAT)[None], verbose=0)[0].astype("float64")
    return np.array([np.exp(logits.max()) / np.exp(logits).sum()])


@pytest.mark.parametrize("named", [False, True], ids=["plain", "named"])
def test_rest_requests_without_a_signature_send_image_files(
    named, endpoint, trained, client_record
):
    import requests

    encoded = {"b64": base64.b64encode(CAT.read_bytes()).decode()}
    instance = {"image_bytes": encoded} if named else encoded
    url = f"{endpoint.url}/v1/models/tiny:predict"
    response = requests.post(url, json={"instances": [instance, instance]}, timeout=30)
    assert response.status_code == 200, response.text
    first, second = response.json()["predictions"]
    assert first["classes"][0] == first["class_ids"][0] == "cat"
    assert first["scores"] == second["scores"]
    difference = relative_difference(np.array(first["scores"][:1]), expected_score(trained))
    assert difference < 1e-5
    client_record(
        "TensorFlow Serving's REST, a stand-in",
        importlib.metadata.version("tensorflow-serving-api"),
        "serving --default-signature image_bytes",
        difference,
    )


def test_grpc_requests_without_a_signature_send_image_files(endpoint, trained, client_record):
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([CAT.read_bytes()]))
    with grpc.insecure_channel(endpoint.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout=30).outputs
    assert tf.make_ndarray(outputs["classes"])[0, 0] == b"cat"
    scores = tf.make_ndarray(outputs["scores"])[0, :1]
    difference = relative_difference(scores, expected_score(trained))
    assert difference < 1e-5
    client_record(
        "TensorFlow Serving's gRPC, a stand-in",
        importlib.metadata.version("tensorflow-serving-api"),
        "serving --default-signature image_bytes",
        difference,
    )
