"""Classifies image files with a model that TensorFlow Serving serves, over REST or gRPC.

    python client.py cat.jpg dog.png --label stable
    python client.py cat.jpg --server localhost:8500 --json

REST needs the packages click and requests, gRPC tensorflow-serving-api as well. As a module:
`classify_rest` and `classify_grpc` take the bytes of image files, `predict_rest` and
`predict_grpc` call any signature.
"""

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import requests

URL = "http://localhost:8501"

#: Seconds until a request is given up; as many as the server's REST interface takes.
TIMEOUT = 30.0

#: gRPC's own limit of a response is 4 MB; class maps of one image with 21,843 classes have more.
#: The server has none (`tensorflow/serving`, `tensorflow_serving/model_servers/server.cc`).
_CHANNEL = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))

#: Images in a request: max_batch_size of batching.config.
BATCH_SIZE = 8


class ServingError(Exception):
    """A request that failed, in one sentence."""


class RefusedError(ServingError):
    """A request that the server or the model does not take, such as a broken image."""


class Model(NamedTuple):
    """Which model to ask; without a version and a label the highest version that is loaded."""

    name: str = "bit_r50x1"
    version: int | None = None
    label: str | None = None


class Prediction(NamedTuple):
    class_id: str
    label: str
    score: float


def classify_rest(
    url: str, model: Model, images: Sequence[bytes], timeout: float = TIMEOUT
) -> list[list[Prediction]]:
    """The best classes of each image file, given as its bytes, best first."""
    # The server decodes {"b64": ...} itself, and the model gets the bytes of the file: neither
    # encode twice nor let the model decode base64.
    encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
    return _ranked(predict_rest(url, model, "image_bytes", {"image_bytes": encoded}, timeout))


def classify_grpc(
    server: str, model: Model, images: Sequence[bytes], timeout: float = TIMEOUT
) -> list[list[Prediction]]:
    """The best classes of each image file, given as its bytes, best first."""
    outputs = predict_grpc(server, model, "image_bytes", {"image_bytes": list(images)}, timeout)
    return _ranked({name: output.tolist() for name, output in outputs.items()})


def predict_rest(
    url: str, model: Model, signature: str, inputs: Mapping[str, Any], timeout: float = TIMEOUT
) -> Any:
    """Calls a signature with nested lists; returns a dict of them, an only output by itself."""
    path = f"{url.rstrip('/')}/v1/models/{model.name}"
    if model.version is not None:
        path += f"/versions/{model.version}"
    elif model.label is not None:
        path += f"/labels/{model.label}"
    body: dict[str, Any] = {"signature_name": signature, "inputs": inputs}
    try:
        response = requests.post(f"{path}:predict", json=body, timeout=timeout)
    except requests.Timeout as error:
        raise _error(url, 504, f"{timeout:g} seconds were not enough.") from error
    except requests.ConnectionError as error:
        raise _error(url, 503, "is it running, and is this its REST port?") from error
    except requests.RequestException as error:
        raise ServingError(f"{url} cannot be asked: {error}") from error
    try:
        output = response.json()
        if response.ok:
            return output["outputs"]
        message = output["error"]
    except (ValueError, KeyError, TypeError) as error:
        raise ServingError(f"{url} is not the REST interface of TensorFlow Serving.") from error
    raise _error(url, response.status_code, message)


def predict_grpc(
    server: str, model: Model, signature: str, inputs: Mapping[str, Any], timeout: float = TIMEOUT
) -> dict[str, Any]:
    """Calls a signature with lists of bytes or NumPy arrays of its own type; returns arrays."""
    # Here, because REST does without, and TensorFlow takes seconds to import.
    try:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError as error:
        raise ServingError(f"gRPC needs the package tensorflow-serving-api ({error}).") from error

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model.name
    request.model_spec.signature_name = signature
    if model.version is not None:
        request.model_spec.version.value = model.version
    elif model.label is not None:
        request.model_spec.version_label = model.label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    try:
        with grpc.insecure_channel(server, options=_CHANNEL) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(request, timeout=timeout)
    except grpc.RpcError as error:
        raise _error(server, _HTTP_STATUS.get(error.code().name, 500), error.details()) from error
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


