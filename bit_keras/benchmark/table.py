"""A benchmark as rows of text, for a terminal or for a page."""

from bit_keras.benchmark.result import SPREAD, Benchmark, Row

COLUMNS = (
    *("entry", "computes in", "ms", f"{SPREAD[0]} to {SPREAD[1]} %", "images/s"),
    *("of the peak", "to the first"),
)


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
