"""Rounds in which every entry has one turn while all others sleep."""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence

from bit_keras.benchmark.entries import Entry, Network, require_distinct
from bit_keras.benchmark.entry_process import MATRIX_SIDE, failure_of, start_entry
from bit_keras.benchmark.machine import Machine
from bit_keras.benchmark.result import Benchmark, Row
from bit_keras.errors import BitKerasError
from bit_keras.processes import Child, available_cores

#: Seconds after which a process counts as stuck. The largest networks take minutes to load,
#: and many seconds for a batch.
LOAD_TIMEOUT = 900.0
CALL_TIMEOUT = 300.0

#: The matrix product, which has its turn among the entries; no path is empty.
PEAK = Entry("", Network("", 0, 0, None), "", "float32", program="matrix_product")


def run_benchmark(
    entries: Sequence[Entry],
    batches: Sequence[int] = (1, 8),
    threads: int | None = None,
    rounds: int = 20,
    seed: int = 0,
    advance: Callable[[str], None] = lambda step: None,
) -> Benchmark:
    """Times entries next to one another, each in a process of its own.

    In a round every entry has one turn, in a new random order, while the others
    sleep: a call that is not timed, then one that is. One more entry is a product
    of matrices, the machine's peak. An entry that
    fails is a row with its reason, and the others continue.

    Args:
        entries: sequence of Entry, with different names. Ratios are to the
            first.
        batches: sequence of int. Images in a call, one after the other. Defaults to
            `(1, 8)`.
        threads: int. Of every entry. Defaults to the cores there are.
        rounds: int. Timed calls for each entry and batch size. Defaults to `20`.
        seed: int. Of the order within the rounds. Defaults to `0`.
        advance: Is called with what has been done: loading an entry, or a round.

    Returns:
        Benchmark.

    Raises:
        BitKerasError: A number is below 1, or two entries have one name.

    Example:

    ```python
    from bit_keras.benchmark import artifact_entry, run_benchmark
    from bit_keras.exporters.hub import export_hub

    export_hub(bit_keras.create_classifier("bit_tiny.cifar10"), "tiny")
    benchmark = run_benchmark([artifact_entry("tiny")], batches=(1,), rounds=2)
    len(benchmark.rows[0].seconds)  # 2
    ```
    """
    threads = available_cores() if threads is None else threads
    numbers = {"threads": threads, "rounds": rounds, **{f"batch {b}": b for b in batches}}
    for name, number in numbers.items():
        if number < 1:
            raise BitKerasError(f"{name} must be at least 1. Received: {number}")
    require_distinct(entries)
    rows: list[Row] = []
    matrix_seconds: dict[int, tuple[float, ...]] = {}
    with contextlib.closing(_Field(threads)) as field:
        field.enter(PEAK)
        for entry in entries:
            field.enter(entry)
            advance(f"{entry.name} is loaded")
        for batch in batches:
            times = field.times(batch, rounds, random.Random(f"{seed} {batch}"), advance)
            if PEAK.name in times:
                matrix_seconds[batch] = times[PEAK.name]
            rows += [
                Row(entry, batch, times.get(entry.name, ()), field.failures.get(entry.name))
                for entry in entries
            ]
    return Benchmark(
        Machine.here(),
        threads,
        rounds,
        seed,
        field.engines,
        tuple(rows),
        MATRIX_SIDE,
        matrix_seconds,
    )


def steps_of(entries: Sequence[Entry], batches: Sequence[int], rounds: int) -> int:
    """How often `run_benchmark` calls `advance`."""
    return len(entries) + len(batches) * rounds


class _Field:
    """The entries that are measured, and why the others are not."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.processes: dict[str, Child] = {}
        self.engines: dict[str, str] = {}
        self.failures: dict[str, str] = {}

    def enter(self, entry: Entry) -> None:
        """Loads an entry; if that fails, it is one of the failures."""
        if entry.failure is not None:
            self.failures[entry.name] = entry.failure
            return
        self.processes[entry.name] = process = start_entry(entry, self.threads)
        with self._failing(entry.name):
            self.engines[entry.name] = process.result(LOAD_TIMEOUT)

    def times(
        self, batch: int, rounds: int, generator: random.Random, advance: Callable[[str], None]
    ) -> dict[str, tuple[float, ...]]:
        """The seconds of every round, of the entries that did not fail in any of them."""
        for name in list(self.processes):
            with self._failing(name):
                self.processes[name].ask(batch, CALL_TIMEOUT)
        times: dict[str, list[float]] = {name: [] for name in self.processes}
        for number in range(1, rounds + 1):
            order = list(self.processes)
            generator.shuffle(order)
            for name in order:
                with self._failing(name):
                    times[name].append(self.processes[name].ask(None, CALL_TIMEOUT))
            advance(f"batch {batch}, round {number} of {rounds}")
        return {name: tuple(times[name]) for name in self.processes}

    def close(self) -> None:
        for process in self.processes.values():
            process.stop()

    @contextlib.contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """After a failure in the block, the entry is measured no longer."""
        try:
            yield
        except BitKerasError as error:
            self.failures[name] = failure_of(error)
            self.processes.pop(name).stop()
