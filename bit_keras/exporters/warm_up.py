"""The requests that TensorFlow Serving replays before a model takes its first caller."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from bit_keras.errors import ExportError

#: Where the server looks for them (`tensorflow/serving`, `docs/saved_model_warmup.md`).
WARM_UP = "assets.extra/tf_serving_warmup_requests"

#: The most that the server accepts (the same page).
_MAXIMUM = 1000


def write_warm_up(
    artifact: Path,
    signatures: Mapping[str, tf.TensorSpec],
    batch_sizes: Sequence[int],
    image: bytes,
) -> None:
    """Writes one request for every signature and batch size.

    The first request of each shape is slow, since kernels are chosen and memory is
    set aside then; a server that batches meets every batch size.

    Args:
        artifact: The folder of a SavedModel.
        signatures: Mapping from a signature's name to its only input.
        batch_sizes: sequence of int, which need the extra `serving`.
        image: An encoded image, for inputs that are strings.

    Raises:
        ExportError: There are more requests than the server accepts.
    """
    if len(signatures) * len(batch_sizes) > _MAXIMUM:
        raise ExportError(
            f"{len(batch_sizes)} batch sizes for {len(signatures)} signatures are too many; "
            f"TensorFlow Serving replays {_MAXIMUM} requests at most."
        )
    path = artifact / WARM_UP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, spec in signatures.items():
            for size in batch_sizes:
                writer.write(_request(name, spec, size, image))


def _request(signature: str, spec: tf.TensorSpec, batch_size: int, image: bytes) -> bytes:
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    shape = (batch_size, *spec.shape[1:])
    # A tensor of equal elements is stored as one: the file stays small.
    value = image if spec.dtype == tf.string else np.float32(0.0)
    request.inputs[spec.name].CopyFrom(tf.make_tensor_proto(value, spec.dtype, shape))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )
    return log.SerializeToString(deterministic=True)
