"""Builds one artifact of a collection in processes of its own.

A fresh process writes the SavedModel, so that its bytes do not depend on what was
written before, and gives all memory back before the next one verifies it. Every
process ends when its standard input is closed, as it is when its parent is killed.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bit_keras.artifacts.verify import Verification, verify
from bit_keras.atomic import new_directory
from bit_keras.collection.archive import write_archive
from bit_keras.collection.manifest import size_of
from bit_keras.collection.recipe import Item
from bit_keras.collection.record import RECORD, Record
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.processes import process_environment

#: What a record repeats from what the artifact says of itself.
_FIELDS = (
    *("model", "target", "variant", "precision", "input_range", "size", "outputs", "tolerance"),
    "versions",
)


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

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Job":
        return cls(**{**document, "item": Item(**document["item"])})


class Worker:
    """A process that works on a job, and ends with this one.

    Args:
        task: str. `"artifact"` or `"saved_model"`.
        job: Job.
    """

    def __init__(self, task: str, job: Job) -> None:
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bit_keras.collection.worker", task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=_environment(),
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # Then the process says why it ended.
            self._process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
            self._process.stdin.flush()

    def result(self, show: Callable[[str], None]) -> Any:
        """Waits for the end of the process.

        Args:
            show: Is called with the name of each step.

        Returns:
            What the task returned.

        Raises:
            ExportError: The task failed; with its own sentence.
        """
        message: dict[str, Any] = {}
        with self._errors, self._process as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.startswith("{"):  # A library may print something, too.
                    continue
                message = json.loads(line)
                if "step" in message:
                    show(message["step"])
            process.wait()
            if "result" not in message:
                raise ExportError(message.get("error") or self._last_words())
        return message["result"]

    def stop(self) -> None:
        """Ends the process, and what it started."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _last_words(self) -> str:
        code = self._process.returncode
        if code < 0:
            return f"The process was ended by signal {-code}, as it is where memory is short."
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return f"The process ended with status {code} ({lines[-1] if lines else 'no message'})."


def _environment() -> dict[str, str]:
    return {
        **process_environment(),
        "KERAS_BACKEND": "tensorflow",
        # The stored answers are the same with and without a GPU, and need none of its memory.
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def _build_artifact(job: Job) -> dict[str, Any]:
    """Builds, verifies and archives an artifact; its folder appears by one rename."""
    item, folder = job.item, Path(job.folder)
    complete = folder.with_name(f".{folder.name}.complete")
    with new_directory(complete) as partial:
        worker = Worker("saved_model", dataclasses.replace(job, folder=str(partial)))
        signatures = worker.result(_show)
        _show("Verifying")
        verification = verify(partial / str(item.version))
        _require_passed(verification)
        _show("Archiving")
        sha256 = write_archive(partial / str(item.version), partial / item.archive)
        _record(job, partial, signatures, verification, sha256).write(partial / RECORD)
    _replace(folder, complete)
    return {"peak_memory": _peak_memory()}


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
            "archive_bytes": (folder / item.archive).stat().st_size,
            "archive_sha256": archive_sha256,
            "difference": verification.largest,
            "weights_sha256": job.weights_sha256,
        }
    )


def _require_passed(verification: Verification) -> None:
    if not verification.passed:
        raise ExportError(
            f"The SavedModel differs from Keras by {verification.largest:.1e}, above the "
            f"tolerance of {verification.metadata.tolerance:.0e}; it was deleted."
        )


def _replace(folder: Path, complete: Path) -> None:
    """Puts a complete folder in the place of one that may be there."""
    old = folder.with_name(f".{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    complete.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(models: Path) -> None:
    """Removes what killed workers left in the folder of all artifacts; none may be at work."""
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


def _write_saved_model(job: Job) -> dict[str, Any]:
    """Writes a version of an artifact; returns its signatures as in a Record."""
    # Here, since the process that waits for this one needs no memory for them.
    from bit_keras.exporters.hub import export_hub
    from bit_keras.exporters.serving import export_serving
    from bit_keras.models import create_classifier, create_feature_extractor

    item, folder = job.item, Path(job.folder)
    classifies = item.variant == "classification"
    _show("Reading")
    model = (create_classifier if classifies else create_feature_extractor)(item.model)
    _show("Exporting")
    if item.target == "hub":
        export_hub(model, folder / str(item.version))
    else:
        export_serving(model, folder, item.version, item.size, item.precision)
    return _signatures(folder / str(item.version))


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


def _show(step: str) -> None:
    _send({"step": step})


def _send(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _end_with_parent() -> None:
    """Ends this process and what it started as soon as standard input is closed."""

    def wait() -> None:
        # Not through `sys.stdin`, whose lock would be held when the interpreter ends.
        while os.read(0, 1):
            pass
        if hasattr(os, "killpg"):
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


_TASKS = {"artifact": _build_artifact, "saved_model": _write_saved_model}


def main() -> None:
    """Does one task; the job is the first line of standard input."""
    task = sys.argv[1]
    if task == "artifact" and hasattr(os, "setsid"):
        # A group of its own, to end with all that it starts, and deaf to Ctrl-C in the terminal.
        with contextlib.suppress(PermissionError):
            os.setsid()
    job = Job.from_json(json.loads(sys.stdin.readline()))
    _end_with_parent()
    try:
        _send({"result": _TASKS[task](job)})
    except BitKerasError as error:
        _send({"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()
