"""Builds a collection: every artifact atomically, and only what is not built already.

In the folder of a collection are

- `models/NAME/`: the folder of the versions of an artifact, as TensorFlow Serving takes
  it, with its archive and its record;
- `pages/`: see `bit_keras.collection.pages`;
- `manifest.json`: what the collection is, and the records of its artifacts. It is
  written last, and removed before anything changes.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import rich.progress

import bit_keras
from bit_keras.artifacts.checksums import digest_of_files
from bit_keras.artifacts.members import size_of
from bit_keras.atomic import locked_folder, require_own, require_parent
from bit_keras.collection.artifact_builder import Job, remove_leftovers, start_build
from bit_keras.collection.manifest import MANIFEST, MODELS, PAGES, Manifest
from bit_keras.collection.memory import estimated_memory, free_memory
from bit_keras.collection.pages import require_page_packages, write_pages
from bit_keras.collection.recipe import Item, Recipe
from bit_keras.collection.record import RECORD, Record
from bit_keras.errors import (
    BitKerasError,
    DownloadError,
    ExportError,
    ProcessError,
    reason_of,
)
from bit_keras.processes import Child, available_cores
from bit_keras.progress import console
from bit_keras.registry import Checkpoint

#: Of the memory that is free, what is used unless told otherwise.
_MEMORY_SHARE = 0.8

_logger = logging.getLogger("bit_keras")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of building an item of a recipe.

    Attributes:
        item: Item.
        record: Record or None. The artifact; `None` where it could not be built.
        error: str or None. Why not.
        seconds: float or None. What it took; `None` where it was already built.
        peak_memory: int or None. The most memory that one of its processes had, in
            bytes, where the system tells.
    """

    item: Item
    record: Record | None
    error: str | None = None
    seconds: float | None = None
    peak_memory: int | None = None


