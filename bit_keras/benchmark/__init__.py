"""How fast artifacts are, next to one another and next to their peers, in one run."""

from bit_keras.benchmark.entries import Entry as Entry
from bit_keras.benchmark.entries import artifact_entry as artifact_entry
from bit_keras.benchmark.measurement import run_benchmark as run_benchmark
from bit_keras.benchmark.peers import peer_entries as peer_entries
from bit_keras.benchmark.plot import write_plot as write_plot
from bit_keras.benchmark.result import Benchmark as Benchmark
from bit_keras.benchmark.result import Row as Row
from bit_keras.benchmark.result import ratio_to as ratio_to
