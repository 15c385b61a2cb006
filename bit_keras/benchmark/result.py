"""What a benchmark found, and what follows from its times."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from bit_keras.benchmark.entries import Entry
from bit_keras.benchmark.machine import Machine

#: The spread of times goes from the first to the last of these percentiles: without the
#: tenth in which something else may have taken the cores.
SPREAD = (10, 90)

#: Headings of the cells of a row.
COLUMNS = (
    *("entry", "computes in", "ms", f"{SPREAD[0]} to {SPREAD[1]} %", "images/s"),
    *("of the peak", "to the first"),
)


def ratio_to(reference: Sequence[float], seconds: Sequence[float]) -> float:
    """How many times as fast as a reference something is.

    Args:
        reference: sequence of float. Seconds of the reference, round by round.
        seconds: sequence of float. Seconds of the other in the same rounds.

    Returns:
        float. The median of the ratios of each round: machines drift from minute to
        minute, and what was measured in one round is close together.

    Example:

    ```python
    bit_keras.benchmark.result.ratio_to([0.2, 0.4, 0.2], [0.1, 0.2, 0.4])  # 2.0
    ```
    """
    return statistics.median(theirs / ours for theirs, ours in zip(reference, seconds, strict=True))


@dataclasses.dataclass(frozen=True)
class Row:
    """An entry at a batch size.

    Attributes:
        entry: Entry.
        batch: int. Images in a call.
        seconds: tuple of float. Of the call in every round; empty after a failure.
        failure: str or None. Why the entry has no times.
    """

    entry: Entry
    batch: int
    seconds: tuple[float, ...]
    failure: str | None = None

    @property
    def median(self) -> float:
        """Seconds of a call."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """The seconds that a tenth of the calls was below, and a tenth above."""
        low, high = np.percentile(self.seconds, SPREAD)
        return float(low), float(high)

    @property
    def images_per_second(self) -> float:
        return self.batch / self.median

    @property
    def flops(self) -> float:
        """Operations per second, a multiply-add counted as two."""
        return 2 * self.entry.network.multiply_adds * self.images_per_second


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The outcome of a run.

    Attributes:
        machine: Machine.
        threads: int. That every entry had.
        rounds: int. Calls that were timed for each row.
        seed: int. Of the order within the rounds.
        engines: dict of str. What computed, by the entry's name.
        rows: tuple of Row. By batch size, then in the order of the entries.
        matrix_side: int. Of the matrices whose product is the machine's peak.
        matrix_seconds: dict of int to tuple of float. Of that product, in the rounds of
            every batch size; without those that failed.
    """

    machine: Machine
    threads: int
    rounds: int
    seed: int
    engines: dict[str, str]
    rows: tuple[Row, ...]
    matrix_side: int
    matrix_seconds: dict[int, tuple[float, ...]]

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(row.batch for row in self.rows))

    def at(self, batch: int) -> list[Row]:
        """The rows of a batch size."""
        return [row for row in self.rows if row.batch == batch]

    def timed(self, batch: int) -> list[Row]:
        """Those of them that have times."""
        return [row for row in self.at(batch) if row.seconds]

    def peak(self, batch: int) -> float | None:
        """Operations per second of the fastest matrix product in the rounds of a batch size."""
        seconds = self.matrix_seconds.get(batch)
        return 2 * self.matrix_side**3 / min(seconds) if seconds else None

    def share(self, row: Row) -> float | None:
        """A row's operations per second, as a share of the peak."""
        peak = self.peak(row.batch)
        return row.flops / peak if peak else None

    def reference(self, batch: int) -> Row | None:
        """What ratios are to: the first entry that has times."""
        return next(iter(self.timed(batch)), None)

    def ratio(self, row: Row) -> float:
        """How many times as fast as the reference a row is."""
        reference = self.reference(row.batch)
        assert reference is not None  # The row itself, if no other.
        return ratio_to(reference.seconds, row.seconds)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the times of every round."""
        return {
            "machine": dataclasses.asdict(self.machine),
            "threads": self.threads,
            "rounds": self.rounds,
            "seed": self.seed,
            "matrix_product": {
                "side": self.matrix_side,
                "dtype": "float32",
                "batches": [
                    {"batch": batch, "flops": self.peak(batch), "seconds": list(seconds)}
                    for batch, seconds in self.matrix_seconds.items()
                ],
            },
            "rows": [self._row_to_json(row) for row in self.rows],
        }

    def _row_to_json(self, row: Row) -> dict[str, Any]:
        entry = row.entry
        document: dict[str, Any] = {
            "name": entry.name,
            "format": entry.format,
            "precision": entry.precision,
            "peer": entry.peer,
            **dataclasses.asdict(entry.network),
            "multiply_adds": entry.network.multiply_adds,
            "engine": self.engines.get(entry.name),
            "batch": row.batch,
            "failure": row.failure,
        }
        if not row.seconds:
            return document
        low, high = row.spread
        return document | {
            "images_per_second": row.images_per_second,
            "median": row.median,
            f"percentile_{SPREAD[0]}": low,
            f"percentile_{SPREAD[1]}": high,
            "share_of_peak": self.share(row),
            "ratio_to_first": self.ratio(row),
            "seconds": list(row.seconds),
        }


def cells_of(benchmark: Benchmark, row: Row) -> tuple[str, ...]:
    """A row with times under `COLUMNS`."""
    low, high = row.spread
    share = benchmark.share(row)
    return (
        row.entry.name,
        row.entry.precision,
        milliseconds(row.median),
        f"{milliseconds(low)} to {milliseconds(high)}",
        f"{row.images_per_second:.1f}",
        "" if share is None else f"{100 * share:.0f} %",
        f"{benchmark.ratio(row):.2f}",
    )


def milliseconds(seconds: float) -> str:
    """With three digits, as far as there is a millisecond."""
    thousandths = 1e3 * seconds
    digits = 0 if thousandths >= 100 else 1 if thousandths >= 10 else 2
    return f"{thousandths:.{digits}f}"
