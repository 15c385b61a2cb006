"""Target `keras`: a `.keras` file that knows its labels and its transform, and proves itself."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

import bit_keras
from bit_keras.archives import open_archive
from bit_keras.atomic import replaced_file, scratch_directory
from bit_keras.checkpoints import keras_arrays
from bit_keras.checkpoints.files import ArrayFile, write_keras
from bit_keras.errors import ExportError
from bit_keras.export.artifact import (
    GOLDEN,
    METADATA,
    Metadata,
    golden_bytes,
    golden_images,
    tolerance_of,
)
from bit_keras.export.task import as_built, checked_task
from bit_keras.models import hollow_network_of
from bit_keras.models.finite import require_finite_weights
from bit_keras.preprocessing import Task
from bit_keras.registry import checkpoint_of

#: Side of the images that prove a file, where the network takes any.
_GOLDEN_SIZE = 64


def export_keras(
    model: keras.Model,
    path: str | os.PathLike,
    task: Task | None = None,
    allow_nonfinite: bool = False,
) -> None:
    """Writes a model as a `.keras` file with its labels and transform inside.

    Keras loads the file as any other, since it reads its own members by their names;
    `load_predictor` also reads the task, and `bit_keras.export.verify` a stored input
    and output.

    Args:
        model: A network of this package, or a chain of `create_feature_extractor` and a Dense
            layer, which becomes a classifier: see `bit_keras.models.with_own_head`.
        path: The file to create or to replace; its name ends in `.keras`. Whole
            or absent.
        task: Task. The labels and the transform of a classifier. Defaults to what
            the registry knows of the model's name.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to `False`.

    Raises:
        ExportError: The name does not end in `.keras`, or the task has another
            number of classes than the model.
        BitKerasError: The file cannot be written.

    Example:

    ```python
    from bit_keras.export.keras_file import export_keras, read_task

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    export_keras(model, "tiny.keras")
    read_task("tiny.keras").labels.name  # 'cifar10'
    ```
    """
    require_keras_name(path)
    model, task = as_built(model, task)
    task = checked_task(model, task)
    if not allow_nonfinite:
        require_finite_weights(model)
    with replaced_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        _write_model(model, archive, partial)
        metadata = _describe(model, task)
        archive.writestr(METADATA, metadata.to_json())
        archive.writestr(GOLDEN, golden_bytes(_answers(model, metadata)))


def convert_to_keras(
    source: str | os.PathLike,
    arrays: ArrayFile,
    path: str | os.PathLike,
    task: Task | None = None,
) -> None:
    """Writes weights as a `.keras` file, one array at a time and without a network that holds them.

    What `export_keras` writes, without an input and output to prove it: no network
    computes anything.

    Args:
        source: Where the arrays are from. Its name, or that of the file, tells the
            checkpoint.
        arrays: ArrayFile, under the official names.
        path: The file to create or to replace; its name ends in `.keras`. Whole or
            absent.
        task: Task, as in `export_keras`.

    Raises:
        CheckpointError: The arrays are no network of the registry.
        BitKerasError: As `export_keras`.
    """
    require_keras_name(path)
    model = hollow_network_of(source, arrays)
    metadata = _describe(model, checked_task(model, task))
    config = keras.saving.serialize_keras_object(model)
    write_keras(path, config, keras_arrays(arrays), {METADATA: metadata.to_json()})


def _write_model(model: keras.Model, archive: zipfile.ZipFile, partial: Path) -> None:
    """Adds what Keras writes, by way of a folder: into a file it would write through memory."""
    with scratch_directory(partial) as folder:
        model.save(folder, zipped=False)
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))


def _describe(model: keras.Model, task: Task | None) -> Metadata:
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
        task=None if task is None else task.to_json(),
        tolerance=tolerance_of(precision),
        versions={"bit_keras": bit_keras.__version__, "keras": keras.__version__},
    )


def _answers(model: keras.Model, metadata: Metadata) -> Mapping[str, np.ndarray]:
    # Feature maps of an R152x4 take gigabytes at 480 pixels.
    height, width = (side or _GOLDEN_SIZE for side in model.input_shape[1:3])
    images = golden_images(height, width, metadata.input_range, model.input_shape[-1])
    return {"inputs": images, **named_outputs(model, images)}


def named_outputs(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """What a network answers, as arrays `output_0`, `output_1` and so on."""
    # One layer after the other: TensorFlow's graph would standardise all kernels at once,
    # and hold a second copy of the weights.
    answer = model if keras.backend.backend() == "tensorflow" else model.predict_on_batch
    outputs = keras.tree.flatten(answer(images))
    return {
        f"output_{number}": keras.ops.convert_to_numpy(output).astype("float32")
        for number, output in enumerate(outputs)
    }


def require_keras_name(path: str | os.PathLike) -> None:
    """Raises ExportError where Keras would not write its own format."""
    if Path(path).suffix != ".keras":
        raise ExportError(f"The name of a Keras file ends in .keras; {path} does not.")


def read_task(path: str | os.PathLike) -> Task | None:
    """The task in a `.keras` file, or None in one that Keras wrote alone.

    Raises:
        ExportError: The file is damaged, or no such file.
        BitKerasError: The task was written by another version of bit_keras.
    """
    try:
        with open_archive(Path(path)) as archive:
            if METADATA not in archive.namelist():
                return None
    except (OSError, zipfile.BadZipFile) as error:
        raise ExportError(f"{path} cannot be read ({error}); it is damaged.") from error
    task = Metadata.read(Path(path)).task
    return None if task is None else Task.from_json(task)
