"""Builds one artifact of a collection in processes of its own.

A fresh process writes the SavedModel, so that its bytes do not depend on what was
written before, and gives all memory back before the next one verifies it.
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from bit_keras.artifacts import Artifact, Verification
from bit_keras.artifacts.members import size_of
from bit_keras.atomic import new_directory
from bit_keras.collection.archive import write_archive
from bit_keras.collection.recipe import Item
from bit_keras.collection.record import RECORD, Record
from bit_keras.documents import typed
from bit_keras.errors import ExportError
from bit_keras.exporters import export
from bit_keras.processes import Child, report_step

#: What a record repeats from what the artifact says of itself.
_FIELDS = (
    *("model", "target", "variant", "precision", "input_range", "size", "outputs", "tolerance"),
    "versions",
)

_ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    # The reference outputs are the same with and without a GPU, and need none of its memory.
    "CUDA_VISIBLE_DEVICES": "-1",
}


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process is to build.

    Attributes:
        item: Item.
        folder: str. Where the artifact is going to be: the folder of its versions,
            its archive and its record.
        weights_sha256: str. Digest of the file that the weights come from.
    """

    item: Item
    folder: str
    weights_sha256: str


def start_build(job: Job) -> Child:
    """Starts the process that builds an artifact, as `build_artifact`."""
    return _start("build_artifact", job)


def _start(task: str, job: Job) -> Child:
    return Child(f"{__name__}:{task}", dataclasses.asdict(job), environment=_ENVIRONMENT)


def build_artifact(document: dict[str, Any]) -> int | None:
    """Builds, verifies and archives an artifact; its folder appears by one rename.

    Args:
        document: dict. A `Job`, of whose `folder` there may be an older one.

    Returns:
        int or None. The most memory that one of the processes had, in bytes.
    """
    job = typed(document, Job)
    item, folder = job.item, Path(job.folder)
    complete = folder.with_name(f".{folder.name}.complete")
    with new_directory(complete) as partial:
        with _start("write_saved_model", dataclasses.replace(job, folder=str(partial))) as child:
            signatures = child.result(show=report_step)
        report_step("Verifying")
        verification = Artifact(partial / str(item.version)).verify()
        if not verification.passed:
            raise ExportError(
                f"The SavedModel differs from Keras by {verification.largest:.1e}, above the "
                f"tolerance of {verification.metadata.tolerance:.0e}; it was deleted."
            )
        report_step("Archiving")
        sha256 = write_archive(partial / str(item.version), partial / item.archive)
        _record(job, partial, signatures, verification, sha256).write(partial / RECORD)
    _replace(folder, complete)
    return _peak_memory()


def _record(
    job: Job,
    folder: Path,
    signatures: dict[str, Any],
    verification: Verification,
    archive_sha256: str,
) -> Record:
    item, metadata = job.item, json.loads(verification.metadata.to_json())
    return Record.from_json(
        {
            **{field: metadata[field] for field in _FIELDS},
            "name": item.name,
            "version": item.version,
            "signatures": signatures,
            "bytes": size_of(folder / str(item.version)),
            "archive": item.archive,
            "archive_bytes": size_of(folder / item.archive),
            "archive_sha256": archive_sha256,
            "difference": verification.largest,
            "weights_sha256": job.weights_sha256,
        }
    )


def _replace(folder: Path, complete: Path) -> None:
    """Replaces a folder, which may exist, by a complete one."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    complete.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(models: Path) -> None:
    """Removes what killed processes left in the folder of all artifacts; none may be running."""
    for pattern in (".*.partial", ".*.complete", ".*.old"):
        for path in models.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)


def _peak_memory() -> int | None:
    """The most memory that one of the processes had, in bytes."""
    try:
        import resource
    except ImportError:  # Windows has no such module.
        return None
    # Of those that were waited for: this one is small.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def write_saved_model(document: dict[str, Any]) -> dict[str, Any]:
    """Writes a version of an artifact into the folder of a `Job`.

    Args:
        document: dict. The `Job`.

    Returns:
        dict. The signatures as in a Record.
    """
    # Here, since the process that waits for this one needs no memory for them.
    from bit_keras.models import create_classifier, create_feature_extractor

    job = typed(document, Job)
    item, folder = job.item, Path(job.folder)
    classifies = item.variant == "classification"
    report_step("Reading")
    model = (create_classifier if classifies else create_feature_extractor)(item.model)
    report_step("Exporting")
    written = folder / str(item.version)
    if item.target == "serving":
        export(model, folder, item.target, version=item.version, **item.options)
    else:
        export(model, written, item.target, **item.options)
    return _signatures(written)


def _signatures(saved_model: Path) -> dict[str, Any]:
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    def tensors(infos: Any) -> dict[str, Any]:
        return {
            name: {
                "dtype": tf.dtypes.as_dtype(infos[name].dtype).name,
                "shape": tf.TensorShape(infos[name].tensor_shape).as_list(),
            }
            for name in sorted(infos)
        }

    graph = saved_model_pb2.SavedModel.FromString((saved_model / "saved_model.pb").read_bytes())
    signatures = graph.meta_graphs[0].signature_def
    return {
        name: {side: tensors(getattr(signatures[name], side)) for side in ("inputs", "outputs")}
        for name in sorted(signatures)
        if not name.startswith("__")  # TensorFlow's own, for the initialisation.
    }