def build_collection(
    recipe: Recipe, folder: str | os.PathLike, memory: int | None = None
) -> list[Outcome]:
    """Builds, verifies and archives every artifact of a recipe, and writes their pages.

    Artifacts that exist are kept as long as their item, weights and packages are
    unchanged; weights that cannot be fetched again count as unchanged. Everything else
    is built in a hidden folder and appears, verified and archived, by one rename: after
    any interruption, the same call continues. One artifact that fails does not stop the
    others. A folder in `models` that the recipe does not name is not changed.

    Several are built at once where processors and memory allow; the bytes that are
    written are the same. Each is built without GPUs, in a process of its own.

    Args:
        recipe: Recipe.
        folder: Of a collection, or a folder to create in one that exists.
        memory: int. Bytes that all processes may take together. Defaults to 80 % of
            what is free.

    Returns:
        list of Outcome, in the order of the recipe.

    Raises:
        ExportError: The folder contains something else, another process builds in it,
            `memory` is too small for an artifact, or a package
            that the pages need is missing.
        BitKerasError: The file system refuses.

    Example:

    ```python
    import dataclasses
    from pathlib import Path

    from bit_keras.collection.builder import build_collection
    from bit_keras.collection.recipe import Item, Recipe

    recipe = dataclasses.replace(
        Recipe.read("bit-resnet"),
        items=(Item("bit_tiny", "bit_tiny.cifar10", archive="bit_tiny.tar.gz"),),
    )
    (outcome,) = build_collection(recipe, "collection")
    outcome.record.outputs  # 10
    sorted(path.name for path in Path("collection/models/bit_tiny").iterdir())
    # ['1', 'bit_tiny.tar.gz', 'record.json']
    ```
    """
    folder = Path(folder)
    require_page_packages()
    if memory is None:
        memory = int(_MEMORY_SHARE * free_memory())
    with _locked(folder):
        models = folder / MODELS
        remove_leftovers(models)
        _report_others(recipe, models)
        digest = functools.cache(_weights_digest)
        current = {item: _current_record(item, models, digest) for item in recipe.items}
        missing = [item for item in recipe.items if current[item] is None]
        _require_memory(missing, memory)
        if missing:
            (folder / MANIFEST).unlink(missing_ok=True)
        try:
            built = _Builder(models, memory, digest).build(missing)
        finally:
            remove_leftovers(models)
        outcomes = [built.get(item) or Outcome(item, current[item]) for item in recipe.items]
        records = [outcome.record for outcome in outcomes if outcome.record is not None]
        if records:
            write_pages(recipe, records, folder / PAGES)
            Manifest.of(recipe, records).write(folder)
    return outcomes


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps every other process from building in it."""
    require_parent(folder, ExportError)
    require_own(folder, MODELS, "a collection", ExportError)
    try:
        (folder / MODELS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written ({reason_of(error)}).") from error
    busy = (
        f"Another process builds a collection in {folder}; wait for it, stop it, or choose "
        "another folder."
    )
    with locked_folder(folder, busy, ExportError):
        yield


def _report_others(recipe: Recipe, models: Path) -> None:
    names = {path.name for path in models.iterdir() if not path.name.startswith(".")}
    others = names - {item.name for item in recipe.items}
    if others:
        _logger.info(
            "%s contains %s, which the recipe does not name: not changed, and not in the manifest.",
            models,
            ", ".join(sorted(others)),
        )


def _weights_digest(checkpoint: Checkpoint) -> str:
    # Here, since it imports Keras, which takes seconds and memory that a check does not need.
    from bit_keras.checkpoints.download import pretrained_path

    return digest_of_files([pretrained_path(checkpoint)])


def _current_record(item: Item, models: Path, digest: Callable[[Checkpoint], str]) -> Record | None:
    """The record of an artifact that is there and is what would be built now."""
    folder = models / item.name
    try:
        record = Record.read(folder / RECORD)
    except ExportError:
        return None
    fields = ("name", "version", "model", "target", "variant", "precision", "archive")
    packages = ("keras", "tensorflow")
    expected = {
        **{field: getattr(item, field) for field in fields},
        "size": None if item.target == "hub" else item.size or item.checkpoint.size,
        # Without loading the packages.
        "versions": {
            "bit_keras": bit_keras.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "bytes": size_of(folder / str(item.version)),
        "archive_bytes": size_of(folder / item.archive),
    }
    if any(getattr(record, field) != value for field, value in expected.items()):
        return None
    try:
        return record if digest(item.checkpoint) == record.weights_sha256 else None
    except DownloadError as error:
        _logger.info("%s is kept without a look at its weights: %s", item.name, error)
        return record


class _Builder:
    """Runs the child processes, as many at once as memory and processors allow.

    Args:
        models: Path. The folder of all artifacts.
        memory: int. Bytes for all child processes.
        digest: callable. The digest of the weights of a Checkpoint.
    """

    def __init__(self, models: Path, memory: int, digest: Callable[[Checkpoint], str]) -> None:
        self.models = models
        self.memory = memory
        self.digest = digest
        self.running: dict[concurrent.futures.Future[Outcome], Item] = {}
        self.outcomes: dict[Item, Outcome] = {}
        self.children: list[Child] = []
        self.stopped = False
        #: An interruption reaches only the main thread, and must stop every child.
        self.lock = threading.Lock()
        #: A line for the number of artifacts, and one for each child.
        self.display = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeElapsedColumn(),
            console=console(),
            transient=True,
            disable=not console().is_terminal,
        )

    def build(self, items: Sequence[Item]) -> dict[Item, Outcome]:
        waiting = list(items)
        count = self.display.add_task("")
        with self.display, concurrent.futures.ThreadPoolExecutor(available_cores()) as threads:
            try:
                while waiting or self.running:
                    for item in filter(self._fits, list(waiting)):
                        waiting.remove(item)
                        self._start(item, threads)
                    done = f"{len(self.outcomes)} of {len(items)} artifacts"
                    self.display.update(count, description=done)
                    ended, _ = concurrent.futures.wait(
                        self.running, return_when=concurrent.futures.FIRST_COMPLETED
                    )
                    for future in ended:
                        self.outcomes[self.running.pop(future)] = future.result()
            except BaseException:
                self._stop()
                raise
        return self.outcomes

    def _fits(self, item: Item) -> bool:
        needs = [estimated_memory(other) for other in (*self.running.values(), item)]
        return len(needs) <= available_cores() and sum(needs) <= self.memory

    def _start(self, item: Item, threads: concurrent.futures.Executor) -> None:
        try:
            job = Job(item, str(self.models / item.name), self.digest(item.checkpoint))
        except DownloadError as error:
            self.outcomes[item] = Outcome(item, None, str(error))
        else:
            self.running[threads.submit(self._build, job)] = item

    def _build(self, job: Job) -> Outcome:
        start, name = time.perf_counter(), job.item.name
        line = self.display.add_task(f"{name}: Starting")
        try:
            with self._child(job) as child:
                peak_memory = child.result(
                    show=lambda step: self.display.update(line, description=f"{name}: {step}")
                )
            record = Record.read(Path(job.folder) / RECORD)
        except ProcessError as error:
            return Outcome(job.item, None, f"The process that built it failed: {error}.")
        except BitKerasError as error:
            return Outcome(job.item, None, str(error))
        finally:
            self.display.remove_task(line)
        return Outcome(job.item, record, None, time.perf_counter() - start, peak_memory)

    def _child(self, job: Job) -> Child:
        with self.lock:
            if self.stopped:
                raise ExportError(f"{job.item.name} was not started.")
            self.children.append(start_build(job))
            return self.children[-1]

    def _stop(self) -> None:
        with self.lock:
            self.stopped = True
            for child in self.children:
                child.stop()


def _require_memory(items: Sequence[Item], memory: int) -> None:
    largest = max(items, key=estimated_memory, default=None)
    if largest is not None and estimated_memory(largest) > memory:
        raise ExportError(
            f"{largest.name} needs {estimated_memory(largest) / 1e9:.1f} GB of memory, and "
            f"{memory / 1e9:.1f} GB may be taken; allow more with --memory, or take it out of the "
            "recipe."
        )
