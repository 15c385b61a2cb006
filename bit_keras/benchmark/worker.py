"""The process of one entry: it loads, warms up, and is timed one call at a time.

It reads one JSON document a line from standard input and answers each with one on
what was standard output when it started; whatever a library prints goes to standard
error. It ends when its standard input is closed, as it is when its parent is killed.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from bit_keras.artifacts.reference import reference_images
from bit_keras.artifacts.runtimes import open_program
from bit_keras.benchmark.entries import Entry, Network
from bit_keras.errors import BitKerasError
from bit_keras.exporters.targets import INPUT_RANGES

#: Calls that no clock runs for: what engines compile, allocate or choose on the way.
WARM_UP = 3

#: Side of the matrices whose product is the machine's peak: large enough to hide all
#: that is not arithmetic, small enough for a tenth of a second.
MATRIX_SIDE = 2048

Call = Callable[[], Any]


class Loaded(NamedTuple):
    """A program that is ready: who answers, and what prepares calls for a batch size."""

    engine: str
    prepare: Callable[[int], Call]


def images_of(network: Network, batch: int, dtype: str) -> np.ndarray:
    """Images that a network takes, channels last."""
    input_range = (0.0, 255.0) if dtype == "uint8" else INPUT_RANGES[0]
    images = reference_images(network.height, network.width, input_range).astype(dtype)
    return images[np.arange(batch) % len(images)]


def load_file(job: dict[str, Any], threads: int) -> Loaded:
    """An artifact, or another file that an engine runs."""
    entry = Entry.from_json(job)
    assert entry.path is not None
    program = open_program(entry.path, threads=threads, engine=engine_of(entry), trust=entry.trust)
    dtype = next(iter(program.signatures.values())).input_dtype

    def prepare(batch: int) -> Call:
        images = images_of(entry.network, batch, dtype)
        return lambda: program(images)

    return Loaded(program.engine, prepare)


def engine_of(entry: Entry) -> str | None:
    """The engine of a entry that does not take the usual one of its file."""
    if entry.program != "openvino":
        return None
    # What is quantised computes in int8 under either hint.
    return "openvino-bfloat16" if entry.precision == "bfloat16" else "openvino"


def load_torch(job: dict[str, Any], threads: int) -> Loaded:
    """A network of timm or transformers in PyTorch's eager mode."""
    from bit_keras.benchmark import torch_networks

    entry = Entry.from_json(job)
    network = torch_networks.build(entry, threads)

    def prepare(batch: int) -> Call:
        images = images_of(entry.network, batch, "float32")
        return torch_networks.forward_pass(network, images, entry.precision)

    return Loaded(torch_networks.engine(entry), prepare)


def load_matrix_product(job: dict[str, Any], threads: int) -> Loaded:
    """The yardstick: a product of square matrices by TensorFlow, by way of oneDNN.

    It has `threads` from its environment. NumPy's BLAS reaches half of its speed on a
    processor with AVX-512.
    """
    import tensorflow as tf

    a, b = map(
        tf.constant,
        np.random.default_rng(0).standard_normal((2, MATRIX_SIDE, MATRIX_SIDE), np.float32),
    )
    return Loaded(f"TensorFlow {tf.__version__}", lambda batch: lambda: tf.matmul(a, b).numpy())


PROGRAMS: dict[str, Callable[[dict[str, Any], int], Loaded]] = {
    "file": load_file,
    "timm": load_torch,
    "transformers": load_torch,
    "openvino": load_file,
    "matrix_product": load_matrix_product,
}


def main() -> None:
    """Answers until standard input ends; a failure is the last answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear.
    outputs = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        for output in _outputs(_commands()):
            print(json.dumps(output), file=outputs, flush=True)
    # Whatever an engine raises is the reason in the entry's row.
    except Exception as error:
        print(json.dumps({"error": reason_of(error)}), file=outputs, flush=True)
        sys.exit(1)


def reason_of(error: Exception) -> str:
    """An error as a reason for people."""
    if isinstance(error, BitKerasError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed."
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _outputs(commands: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Loads by the first command; then each prepares a batch size or takes the time."""
    first = next(commands)
    loaded = PROGRAMS[first["program"]](first["job"], first["threads"])
    yield {"engine": loaded.engine}
    call: Call = _not_prepared
    for command in commands:
        if "batch" in command:
            call = loaded.prepare(command["batch"])
            for _ in range(WARM_UP):
                call()
            yield {"ready": True}
        else:
            call()  # The turn of another has emptied the caches and put threads to sleep.
            yield {"seconds": _seconds(call)}


def _not_prepared() -> None:
    raise RuntimeError("no batch size was given before the first measurement")


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _commands() -> Iterator[dict[str, Any]]:
    """The lines of standard input; at its end the process ends, whatever it is at."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        # Not through `sys.stdin`, whose lock would be held when the interpreter ends.
        with open(0, closefd=False) as file:
            for line in file:
                lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield json.loads(lines.get())


if __name__ == "__main__":
    main()
