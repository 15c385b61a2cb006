"""What the two kinds of SavedModel have in common: how they are described and written."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

import bit_keras
from bit_keras.artifacts.members import METADATA, REFERENCE
from bit_keras.artifacts.metadata import OUTPUTS, Metadata, Variant
from bit_keras.artifacts.reference import (
    REFERENCE_CLASSES,
    TOLERANCE,
    encoded_reference_images,
    reference_bytes,
    reference_images,
    reference_size,
)
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.artifacts.runtimes.saved_model_graph import DIGEST, digest_of_graph
from bit_keras.errors import ExportError, UnknownModelError
from bit_keras.exporters.specs import checked_spec
from bit_keras.exporters.targets import INPUT_RANGES
from bit_keras.models.finite import require_finite_weights
from bit_keras.preprocessing import ClassifierSpec, EvalTransform
from bit_keras.registry import checkpoint_of, model_info

#: The last layer of what the builders return, by variant.
_LAST_LAYERS: dict[str, Variant] = {"head": "classification", "features": "feature_extraction"}


def describe(
    model: keras.Model,
    target: str,
    input_range: tuple[float, float],
    spec: ClassifierSpec | None,
    allow_nonfinite: bool = False,
) -> Metadata:
    """What the artifact of a model is going to be.

    Raises:
        ExportError: Another backend, an unknown range, a model that is not a BiT or has
            the name of none, or a spec with another number of classes.
        BitKerasError: A weight is not finite, unless `allow_nonfinite`.
    """
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"The target {target} is written with the TensorFlow backend alone, and this process "
            f"runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow."
        )
    variant = _variant(model, target)
    try:
        checkpoint = model_info(checkpoint_of(model))
    except UnknownModelError as error:
        raise ExportError(
            f"{error} An artifact has the name of a published model: call the network, or the "
            "file of its weights, after the one that it comes from."
        ) from None
    if not allow_nonfinite:
        require_finite_weights(model)
    spec = checked_spec(model, spec)
    return Metadata(
        model=checkpoint.name,
        target=target,
        variant=variant,
        precision="float32",
        folded=False,
        input_range=_checked(input_range),
        size=None,
        outputs=model.output_shape[-1],
        task=None if spec is None else spec.to_json(),
        tolerance=TOLERANCE,
        versions={
            "bit_keras": bit_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    )


def _variant(model: keras.Model, target: str) -> Variant:
    last = model.layers[-1].name
    if last not in _LAST_LAYERS:
        raise ExportError(
            f"The last layer of {model.name} is {last!r}; the target {target} takes what "
            "create_classifier (without an activation) and create_feature_extractor return. Of a "
            "feature extractor with a Dense layer of your own, bit_keras.models.with_own_head "
            "makes such a classifier."
        )
    if any(layer.name == "rescaling" for layer in model.layers):
        raise ExportError(
            f"{model.name} takes pixels in [0, 255]; build it without include_preprocessing, and "
            "say with input_range what the artifact takes."
        )
    return _LAST_LAYERS[last]


def _checked(input_range: tuple[float, float]) -> tuple[float, float]:
    input_range = (float(input_range[0]), float(input_range[1]))
    if input_range not in INPUT_RANGES:
        raise ExportError(
            f"input_range must be (-1, 1) or (0, 1). Received: input_range={input_range}"
        )
    return input_range


def features_and_outputs(model: keras.Model, class_maps: bool = False) -> keras.Model:
    """The same network with both outputs: pooled features, and what the model returns.

    With `class_maps` the map that the features are the mean of is a third output, and
    the layer `head` turns it into class maps. Whoever asks for these applies it, so that
    it costs nobody else anything.
    """
    features = model.get_layer("features")
    outputs = (features.output, model.output, *((features.input,) if class_maps else ()))
    return keras.Model(model.input, outputs, name=model.name)


def save(
    root: tf.train.Checkpoint,
    signatures: Mapping[str, Callable],
    folder: Path,
    path: str | os.PathLike,
) -> None:
    """Saves an object to `folder`, the same bytes for the same object in a fresh process.

    Args:
        root: What the SavedModel contains.
        signatures: Its signatures by name.
        folder: An empty folder.
        path: What error messages call the folder.

    Raises:
        ExportError: TensorFlow cannot write.
    """
    try:
        tf.saved_model.save(root, os.fspath(folder), signatures=dict(signatures))
    except tf.errors.OpError as error:
        # Without the graph node in front and the name of the kernel behind.
        reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", error.message)
        raise ExportError(
            f"{path} could not be written ({reason}); nothing was left behind."
        ) from error
    _fix_fingerprint(folder / "fingerprint.pb")


def _fix_fingerprint(path: Path) -> None:
    """Replaces the random identifier, the only bytes that differ from one export to the next."""
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(int.from_bytes(hashlib.sha256(content).digest()[:16]))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))


def reference_outputs(
    model: keras.Model, metadata: Metadata, class_maps: bool = False
) -> dict[str, np.ndarray]:
    """Images for an artifact, and what the network in float32 answers to them.

    Returns:
        dict of arrays: `inputs` in the range of the artifact, uint8 where it takes
        pixels; `features`; `logits` of a classifier; and with `class_maps` those of the
        first classes.
    """
    height, width = reference_size(model.input_shape, metadata)
    channels = model.input_shape[-1]
    features, outputs, *maps = features_and_outputs(model, class_maps)(
        reference_images(height, width, (-1.0, 1.0), channels), training=False
    )
    inputs = reference_images(height, width, metadata.input_range, channels)
    results = {
        "inputs": np.rint(inputs).astype("uint8") if metadata.takes_pixels else inputs,
        "features": features.numpy(),
        OUTPUTS[metadata.variant]: outputs.numpy(),
    }
    if class_maps:
        results[CLASS_MAPS] = model.get_layer("head")(*maps).numpy()[..., :REFERENCE_CLASSES]
    return results


def write_reference(
    model: keras.Model,
    metadata: Metadata,
    folder: Path,
    transform: EvalTransform | None = None,
    class_maps: bool = False,
) -> None:
    """Writes the metadata, stored images and what Keras answers to them.

    Args:
        model: The network in float32, as it was before any change for the artifact.
        metadata: Metadata.
        folder: The artifact.
        transform: EvalTransform. Of encoded images, which are stored too where it
            is given.
        class_maps: bool. Whether the artifact carries class maps.
    """
    arrays, output = reference_outputs(model, metadata, class_maps), OUTPUTS[metadata.variant]
    if transform is not None:
        encoded = encoded_reference_images(transform.size)
        images = np.stack([transform(photo) for photo in encoded])
        arrays[f"picture_{output}"] = model(images, training=False).numpy()
        for number, photo in enumerate(encoded):
            arrays[f"picture_{number}"] = np.frombuffer(photo, np.uint8)
    (folder / METADATA).parent.mkdir(exist_ok=True)
    (folder / METADATA).write_text(metadata.to_json())
    (folder / REFERENCE).write_bytes(reference_bytes(arrays))
    (folder / DIGEST).write_text(digest_of_graph(folder))
