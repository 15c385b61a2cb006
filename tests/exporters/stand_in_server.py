"""A stand-in for TensorFlow Serving's `tensorflow_model_server`. It is not the real server.

It loads SavedModels as that server does, graph, session and SignatureDefs without a Python object
of the writer, replays their warm-up requests, and restates what is documented and written in
`tensorflow/serving`: `g3doc/api_rest.md`, `g3doc/serving_config.md`, `util/json_tensor.cc`,
`model_servers/server_core.cc`. It has Predict over gRPC and REST, status and metadata over REST,
version policies and labels as with `--allow_version_labels_for_unavailable_models`.

It neither batches nor polls: `ModelServer.reload` is called by hand, and loads before it returns.
"""

import base64
import contextlib
import http.server
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from grpc import StatusCode
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

#: `model_servers/http_server.cc`, ToHTTPStatusCode; what is not here is a 500.
HTTP_STATUS = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.NOT_FOUND: 404,
}

#: `model_servers/http_rest_api_util.cc`.
MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"


class Refusal(Exception):
    """A status that is not OK."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def invalid(message):
    return Refusal(StatusCode.INVALID_ARGUMENT, message)


class Servable:
    """One version of a model."""

    def __init__(self, folder):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            bundle = tf.compat.v1.saved_model.load(self.session, ["serve"], str(folder))
        self.signatures = bundle.signature_def
        for request in warm_up_requests(folder):
            self.predict(request.model_spec.signature_name, arrays(request.inputs))

    def predict(self, signature_name, inputs):
        name = signature_name or "serving_default"
        if name not in self.signatures:
            raise Refusal(
                StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.'
            )
        signature = self.signatures[name]
        if inputs.keys() != set(signature.inputs):
            raise invalid(f"input size does not match signature: {sorted(inputs)}")
        feed = {}
        for name, value in inputs.items():
            want = tf.as_dtype(signature.inputs[name].dtype)
            if tf.as_dtype(value.dtype) != want:
                raise invalid(f"Expects {name} to be {want.name} but {value.dtype} is provided")
            feed[signature.inputs[name].name] = value
        try:
            return self.session.run({n: t.name for n, t in signature.outputs.items()}, feed)
        except ValueError as error:  # Python's own check of the shapes.
            raise invalid(str(error)) from error
        except tf.errors.OpError as error:
            code = next(code for code in StatusCode if code.value[0] == error.error_code)
            # Around the message of the graph Python says where it was built; a server cannot.
            message = error.message.removeprefix("Graph execution error:\n\n")
            raise Refusal(code, message.partition("\n\nOriginal stack trace")[0]) from error


class ModelServer:
    """The models, versions and labels of a `ModelServerConfig`."""

    def __init__(self, config):
        self.models, self.labels = {}, {}
        self.reload(config)

    def reload(self, config):
        labels = {}
        for model in config.model_config_list.config:
            for label, version in model.version_labels.items():
                moved = self.labels.get((model.name, label), version) != version
                if moved and version not in self.models[model.name]:
                    raise Refusal(
                        StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels[model.name, label] = version
        self.labels = labels
        before, self.models = self.models, {}
        for model in config.model_config_list.config:
            loaded = before.get(model.name, {})
            folders = wanted_versions(model)
            self.models[model.name] = {
                version: loaded.get(version) or Servable(folder)
                for version, folder in folders.items()
            }

    def find(self, spec):
        """The number of the version that a `ModelSpec` means, and the version."""
        versions = self.models.get(spec.name, {})
        request = f"Latest({spec.name})"
        number = max(versions, default=None)
        if spec.HasField("version") or spec.version_label:
            number = spec.version.value
            if spec.version_label:
                number = self.labels.get((spec.name, spec.version_label))
                if number is None:
                    raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            request = f"Specific({spec.name}, {number})"
        if number not in versions:
            raise Refusal(StatusCode.NOT_FOUND, f"Servable not found for request: {request}")
        return number, versions[number]

    def close(self):
        for versions in self.models.values():
            for servable in versions.values():
                servable.session.close()


def wanted_versions(model):
    folders = Path(model.base_path).iterdir()
    found = {int(folder.name): folder for folder in folders if folder.name.isdigit()}
    policy = model.model_version_policy
    policy_name = policy.WhichOneof("policy_choice")
    if policy_name == "specific":
        return {version: found[version] for version in policy.specific.versions if version in found}
    count = len(found) if policy_name == "all" else max(policy.latest.num_versions, 1)
    return {version: found[version] for version in sorted(found)[-count:]}


def warm_up_requests(folder):
    path = Path(folder) / "assets.extra" / "tf_serving_warmup_requests"
    if not path.exists():
        return []
    logs = map(
        prediction_log_pb2.PredictionLog.FromString,
        tf.data.TFRecordDataset(str(path)).as_numpy_iterator(),
    )
    return [log.predict_log.request for log in logs]


def arrays(tensors):
    return {name: tf.make_ndarray(tensor) for name, tensor in tensors.items()}


# gRPC


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self.models = models

    def Predict(self, request, context):
        response = predict_pb2.PredictResponse()
        try:
            number, servable = self.models.find(request.model_spec)
            outputs = servable.predict(request.model_spec.signature_name, arrays(request.inputs))
        except Refusal as refusal:
            context.abort(refusal.code, str(refusal))
        response.model_spec.CopyFrom(request.model_spec)
        response.model_spec.version.value = number
        for name, value in outputs.items():
            tensor = tf.make_tensor_proto(value)
            if value.dtype == np.float32:
                # Values in the field of their type, which is the server's default.
                tensor.ClearField("tensor_content")
                tensor.float_val[:] = value.ravel()
            response.outputs[name].CopyFrom(tensor)
        return response


# REST


class RestHandler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.output(rf"{MODEL}(?P<method>/metadata)?", lambda match: self.describe(match))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.output(rf"{MODEL}:(?P<method>predict)", lambda match: self.predict(match, body))

    def output(self, pattern, respond):
        status = 200
        try:
            match = re.fullmatch(pattern, self.path)
            if not match:
                raise invalid(f"Malformed request: {self.command} {self.path}")
            document = respond(match)
        except Refusal as refusal:
            status = HTTP_STATUS.get(refusal.code, 500)
            document = {"error": str(refusal)}
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def describe(self, match):
        models, spec = self.server.models, model_spec(match)
        if match["method"]:
            number, servable = models.find(spec)
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
            return {
                "model_spec": {"name": spec.name, "signature_name": "", "version": str(number)},
                "metadata": {"signature_def": printed(signatures)},
            }
        # As the server does, a label requests the status of every version.
        versions = models.models.get(spec.name, {})
        if match["version"]:
            versions = [number for number in versions if number == spec.version.value]
        if not versions:
            wanted = f"version {spec.version.value}" if match["version"] else "any versions"
            raise Refusal(StatusCode.NOT_FOUND, f"Could not find {wanted} of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in sorted(versions, reverse=True):
            version = response.model_version_status.add(version=number, state="AVAILABLE")
            version.status.error_code = 0
        return printed(response)

    def predict(self, match, body):
        _, servable = self.server.models.find(model_spec(match))
        request = parsed(body)
        name = request.get("signature_name", "serving_default")
        if name not in servable.signatures:
            raise invalid(f'Serving signature name: "{name}" not found in signature def')
        infos = servable.signatures[name].inputs
        if ("instances" in request) == ("inputs" in request):
            raise invalid("Expecting one of 'inputs' or 'instances' keys to exist")
        if "instances" in request:
            outputs = servable.predict(name, from_rows(request["instances"], infos))
            columns = {name: json_values(name, value) for name, value in outputs.items()}
            values = zip(*columns.values(), strict=True)
            rows = [dict(zip(columns, row, strict=True)) for row in values]
            return {"predictions": [unnamed(row) for row in rows]}
        outputs = servable.predict(name, from_columns(request["inputs"], infos))
        return {"outputs": unnamed({n: json_values(n, value) for n, value in outputs.items()})}

    def log_message(self, *args):
        """Keeps the server's log out of the output of the tests."""


