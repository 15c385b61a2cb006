"""How fast artifacts are, next to one another and next to their peers, in one run."""

from bit_keras.benchmark.entries import Entry as Entry
from bit_keras.benchmark.entries import artifact_entry as artifact_entry
from bit_keras.benchmark.measurement import run_benchmark as run_benchmark
from bit_keras.benchmark.result import Benchmark as Benchmark
