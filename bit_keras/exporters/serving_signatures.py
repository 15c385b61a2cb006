"""The signatures of a server, with names that do not change."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.runtimes.program import DEFAULT_SIGNATURE, INPUTS
from bit_keras.errors import ExportError
from bit_keras.exporters.image_bytes import decode_images
from bit_keras.exporters.outputs import apply_level
from bit_keras.exporters.targets import DEFAULT_SIGNATURES
from bit_keras.preprocessing import EvalTransform
from bit_keras.preprocessing.classifier_spec import Activation

#: Classes that `image_bytes` returns, best first.
TOP = 5

ACTIVATIONS: dict[Activation, Callable[[tf.Tensor], tf.Tensor]] = {
    "softmax": tf.nn.softmax,
    "sigmoid": tf.math.sigmoid,
}


def labels_asset(metadata: Metadata, folder: Path) -> tf.saved_model.Asset | None:
    """Writes the ids and names of classes to a file that travels with a SavedModel.

    Args:
        metadata: Metadata. Of the artifact; nothing is written where no labels are known.
        folder: Path. Where the file waits for `tf.saved_model.save` to copy it.

    Raises:
        ExportError: A label contains a tab or a line break.
    """
    if metadata.spec is None:
        return None
    labels = metadata.spec.labels
    rows = list(zip(labels.ids, labels.names, strict=True))
    for text in (text for row in rows for text in row):
        if "\t" in text or len(text.splitlines()) > 1:
            raise ExportError(f"The label {text!r} contains a tab or a line break; rename it.")
    file = folder / "labels.tsv"
    file.write_text("".join(f"{id}\t{name}\n" for id, name in rows), "utf-8")
    return tf.saved_model.Asset(str(file))


def serving_signatures(
    network: keras.Model,
    metadata: Metadata,
    images: tf.TensorSpec,
    transform: EvalTransform,
    levels: Sequence[str] = (),
    default: str = DEFAULT_SIGNATURES[0],
) -> dict[str, Any]:
    """The endpoints of a network on a server, as `tf.saved_model.save` takes them.

    - `serving_default`: `inputs` -> `logits` and `probabilities`, or `features`;
    - `features`: `inputs` -> `features`;
    - `image_bytes`: encoded images, `image_bytes` -> `scores`, `classes` and
      `class_ids` of the best classes, or `features`;
    - each further level: `inputs` -> an output of the same name;
    - with the default `"image_bytes"`, `serving_default` takes what `image_bytes` takes, and
      the signature `inputs` what it takes otherwise.

    No output's name ends in `_bytes`: TensorFlow Serving's REST interface would
    encode it in base64.

    Args:
        network: keras.Model from images in [-1, 1] to pooled features and to what the
            variant returns, and to the source of each further level, as
            `ExportedNetwork.graph` makes it.
        metadata: Metadata.
        images: TensorSpec. The images that callers send, in the range of `metadata`.
        transform: EvalTransform. Of encoded images.
        levels: sequence of str. The further levels.
        default: str. What `serving_default` takes, one of `DEFAULT_SIGNATURES`.

    Returns:
        dict from the name of a signature to its function.
    """
    # One graph that all endpoints share; separate ones weigh several times as much.
    core = tf.function(
        lambda x: network(x, training=False), input_signature=[images], autograph=False
    )
    spec = metadata.spec
    activation = ACTIVATIONS[spec.activation if spec else "softmax"]

    def serving_default(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = core(rescaled(inputs, metadata.input_range))[1]
        if spec is None:
            return {"features": outputs}
        return {"logits": outputs, "probabilities": activation(outputs)}

    def features(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": core(rescaled(inputs, metadata.input_range))[0]}

    def image_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = core(decode_images(image_bytes, transform, metadata.max_pixels))[1]
        if spec is None:
            return {"features": outputs}
        scores, best = tf.math.top_k(activation(outputs), min(TOP, metadata.outputs))
        # Constants, since a table of TensorFlow is named after where its file once was.
        names, ids = tf.constant(spec.labels.names), tf.constant(spec.labels.ids)
        return {
            "scores": scores,
            "classes": tf.gather(names, best),
            "class_ids": tf.gather(ids, best),
        }

    def level(number: int, name: str) -> Callable:
        # TensorFlow stores the name of this function.
        def maps(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            source = core(rescaled(inputs, metadata.input_range))[number]
            return {name: apply_level(name, network, source)}

        return maps

    inputs = tf.TensorSpec(images.shape, tf.float32, name="inputs")
    encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
    endpoints = {
        DEFAULT_SIGNATURE: _endpoint(serving_default, inputs),
        "features": _endpoint(features, inputs),
        "image_bytes": _endpoint(image_bytes, encoded),
    }
    for number, name in enumerate(levels, start=2):
        endpoints[name] = _endpoint(level(number, name), inputs)
    if default == "image_bytes":
        endpoints[INPUTS] = endpoints[DEFAULT_SIGNATURE]
        endpoints[DEFAULT_SIGNATURE] = endpoints["image_bytes"]
    return endpoints


def rescaled(images: tf.Tensor, input_range: tuple[float, float]) -> tf.Tensor:
    """Images in the range that callers use, brought to the [-1, 1] of the network."""
    if input_range == (-1.0, 1.0):
        return images
    low, high = input_range
    return (images - low) * (2.0 / (high - low)) - 1.0


def _endpoint(function: Callable, spec: tf.TensorSpec) -> Any:
    return tf.function(function, input_signature=[spec], autograph=False)
