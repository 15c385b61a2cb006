"""How fast artifacts are, beside one another and beside their peers, in one run."""

from bit_keras.benchmark.contestants import Contestant as Contestant
from bit_keras.benchmark.contestants import artifact_contestant as artifact_contestant
from bit_keras.benchmark.measurement import run_benchmark as run_benchmark
from bit_keras.benchmark.peers import peer_contestants as peer_contestants
from bit_keras.benchmark.picture import write_picture as write_picture
from bit_keras.benchmark.result import Benchmark as Benchmark
from bit_keras.benchmark.result import Row as Row
from bit_keras.benchmark.result import ratio_to as ratio_to
