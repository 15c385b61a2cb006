"""Target `serving`: a versioned SavedModel for TensorFlow Serving and its like.

It is written for speed, not for training: kernels are standardised once, at
export, and the height and width of images are fixed.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.reference import encoded_reference_images, tolerance_of
from bit_keras.atomic import new_directory, scratch_directory
from bit_keras.errors import ExportError
from bit_keras.exporters.description import at_size, describe
from bit_keras.exporters.image_bytes import MAX_PIXELS
from bit_keras.exporters.outputs import ExportedNetwork
from bit_keras.exporters.saved_model_folder import save, write_reference
from bit_keras.exporters.serving_signatures import labels_asset, serving_signatures
from bit_keras.exporters.targets import DEFAULT_SIGNATURES, PRECISIONS
from bit_keras.exporters.warm_up import write_warm_up
from bit_keras.extras import require_extra
from bit_keras.models.folding import clone_with, copy_state, fold_weight_standardization
from bit_keras.preprocessing import ClassifierSpec, EvalTransform

#: Batch sizes that a server is warmed up for: those of `export/serving/batching.config`.
BATCH_SIZES = (1, 2, 4, 8)


def export_serving(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    version: int = 1,
    size: int | None = None,
    precision: str = PRECISIONS[0],
    input_range: tuple[float, float] = (-1.0, 1.0),
    spec: ClassifierSpec | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    allow_nonfinite: bool = False,
    max_pixels: int = MAX_PIXELS,
    default_signature: str = DEFAULT_SIGNATURES[0],
) -> Metadata:
    """Writes a model as a SavedModel for servers, in a folder named after its version.

    The signatures, for a classifier:

    - `serving_default`: `inputs`, float32 `(batch, size, size, 3)` -> `logits` and
      `probabilities`, float32 `(batch, classes)`;
    - `features`: `inputs` -> `features`, float32 `(batch, channels)`;
    - `image_bytes`: `image_bytes`, string `(batch,)`, encoded images of any size ->
      `scores`, float32, `classes` and `class_ids`, string, `(batch, 5)`, best first.
      Images go through the checkpoint's own evaluation transform, bit for bit,
      without the rotation of their EXIF metadata;
    - each further output level: `inputs` -> the output.

    A feature extractor returns `features` from the first three. The labels are in
    `assets/labels.tsv`, requests to warm up with in
    `assets.extra/tf_serving_warmup_requests`, a stored input and output for
    `bit_keras.artifacts.Artifact.verify` next to them.

    The options are described, and checked, by `bit_keras.export`, which calls this function.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError, SizeError, BitKerasError: As `bit_keras.export`.
    """
    if batch_sizes:  # Before the minutes that a large network takes.
        require_extra(
            "serving", "tensorflow_serving.apis", purpose="A warm-up file", error=ExportError
        )
    network = ExportedNetwork.of(model)
    metadata = describe(network.model, "serving", input_range, spec, allow_nonfinite)
    metadata, transform = at_size(metadata, network.model, size, spec)
    metadata = dataclasses.replace(
        metadata,
        precision=precision,
        folded=True,
        tolerance=tolerance_of(precision),
        max_pixels=max_pixels,
    )
    with version_folder(Path(path), version) as folder:
        with scratch_directory() as scratch:
            root = ServingModel(network, metadata, transform, scratch, default_signature)
            save(root, root.endpoints, folder, path)
        if batch_sizes:
            inputs = {
                name: endpoint.input_signature[0] for name, endpoint in root.endpoints.items()
            }
            write_warm_up(folder, inputs, batch_sizes, encoded_reference_images(transform.size)[0])
        write_reference(network, metadata, folder, transform)
    return metadata


class ServingModel(tf.train.Checkpoint):
    """A folded network with the endpoints of a server.

    Args:
        network: ExportedNetwork. Each further level has an endpoint of its name.
        metadata: Metadata.
        transform: EvalTransform. Of encoded images.
        folder: Path. Where the class list is written, for `tf.saved_model.save` to
            copy.
        default: str. What the endpoint `serving_default` takes, one of `DEFAULT_SIGNATURES`.
    """

    def __init__(
        self,
        network: ExportedNetwork,
        metadata: Metadata,
        transform: EvalTransform,
        folder: Path,
        default: str = DEFAULT_SIGNATURES[0],
    ) -> None:
        super().__init__()
        folded = fold_weight_standardization(network.model, allow_nonfinite=True)
        if metadata.precision == "bfloat16":
            folded = _in_bfloat16(folded)
        graph = network.with_model(folded).graph()
        self.variables = [variable.value for variable in graph.variables]
        self.labels = labels_asset(metadata, folder)
        images = tf.TensorSpec((None, transform.size, transform.size, 3), tf.float32)
        self.endpoints = serving_signatures(
            graph, metadata, images, transform, network.levels, default
        )
        #: The endpoint that `keras.layers.TFSMLayer` calls unless told otherwise.
        self.serve = self.endpoints["serving_default"]


def _in_bfloat16(folded: keras.Model) -> keras.Model:
    """A copy with kernels in bfloat16; what is in float32 for its digits stays there."""

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name not in ("features", "head"):
            is_convolution = isinstance(layer, keras.layers.Conv2D)
            config["dtype"] = "bfloat16" if is_convolution else "mixed_bfloat16"
        return layer.__class__.from_config(config)

    halved = clone_with(folded, swap)
    copy_state(folded, halved)
    return halved


@contextlib.contextmanager
def version_folder(path: Path, version: int) -> Iterator[Path]:
    """The folder to write a version into; atomic, as is that of all versions."""
    if path.is_dir():
        with new_directory(path / str(version)) as folder:
            yield folder
    else:
        with new_directory(path) as folder:
            (folder / str(version)).mkdir()
            yield folder / str(version)
