"""`bit-keras benchmark`: the speed of exported models."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bit_keras.atomic import scratch_directory
from bit_keras.cli import printing
from bit_keras.cli.manual import count_option, documented_command, flag_option, option, path_option
from bit_keras.cli.parameters import integers, trust_option

if TYPE_CHECKING:
    from bit_keras.benchmark import Benchmark


@documented_command(
    "benchmark",
    short_help="Measure the speed of exported models",
    see_also=("export", "evaluate"),
)
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True, type=click.Path())
@option(
    "--batch",
    "batches",
    default="1,8",
    metavar="N,...",
    type=integers,
    help="Images in a call; several numbers are measured one after the other.",
)
@count_option(
    "--threads",
    help="Threads of each program; by default as many as there are cores.",
)
@flag_option(
    "--peers",
    help="Also measure other installed programs for the network.",
)
@count_option(
    "--rounds",
    default=20,
    help="Timed calls of each program.",
)
@path_option(
    "--plot",
    metavar="FILE.png",
    help="Also plot the result into this file.",
)
@trust_option
@flag_option("--json", "as_json", help="Print one JSON document, with all times.")
def command(
    artifacts: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int | None,
    peers: bool,
    rounds: int,
    plot: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Measure how many images per second exported models classify.

    ARTIFACT is what `bit-keras export` wrote, whatever its target. Each runs in a process of its
    own, and in every round each has its turn, while the others sleep; ratios are to the first.
    The peak is a product of float32 matrices in the same rounds.

    --peers adds timm, transformers, ONNX Runtime and OpenVINO with the same network. Nothing
    else should keep the cores busy meanwhile.

    Examples:
        Measure one file:
            bit-keras benchmark r50x1.tflite
        Compare and plot three formats on two cores:
            bit-keras benchmark r50x1.tflite r50x1.onnx serving/ --threads 2 \\
                --plot speed.png
        Compare a file with other programs, image by image:
            bit-keras benchmark r50x1-int8.tflite --batch 1 --peers --json
    """
    from bit_keras.benchmark import artifact_entry, run_benchmark
    from bit_keras.benchmark.entries import require_distinct
    from bit_keras.benchmark.measurement import steps_of
    from bit_keras.benchmark.peers import peer_entries
    from bit_keras.benchmark.plot import require_plot, write_plot
    from bit_keras.processes import available_cores

    if plot is not None:
        require_plot(plot)
    threads = threads or available_cores()
    entries = [artifact_entry(path, trust=trust) for path in artifacts]
    require_distinct(entries)
    with scratch_directory() as folder:
        if peers:
            with printing.progress("Writing the files of the peers"):
                networks = [entry.network for entry in entries]
                entries += peer_entries(networks, folder, threads)
        with printing.progress_bar("Loading", steps_of(entries, batches, rounds)) as advance:
            benchmark = run_benchmark(
                entries, batches, threads, rounds, advance=lambda step: advance(1, step)
            )
    if plot is not None:
        write_plot(benchmark, plot)
    if as_json:
        return printing.print_json(benchmark.to_json())
    _print(benchmark)


def _print(benchmark: "Benchmark") -> None:
    """A table for each batch size, then what could not take part."""
    from bit_keras.benchmark.result import COLUMNS, cells_of

    machine = benchmark.machine
    click.echo(
        f"{machine.processor}, cores: {machine.cores}, threads: {benchmark.threads}, "
        f"rounds: {benchmark.rounds}"
    )
    for batch in benchmark.batches:
        peak = benchmark.peak(batch)
        click.echo(
            f"\nbatch {batch}" + (f", peak {peak / 1e9:.0f} GFLOP/s in float32" if peak else "")
        )
        printing.print_table(
            [*printing.columns(*COLUMNS[:2]), *printing.numbers(*COLUMNS[2:])],
            [cells_of(benchmark, row) for row in benchmark.timed(batch)],
        )
        for row in benchmark.at(batch):
            if row.failure:
                click.echo(f"without {row.entry.name}: {row.failure}")