def model_spec(match):
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        spec.version.value = int(match["version"])
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def printed(message):
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def parsed(body):
    try:
        request = json.loads(body)
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise invalid("JSON Value: Is not object")
    return request


def from_rows(instances, infos):
    if not isinstance(instances, list) or not instances:
        raise invalid("Expecting 'instances' to be a list with values")
    named = isinstance(instances[0], dict) and instances[0].keys() != {"b64"}
    if not named and len(infos) > 1:
        raise invalid("instances is a plain list, but expecting list of objects")
    if not named:
        return from_columns(instances, infos)
    for number, row in enumerate(instances):
        if not isinstance(row, dict) or row.keys() != set(infos):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. keys must be equal to: "
                + ",".join(infos)
            )
    return {n: tensor([row[n] for row in instances], info) for n, info in infos.items()}


def from_columns(inputs, infos):
    if not isinstance(inputs, dict) or inputs.keys() == {"b64"}:
        if len(infos) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object")
        inputs = dict.fromkeys(infos, inputs)
    for name in infos:
        if name not in inputs:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: tensor(inputs[name], info) for name, info in infos.items()}


def tensor(value, info):
    dtype = tf.as_dtype(info.dtype)
    value = decoded(value)
    try:
        array = np.array(value, dtype=object if dtype == tf.string else None)
    except ValueError as error:
        raise invalid("Encountered list at unexpected size") from error
    if dtype == tf.string:
        right = all(isinstance(item, bytes) for item in array.ravel())
    else:
        right = array.dtype.kind in "biuf"
    if not right:
        raise invalid(f"JSON Value is not of expected type: {dtype.name}")
    return array.astype(dtype.as_numpy_dtype)


def decoded(value):
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        if value.keys() != {"b64"}:
            raise invalid("JSON Value: not formatted correctly for base64 data")
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError as error:
            raise invalid("Unable to base64 decode") from error
    return value


def json_values(name, value):
    def text(item):
        if isinstance(item, list):
            return [text(part) for part in item]
        if not isinstance(item, bytes):
            return item
        # A string whose name says that it is binary is returned as it was received.
        return (
            {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else item.decode()
        )

    return text(value.tolist())


def unnamed(outputs):
    """An only output goes without its name."""
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))


class StandIn(NamedTuple):
    grpc: str
    url: str
    models: ModelServer


@contextlib.contextmanager
def stand_in_server(config):
    """Serves a `ModelServerConfig` on free ports of this machine until the block ends.

    Yields `grpc`, an address as `127.0.0.1:12345`, `url`, as `http://127.0.0.1:12346`, and
    `models`, whose `reload` takes another config.
    """
    models = ModelServer(config)
    with (
        ThreadPoolExecutor(4) as threads,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), RestHandler) as rest,
    ):
        rest.models = models
        service = grpc.server(threads, options=[("grpc.max_receive_message_length", -1)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(models), service
        )
        port = service.add_insecure_port("127.0.0.1:0")
        service.start()
        threads.submit(rest.serve_forever, poll_interval=0.05)
        try:
            yield StandIn(f"127.0.0.1:{port}", f"http://127.0.0.1:{rest.server_port}", models)
        finally:
            service.stop(grace=None).wait(timeout=10)
            rest.shutdown()
            models.close()
