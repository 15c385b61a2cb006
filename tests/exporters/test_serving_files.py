"""The serving configuration and its clients, against a stand-in for TensorFlow Serving."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from click.testing import CliRunner
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from bit_keras.exporters.serving import BATCH_SIZES, export_serving
from tests.cifar10 import CLASSES, SAMPLES

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

from tensorflow_serving.config import model_server_config_pb2

from tests.exporters.stand_in_server import Refusal, stand_in_server

FOLDER = Path(__file__).parents[2] / "export" / "serving"
MODEL = "bit_r50x1"


def load_client():
    spec = importlib.util.spec_from_file_location("client", FOLDER / "client.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = load_client()


def model_config():
    config = model_server_config_pb2.ModelServerConfig()
    return text_format.Parse((FOLDER / "models.config").read_text(), config)


def text(name):
    return (FOLDER / name).read_text()


def compose():
    (service,) = yaml.safe_load(text("docker-compose.yaml"))["services"].values()
    return service


def kubernetes():
    deployment, service = yaml.safe_load_all(text("kubernetes.yaml"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return deployment, service, container


def flags(arguments):
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)


# The files agree with each other and with what TensorFlow Serving reads.


def test_every_label_points_to_a_version_that_the_policy_loads():
    (model,) = model_config().model_config_list.config
    assert (model.name, model.base_path) == (MODEL, f"/models/{MODEL}")
    assert model.model_platform == "tensorflow"
    assert dict(model.version_labels) == {"stable": 1}
    assert set(model.version_labels.values()) <= set(model.model_version_policy.specific.versions)


def batching_parameters():
    """The message of `session_bundle_config.proto`, which the package does not contain."""
    file = descriptor_pb2.FileDescriptorProto(
        name="session_bundle_config.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    message = file.message_type.add(name="BatchingParameters")
    for number, name, message_name in (
        (1, "max_batch_size", "Int64Value"),
        (2, "batch_timeout_micros", "Int64Value"),
        (3, "max_enqueued_batches", "Int64Value"),
        (4, "num_batch_threads", "Int64Value"),
        (5, "thread_pool_name", "StringValue"),
        (8, "enable_large_batch_splitting", "BoolValue"),
        (9, "max_execution_batch_size", "Int64Value"),
    ):
        message.field.add(
            name=name,
            number=number,
            type="TYPE_MESSAGE",
            label="LABEL_OPTIONAL",
            type_name=f".google.protobuf.{message_name}",
        )
    message.field.add(
        name="allowed_batch_sizes", number=6, type="TYPE_INT64", label="LABEL_REPEATED"
    )
    message.field.add(
        name="pad_variable_length_inputs", number=7, type="TYPE_BOOL", label="LABEL_OPTIONAL"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("tensorflow.serving.BatchingParameters")
    return message_factory.GetMessageClass(descriptor)()


def test_the_allowed_batch_sizes_are_those_that_an_artifact_is_warmed_up_for():
    parameters = text_format.Parse(text("batching.config"), batching_parameters())
    sizes = list(parameters.allowed_batch_sizes)
    assert sizes == sorted(set(sizes)) == list(BATCH_SIZES)
    assert sizes[-1] == parameters.max_batch_size.value == client.BATCH_SIZE
    assert parameters.num_batch_threads.value == compose()["cpus"]
    assert parameters.batch_timeout_micros.value > 0
    assert parameters.max_enqueued_batches.value > 0


def test_the_server_of_compose_reads_the_two_files_of_this_folder():
    service = compose()
    mounts = dict(volume.rsplit(":", 2)[:2] for volume in service["volumes"])
    assert mounts == {"${MODELS:-./models}": "/models", ".": "/config"}
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    given = flags(service["command"])
    for flag in ("model_config_file", "batching_parameters_file"):
        folder, name = given[flag].rsplit("/", 1)
        assert folder == "/config"
        assert (FOLDER / name).is_file()
    assert "allow_version_labels_for_unavailable_models" in given
    assert "enable_batching" in given
    assert int(given["tensorflow_session_parallelism"]) == service["cpus"]
    assert [port.split(":")[-1] for port in service["ports"]] == ["8500", "8501"]


def test_kubernetes_runs_the_server_of_compose():
    deployment, _, container = kubernetes()
    assert container["image"] == compose()["image"]
    assert container["args"] == compose()["command"]
    assert int(container["resources"]["limits"]["cpu"]) == compose()["cpus"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"config": "/config", "models": "/models"}
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {volume["name"] for volume in volumes} == mounts.keys()


def test_the_config_map_of_kubernetes_contains_the_two_files():
    deployment, _, container = kubernetes()
    kustomization = yaml.safe_load(text("kustomization.yaml"))
    assert kustomization["resources"] == ["kubernetes.yaml"]
    (generator,) = kustomization["configMapGenerator"]
    named = [value for value in flags(container["args"]).values() if value.startswith("/config/")]
    assert sorted(f"/config/{name}" for name in generator["files"]) == sorted(named)
    assert all((FOLDER / name).is_file() for name in generator["files"])
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert {"name": "config", "configMap": {"name": generator["name"]}} in volumes
    # A new name for every content would restart the servers for a moved label.
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True


def test_ports_and_labels_of_kubernetes_meet():
    deployment, service, container = kubernetes()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    assert {port["targetPort"]: port["port"] for port in service["spec"]["ports"]} == ports
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]


def test_the_documentation_names_what_is_there():
    readme = text("README.md")
    for file in FOLDER.iterdir():
        if file.is_file() and file.name != "README.md":
            assert f"`{file.name}`" in readme, file.name
    named = set(re.findall(r"--([a-z]+_[a-z_]+)", readme + text("models.config")))
    assert named - {"per_process_gpu_memory_fraction"} <= flags(compose()["command"]).keys()
    for name in ("README.md", "client.sh", "docker-compose.yaml", "kubernetes.yaml"):
        assert set(re.findall(r"/v1/models/(\w+)", text(name))) <= {MODEL}, name
        assert set(re.findall(r"/labels/(\w+)", text(name))) <= {"stable", "canary"}, name
    assert client.Model().name == MODEL


# The clients, against the stand-in.


@pytest.fixture(scope="module")
def models(classifier, extractor, tmp_path_factory):
    """A folder of models as the server has it mounted: a classifier twice, and an extractor."""
    folder = tmp_path_factory.mktemp("models")
    export_serving(classifier, folder / MODEL)
    shutil.copytree(folder / MODEL / "1", folder / MODEL / "2")
    export_serving(extractor, folder / "features")
    _export_class_maps(folder / "maps" / "1")
    return folder


def _export_class_maps(folder):
    """A model with class maps of as many classes as ImageNet-21k has, 4.3 MB an image."""
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), name="inputs")])
    def class_maps(inputs):
        return {"class_maps": tf.zeros((tf.shape(inputs)[0], 7, 7, 21843))}

    tf.saved_model.save(module, str(folder), {"class_maps": class_maps})


def config_for(models):
    """models.config, with the paths of these tests and an extractor next to the classifier."""
    config = model_config()
    for model in config.model_config_list.config:
        model.base_path = str(models / Path(model.base_path).name)
    config.model_config_list.config.add(
        name="features", base_path=str(models / "features"), model_platform="tensorflow"
    )
    config.model_config_list.config.add(
        name="maps", base_path=str(models / "maps"), model_platform="tensorflow"
    )
    return config


@pytest.fixture(scope="module")
def server(models):
    with stand_in_server(config_for(models)) as server:
        yield server


@pytest.fixture(scope="module")
def artifact(models):
    return tf.saved_model.load(str(models / MODEL / "1"))


@pytest.fixture(scope="module")
def photos():
    return [SAMPLES / f"{name}.jpg" for name in CLASSES]


@pytest.fixture(params=["rest", "grpc"])
def way(request, server):
    """The two functions of the client for REST or gRPC, and the address that they take."""
    if request.param == "rest":
        return client.classify_rest, client.predict_rest, server.url
    return client.classify_grpc, client.predict_grpc, server.grpc


def test_both_clients_return_what_the_artifact_returns(way, artifact, photos):
    classify, _, address = way
    images = [path.read_bytes() for path in photos[:3]]
    want = artifact.signatures["image_bytes"](image_bytes=tf.constant(images))
    outputs = classify(address, client.Model(), images)
    assert len(outputs) == 3
    for row, output in enumerate(outputs):
        assert [p.label.encode() for p in output] == want["classes"][row].numpy().tolist()
        assert [p.class_id.encode() for p in output] == want["class_ids"][row].numpy().tolist()
        np.testing.assert_allclose([p.score for p in output], want["scores"][row], rtol=1e-5)
        assert output == sorted(output, key=lambda p: -p.score)


def test_float_images_go_to_the_default_signature(way, artifact):
    _, predict, address = way
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    want = artifact.signatures["serving_default"](inputs=tf.constant(images))
    sent = images.tolist() if predict is client.predict_rest else images
    got = predict(address, client.Model(), "serving_default", {"inputs": sent})
    assert got.keys() == {"logits", "probabilities"}
    # The sums of another program run.
    np.testing.assert_allclose(got["logits"], want["logits"], rtol=1e-4, atol=1e-5)


def test_responses_and_requests_of_more_than_4_megabytes_pass(server):
    image, model = np.zeros((1, 8, 8, 3), "float32"), client.Model("maps")
    maps = client.predict_grpc(server.grpc, model, "class_maps", {"inputs": image})["class_maps"]
    assert maps.shape == (1, 7, 7, 21843)
    assert maps.nbytes > 4 << 20
    large = np.zeros((1, 700, 700, 3), "float32")
    with pytest.raises(client.ServingError, match="refuses"):  # By its shape, not by its size.
        client.predict_grpc(server.grpc, model, "class_maps", {"inputs": large})


def test_a_feature_extractor_returns_features_and_says_so(way, photos):
    classify, predict, address = way
    model = client.Model("features")
    images = [photos[0].read_bytes()]
    with pytest.raises(client.ServingError, match="features, not classes"):
        classify(address, model, images)
    image = np.zeros((1, 64, 64, 3), "float32")
    sent = image.tolist() if predict is client.predict_rest else image
    got = predict(address, model, "features", {"inputs": sent})
    # An only output comes over REST without its name.
    got = got if predict is client.predict_rest else got["features"]
    assert np.shape(got) == (1, 1024)


def test_a_broken_image_fails_its_request_and_no_other(way, photos):
    classify, _, address = way
    good = photos[0].read_bytes()
    with pytest.raises(client.RefusedError, match=r"cannot be read.*\[1\]") as caught:
        classify(address, client.Model(), [good, good[:100], good])
    assert "\n" not in str(caught.value)
    assert "{{" not in str(caught.value)
    assert len(classify(address, client.Model(), [good])) == 1


def test_unknown_models_versions_and_labels_get_a_sentence(way, photos):
    classify, _, address = way
    images = [photos[0].read_bytes()]
    with pytest.raises(client.ServingError, match=r"has no such model or version: .*nope"):
        classify(address, client.Model("nope"), images)
    with pytest.raises(client.ServingError, match="has no such model or version"):
        classify(address, client.Model(version=7), images)
    with pytest.raises(client.RefusedError, match="Unrecognized servable version label: canary"):
        classify(address, client.Model(label="canary"), images)
    assert classify(address, client.Model(label="stable"), images)
    assert classify(address, client.Model(version=1), images)


def test_a_server_that_is_not_there_gets_a_sentence():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # Bound and not listening: nothing else responds there.
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(client.ServingError, match="is not available: is it running"):
            client.classify_rest(f"http://{address}", client.Model(), [b""], timeout=10)
        with pytest.raises(client.ServingError, match="is not available"):
            client.classify_grpc(address, client.Model(), [b""], timeout=10)


def test_the_other_port_gets_a_sentence(server):
    with pytest.raises(client.ServingError, match="is this its REST port"):
        client.classify_rest(f"http://{server.grpc}", client.Model(), [b""], timeout=10)
    with pytest.raises(client.ServingError, match="is not available"):
        rest = server.url.removeprefix("http://")
        client.classify_grpc(rest, client.Model(), [b""], timeout=10)


def test_an_address_that_cannot_be_asked_gets_a_sentence():
    with pytest.raises(client.ServingError, match="localhost:8501 cannot be asked"):
        client.classify_rest("localhost:8501", client.Model(), [b""])


def test_a_server_that_is_too_slow_gets_a_sentence():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(client.ServingError, match="did not respond in time"):
            client.classify_rest(f"http://{address}", client.Model(), [b""], timeout=0.2)
        with pytest.raises(client.ServingError, match=r"did not respond in time|is not available"):
            client.classify_grpc(address, client.Model(), [b""], timeout=0.2)


@pytest.mark.parametrize("option", ["--url", "--server"])
def test_the_command_reports_a_broken_image_and_classifies_the_others(
    option, server, photos, tmp_path
):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    address = server.url if option == "--url" else server.grpc
    # More than one request takes.
    images = [str(path) for path in (*photos, broken)]
    result = CliRunner().invoke(client.main, [*images, option, address, "--top", "2"])
    assert result.exit_code == 1
    assert re.findall(r"^\S+", result.stdout, re.MULTILINE) == images[:-1]
    assert len(result.stdout.splitlines()) == 2 * len(photos)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Error: {broken}: {address} refuses the request")


def test_the_command_prints_one_json_document(server, photos):
    arguments = [str(photos[0]), "--url", server.url, "--label", "stable", "--json"]
    result = CliRunner().invoke(client.main, arguments)
    assert result.exit_code == 0, result.output
    (document,) = json.loads(result.stdout)
    assert document["image"] == str(photos[0])
    assert len(document["predictions"]) == 5
    assert document["predictions"][0].keys() == {"id", "label", "score"}


def test_the_command_ends_with_one_sentence(server, photos):
    arguments = [str(photos[0]), "--url", server.url, "--model", "nope"]
    process = subprocess.run(
        [sys.executable, FOLDER / "client.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert process.returncode == 1
    assert process.stderr == (
        f"Error: {server.url} has no such model or version: "
        "Servable not found for request: Latest(nope)\n"
    )
    both = CliRunner().invoke(client.main, [arguments[0], "--label", "stable", "--version", "1"])
    assert both.exit_code == 2


def run_client_sh(url, *arguments):
    for program in ("bash", "curl", "base64"):
        if shutil.which(program) is None:
            pytest.skip(f"client.sh needs {program}")
    return subprocess.run(
        ["bash", FOLDER / "client.sh", *arguments],
        env={**os.environ, "SERVING_MODEL": f"{url}/v1/models/{MODEL}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_client_sh_requests_status_signatures_and_classes(server, photos):
    status = json.loads(run_client_sh(server.url, "status").stdout)
    assert [(v["version"], v["state"]) for v in status["model_version_status"]] == [
        ("1", "AVAILABLE")
    ]
    metadata = json.loads(run_client_sh(server.url, "metadata").stdout)
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "features", "image_bytes"} <= signatures.keys()
    output = json.loads(run_client_sh(server.url, "classify", photos[0]).stdout)
    (prediction,) = output["predictions"]
    ((best, *_),) = client.classify_rest(server.url, client.Model(), [photos[0].read_bytes()])
    assert prediction["classes"][0] == best.label
    assert prediction["scores"][0] == pytest.approx(best.score, rel=1e-5)


def test_client_sh_prints_what_the_server_says_and_fails(server, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    refused = run_client_sh(server.url, "classify", broken)
    assert refused.returncode == 22
    assert "cannot be read" in json.loads(refused.stdout)["error"]
    assert run_client_sh(server.url, "classify", tmp_path / "none.jpg").returncode == 1
    wrong = run_client_sh(server.url, "classify")
    assert (wrong.returncode, wrong.stderr[:5]) == (2, "Usage")


def test_the_probes_succeed_with_the_label_and_not_without_it(server):
    _, _, container = kubernetes()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        request = container[probe]["httpGet"]
        assert request["port"] == "rest"
        with urllib.request.urlopen(server.url + request["path"], timeout=10) as response:
            assert response.status == 200
    check = compose()["healthcheck"]["test"]
    assert check[0] == "CMD"
    if shutil.which("bash") is None:
        pytest.skip("the check of docker-compose.yaml needs bash")
    port = server.url.rsplit(":", 1)[1]
    here = [part.replace("8501", port) for part in check[1:]]
    assert subprocess.run(here, timeout=10, check=False).returncode == 0
    for absent in ("stable/canary", f"{MODEL}/nope"):
        elsewhere = [part.replace(*absent.split("/")) for part in here]
        assert subprocess.run(elsewhere, timeout=10, check=False).returncode == 1


@pytest.mark.long
def test_a_rollout_moves_the_labels_edit_by_edit(models, photos):
    images = [photos[0].read_bytes()]
    config = config_for(models)
    model = config.model_config_list.config[0]
    with stand_in_server(config) as server:

        def version_of(label):
            with urllib.request.urlopen(
                f"{server.url}/v1/models/{MODEL}/labels/{label}/metadata", timeout=10
            ) as response:
                return json.load(response)["model_spec"]["version"]

        model.model_version_policy.specific.versions.append(2)
        model.version_labels["stable"] = 2
        with pytest.raises(Refusal, match="not currently available"):  # Edits 1 and 3 at once.
            server.models.reload(config)
        assert version_of("stable") == "1"

        model.version_labels["stable"] = 1
        server.models.reload(config)
        model.version_labels["canary"] = 2
        server.models.reload(config)
        assert (version_of("stable"), version_of("canary")) == ("1", "2")
        assert client.classify_grpc(server.grpc, client.Model(label="canary"), images)

        for stable in (2, 1):  # Out, and back.
            model.version_labels["stable"] = stable
            server.models.reload(config)
            assert version_of("stable") == str(stable)


# The stand-in itself: the rows and columns of the documented REST interface.


def post(server, body, path=f"/v1/models/{MODEL}:predict"):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_rows_and_columns_get_responses_in_their_format(server):
    image = np.zeros((64, 64, 3)).tolist()
    _, rows = post(server, {"instances": [image, image]})
    _, named = post(server, {"instances": [{"inputs": image}, {"inputs": image}]})
    _, columns = post(server, {"inputs": [image, image]})
    assert rows == named
    assert [row["logits"] for row in rows["predictions"]] == columns["outputs"]["logits"]
    _, only = post(server, {"signature_name": "features", "instances": [image]})
    assert np.shape(only["predictions"]) == (1, 1024)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "Is not object"),
        ({"instances": [[1.0]], "inputs": [[1.0]]}, "one of 'inputs' or 'instances'"),
        ({"instances": []}, "list with values"),
        ({"instances": ["text"]}, "not of expected type: float"),
        ({"instances": [[1.0], [1.0, 2.0]]}, "unexpected size"),
        ({"signature_name": "none", "instances": [1]}, "not found in signature def"),
        ({"signature_name": "image_bytes", "instances": [{"b64": "?"}]}, "Unable to base64"),
    ],
)
def test_malformed_requests_are_refused_as_documented(server, body, message):
    status, output = post(server, body)
    assert status == 400
    assert message in output["error"]
