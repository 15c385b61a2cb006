"""Target `keras`: a `.keras` file with its labels, its transform and reference outputs."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

import bit_keras
from bit_keras.artifacts.members import METADATA, REFERENCE
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.reference import (
    named_outputs,
    reference_bytes,
    reference_images,
    tolerance_of,
)
from bit_keras.atomic import replaced_file, scratch_directory
from bit_keras.checkpoints.files import ArrayFile, write_keras
from bit_keras.checkpoints.writing import keras_arrays
from bit_keras.exporters.outputs import ExportedNetwork
from bit_keras.exporters.specs import as_built, checked_spec
from bit_keras.exporters.targets import require_suffix
from bit_keras.models.builders import network_without_weights
from bit_keras.models.finite import require_finite_weights
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import checkpoint_of

#: Side of the reference images, where the network takes any.
_REFERENCE_SIZE = 64


def export_keras(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    spec: ClassifierSpec | None = None,
    allow_nonfinite: bool = False,
) -> Metadata:
    """Writes a model as a `.keras` file with its labels and transform inside.

    Keras loads the file as any other, since it reads its own members by their names;
    `load_predictor` also reads the spec, and `bit_keras.artifacts.Artifact.verify` a stored input
    and output. The model is a network of this package, or a chain of `create_feature_extractor`
    and a Dense layer, which becomes a classifier: see `bit_keras.models.with_own_head`. A file
    that exists is replaced.

    The options are described, and checked, by `bit_keras.export`, which calls this function.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError, SizeError, BitKerasError: As `bit_keras.export`.
    """
    require_suffix("keras", path)
    model, spec = as_built(ExportedNetwork.of(model).model, spec)
    spec = checked_spec(model, spec)
    if not allow_nonfinite:
        require_finite_weights(model)
    with replaced_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        _write_model(model, archive, partial)
        metadata = _describe(model, spec)
        archive.writestr(METADATA, metadata.to_json())
        archive.writestr(REFERENCE, reference_bytes(_outputs(model, metadata)))
    return metadata


def convert_to_keras(
    source: str | os.PathLike,
    arrays: ArrayFile,
    path: str | os.PathLike,
    spec: ClassifierSpec | None = None,
) -> None:
    """Writes weights as a `.keras` file, one array at a time, without a network.

    What `export_keras` writes, without reference outputs: no network
    computes anything.

    Args:
        source: Where the arrays are from. Its name, or that of the file, tells the
            checkpoint.
        arrays: ArrayFile, under the official names.
        path: The file to create or to replace; its name ends in `.keras`. Written atomically.
        spec: ClassifierSpec, as in `export_keras`.

    Raises:
        CheckpointError: The arrays do not match any registered architecture.
        BitKerasError: As `export_keras`.
    """
    require_suffix("keras", path)
    model = network_without_weights(source, arrays)
    metadata = _describe(model, checked_spec(model, spec))
    config = keras.saving.serialize_keras_object(model)
    write_keras(path, config, keras_arrays(arrays), {METADATA: metadata.to_json()})


def _write_model(model: keras.Model, archive: zipfile.ZipFile, partial: Path) -> None:
    """Adds what Keras writes, by way of a folder: into a file it would write through memory."""
    with scratch_directory(partial) as folder:
        model.save(folder, zipped=False)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))


def _describe(model: keras.Model, spec: ClassifierSpec | None) -> Metadata:
    layers = {layer.name: layer for layer in model.layers}
    precision = layers["stem_conv"].compute_dtype
    (output, *_) = keras.tree.flatten(model.output)
    return Metadata(
        model=checkpoint_of(model),
        target="keras",
        variant="classification" if "head" in layers else "feature_extraction",
        precision=precision,
        folded=False,
        input_range=(0.0, 255.0) if "rescaling" in layers else (-1.0, 1.0),
        size=None,
        outputs=output.shape[-1],
        task=None if spec is None else spec.to_json(),
        tolerance=tolerance_of(precision),
        versions={"bit_keras": bit_keras.__version__, "keras": keras.__version__},
    )


def _outputs(model: keras.Model, metadata: Metadata) -> Mapping[str, np.ndarray]:
    # Feature maps of an R152x4 take gigabytes at 480 pixels.
    height, width = (side or _REFERENCE_SIZE for side in model.input_shape[1:3])
    images = reference_images(height, width, metadata.input_range, model.input_shape[-1])
    return {"inputs": images, **named_outputs(model, images)}