#: How the server's REST interface translates the codes of gRPC
#: (`tensorflow/serving`, `tensorflow_serving/model_servers/http_server.cc`).
_HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def _error(server: str, status: int, message: str) -> ServingError:
    # Without the nodes of the graph that TensorFlow writes around a message.
    reason = " ".join(re.sub(r"\[\[.*?\]\]|\{\{.*?\}\}", "", message).split())
    if status == 400:
        return RefusedError(f"{server} refuses the request: {reason}")
    problems = {
        404: "has no such model or version",
        503: "is not available",
        504: "did not respond in time",
    }
    return ServingError(f"{server} {problems.get(status, 'failed')}: {reason}")


def _ranked(outputs: Any) -> list[list[Prediction]]:
    if "scores" not in outputs:
        raise ServingError(
            "The model returns features, not classes; call predict_rest or predict_grpc."
        )
    return [
        [
            Prediction(_text(class_id), _text(label), score)
            for class_id, label, score in zip(*columns, strict=True)
        ]
        for columns in zip(outputs["class_ids"], outputs["classes"], outputs["scores"], strict=True)
    ]


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


@click.command()
@click.argument(
    "images",
    nargs=-1,
    required=True,
    metavar="IMAGE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--url", default=URL, show_default=True, help="Address of the REST interface.")
@click.option("--server", metavar="HOST:PORT", help="Address of gRPC, to use that instead.")
@click.option("--model", "name", default=Model().name, show_default=True)
@click.option("--label", help="Ask the version with this label, for example stable.")
@click.option("--version", type=int, help="Ask this version.")
@click.option("--top", default=5, show_default=True, type=click.IntRange(min=1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def main(
    images: tuple[Path, ...],
    url: str,
    server: str | None,
    name: str,
    label: str | None,
    version: int | None,
    top: int,
    as_json: bool,
) -> None:
    """Classify image files with a model that TensorFlow Serving serves.

    An image that the server refuses is reported, the others are classified, and the exit status
    is 1. At most as many classes are printed as the model returns.
    """
    if label is not None and version is not None:
        raise click.UsageError("A version has a number or a label; give one of the two.")
    model = Model(name, version, label)

    def classify(batch: list[bytes]) -> list[list[Prediction]]:
        if server is not None:
            return classify_grpc(server, model, batch)
        return classify_rest(url, model, batch)

    try:
        outputs = _classify_files(classify, images)
    except ServingError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        documents = [_document(file, output, top) for file, output in outputs.items()]
        click.echo(json.dumps(documents, indent=2))
    else:
        _print_table(outputs, top)
    refused = {file: a for file, a in outputs.items() if isinstance(a, RefusedError)}
    for file, refusal in refused.items():
        click.echo(f"Error: {file}: {refusal}", err=True)
    if refused:
        raise click.exceptions.Exit(1)


def _classify_files(
    classify: Callable[[list[bytes]], list[list[Prediction]]], files: Sequence[Path]
) -> dict[Path, list[Prediction] | RefusedError]:
    """One broken image fails its whole batch; the others of it are then sent by themselves."""
    outputs: dict[Path, list[Prediction] | RefusedError] = {}
    for start in range(0, len(files), BATCH_SIZE):
        batch = files[start : start + BATCH_SIZE]
        try:
            ranked = classify([file.read_bytes() for file in batch])
            outputs.update(zip(batch, ranked, strict=True))
        except RefusedError as error:
            if len(batch) == 1:
                outputs[batch[0]] = error
            else:
                for file in batch:
                    outputs |= _classify_files(classify, [file])
    return outputs


def _document(file: Path, output: list[Prediction] | RefusedError, top: int) -> dict[str, Any]:
    if isinstance(output, RefusedError):
        return {"image": str(file), "error": str(output)}
    predictions = [{"id": p.class_id, "label": p.label, "score": p.score} for p in output[:top]]
    return {"image": str(file), "predictions": predictions}


def _print_table(outputs: Mapping[Path, list[Prediction] | RefusedError], top: int) -> None:
    width = max(len(str(file)) for file in outputs)
    for file, output in outputs.items():
        if isinstance(output, RefusedError):
            continue
        for rank, (class_id, label, score) in enumerate(output[:top]):
            image = "" if rank else str(file)
            text = label if label == class_id else f"{label} ({class_id})"
            click.echo(f"{image:<{width}}  {score:.4f}  {text}")


if __name__ == "__main__":
    main()
