"""The parts that both SavedModel targets share: saving, and the reference outputs inside."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import fingerprint_pb2

from bit_keras.artifacts.members import METADATA, REFERENCE
from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.artifacts.reference import encoded_reference_images, reference_bytes
from bit_keras.artifacts.runtimes.saved_model_graph import DIGEST, digest_of_graph
from bit_keras.errors import ExportError
from bit_keras.exporters.outputs import ExportedNetwork, reference_outputs
from bit_keras.preprocessing import EvalTransform


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
        # Without the graph node in front and the name of the kernel at the end.
        reason = re.sub(r"\{\{.*?\}\} | \[Op:\w+\]", "", error.message)
        raise ExportError(f"{path} could not be written ({reason}); no files were kept.") from error
    _fix_fingerprint(folder / "fingerprint.pb")


def _fix_fingerprint(path: Path) -> None:
    """Replaces the random identifier, the only bytes that differ from one export to the next."""
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = ""
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(int.from_bytes(hashlib.sha256(content).digest()[:16]))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))


def write_reference(
    network: ExportedNetwork,
    metadata: Metadata,
    folder: Path,
    transform: EvalTransform | None = None,
) -> None:
    """Writes the metadata, reference images and the outputs of Keras for them.

    Args:
        network: ExportedNetwork in float32, as it was before any change for the artifact.
        metadata: Metadata.
        folder: The artifact.
        transform: EvalTransform. Of encoded images, which are stored too if it is given.
    """
    arrays, output = reference_outputs(network, metadata), OUTPUTS[metadata.variant]
    if transform is not None:
        encoded = encoded_reference_images(transform.size)
        images = np.stack([transform(photo) for photo in encoded])
        arrays[f"picture_{output}"] = network.model(images, training=False).numpy()
        for number, photo in enumerate(encoded):
            arrays[f"picture_{number}"] = np.frombuffer(photo, np.uint8)
    write_members(folder, metadata, arrays)
    (folder / DIGEST).write_text(digest_of_graph(folder))


def write_members(folder: Path, metadata: Metadata, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the metadata, and the reference inputs and outputs, into the folder of an artifact."""
    (folder / METADATA).parent.mkdir(exist_ok=True)
    (folder / METADATA).write_text(metadata.to_json())
    (folder / REFERENCE).write_bytes(reference_bytes(arrays))
