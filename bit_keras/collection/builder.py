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
import hashlib
import importlib.metadata
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import filelock
import rich.progress

import bit_keras
from bit_keras.atomic import require_parent
from bit_keras.collection.artifact_builder import Job, remove_leftovers, start_build
from bit_keras.collection.manifest import MANIFEST, MODELS, PAGES, Manifest, size_of
from bit_keras.collection.memory import estimated_memory, free_memory
from bit_keras.collection.pages import write_pages
from bit_keras.collection.recipe import Item, Recipe
from bit_keras.collection.record import RECORD, Record
from bit_keras.errors import (
    BitKerasError,
    DownloadError,
    ExportError,
    ProcessError,
    reason_of,
)
from bit_keras.extras import require_extra
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
    require_extra("publish", "huggingface_hub", "jinja2", purpose="A model page", error=ExportError)
    if memory is None:
        memory = int(_MEMORY_SHARE * free_memory())
    with _locked(folder):
        models = folder / MODELS
        remove_leftovers(models)
        _report_others(recipe, models)
        digest = functools.cache(_weights_digest)
        records = {item: _current_record(item, models, digest) for item in recipe.items}
        missing = [item for item in recipe.items if records[item] is None]
        _require_memory(missing, memory)
        if missing:
            (folder / MANIFEST).unlink(missing_ok=True)
        try:
            built = _Builder(models, memory, digest).build(missing)
        finally:
            remove_leftovers(models)
        outcomes = [built.get(item) or Outcome(item, records[item]) for item in recipe.items]
        _write_about(recipe, outcomes, folder)
    return outcomes


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder, and keeps every other process from building in it."""
    require_parent(folder, ExportError)
    _require_collection(folder)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(exist_ok=True)
        (folder / MODELS).mkdir(exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise ExportError(
            f"Another process builds a collection in {folder}; wait for it, stop it, or choose "
            "another folder."
        ) from None
    except OSError as error:
        raise ExportError(f"{folder} cannot be written ({reason_of(error)}).") from error
    try:
        yield
    finally:
        lock.release()


def _require_collection(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file, not a folder; choose another path.")
    if folder.is_dir() and not (folder / MODELS).is_dir():
        strangers = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        if strangers:
            raise ExportError(
                f"{folder} contains {min(strangers)} and is not a collection; choose another "
                "folder."
            )


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
    from bit_keras.checkpoints import pretrained_path

    with pretrained_path(checkpoint).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _current_record(item: Item, models: Path, digest: Callable[[Checkpoint], str]) -> Record | None:
    """The record of an artifact that is there and is what would be built now."""
    folder = models / item.name
    try:
        record = Record.read(folder / RECORD)
    except ExportError:
        return None
    fields = ("name", "version", "model", "target", "variant", "precision", "archive")
    archive = folder / item.archive
    is_current = (
        all(getattr(record, field) == getattr(item, field) for field in fields)
        and record.size == _fixed_size(item)
        and record.versions == _versions()
        and size_of(folder / str(item.version)) == record.bytes
        and archive.is_file()
        and archive.stat().st_size == record.archive_bytes
    )
    if not is_current:
        return None
    try:
        return record if digest(item.checkpoint) == record.weights_sha256 else None
    except DownloadError as error:
        _logger.info("%s is kept without a look at its weights: %s", item.name, error)
        return record


def _versions() -> dict[str, str]:
    """The versions that an artifact would be written with now, without loading the packages."""
    others = {name: importlib.metadata.version(name) for name in ("keras", "tensorflow")}
    return {"bit_keras": bit_keras.__version__, **others}


def _fixed_size(item: Item) -> int | None:
    """The only side of images that the artifact is going to take, if there is one."""
    return None if item.target == "hub" else item.size or item.checkpoint.size


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

    def build(self, items: Sequence[Item]) -> dict[Item, Outcome]:
        waiting = list(items)
        with (
            _Display(len(waiting)) as display,
            concurrent.futures.ThreadPoolExecutor(available_cores()) as threads,
        ):
            try:
                while waiting or self.running:
                    for item in filter(self._fits, list(waiting)):
                        waiting.remove(item)
                        self._start(item, threads, display)
                    self._collect(display)
            except BaseException:
                self._stop()
                raise
        return self.outcomes

    def _fits(self, item: Item) -> bool:
        needs = [estimated_memory(other) for other in (*self.running.values(), item)]
        return len(needs) <= available_cores() and sum(needs) <= self.memory

    def _start(self, item: Item, threads: concurrent.futures.Executor, display: "_Display") -> None:
        try:
            job = Job(item, str(self.models / item.name), self.digest(item.checkpoint))
        except DownloadError as error:
            self.outcomes[item] = Outcome(item, None, str(error))
            display.count()
        else:
            self.running[threads.submit(self._build, job, display)] = item

    def _collect(self, display: "_Display") -> None:
        """Waits for the next artifact, if there is one to wait for."""
        done, _ = concurrent.futures.wait(
            self.running, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in done:
            self.outcomes[self.running.pop(future)] = future.result()
            display.count()

    def _build(self, job: Job, display: "_Display") -> Outcome:
        start = time.perf_counter()
        try:
            with display.steps(job.item.name) as show, self._child(job) as child:
                peak_memory = child.result(show=show)
            record = Record.read(Path(job.folder) / RECORD)
        except ProcessError as error:
            return Outcome(job.item, None, f"The process that built it failed: {error}.")
        except BitKerasError as error:
            return Outcome(job.item, None, str(error))
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


class _Display:
    """One line for every running child, and one for the count; hidden when not on a terminal."""

    def __init__(self, total: int) -> None:
        self._progress = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.TimeElapsedColumn(),
            console=console(),
            transient=True,
            disable=not console().is_terminal,
        )
        self._total, self._done = total, 0
        self._task = self._progress.add_task(self._count())

    def __enter__(self) -> "_Display":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def _count(self) -> str:
        return f"{self._done} of {self._total} artifacts"

    def count(self) -> None:
        self._done += 1
        self._progress.update(self._task, description=self._count())

    @contextlib.contextmanager
    def steps(self, name: str) -> Iterator[Callable[[str], None]]:
        """A line for one child; yields what changes the step in it."""
        task = self._progress.add_task(f"{name}: Starting")
        try:
            yield lambda step: self._progress.update(task, description=f"{name}: {step}")
        finally:
            self._progress.remove_task(task)


def _require_memory(items: Sequence[Item], memory: int) -> None:
    largest = max(items, key=estimated_memory, default=None)
    if largest is not None and estimated_memory(largest) > memory:
        raise ExportError(
            f"{largest.name} needs {estimated_memory(largest) / 1e9:.1f} GB of memory, and "
            f"{memory / 1e9:.1f} GB may be taken; allow more with --memory, or take it out of the "
            "recipe."
        )


def _write_about(recipe: Recipe, outcomes: Sequence[Outcome], folder: Path) -> None:
    """Writes the pages and the manifest of what exists."""
    records = [outcome.record for outcome in outcomes if outcome.record is not None]
    if records:
        write_pages(recipe, records, folder / PAGES)
        Manifest.of(recipe, records).write(folder)
