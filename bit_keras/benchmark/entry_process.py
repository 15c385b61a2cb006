"""The process of one entry: it loads a program, warms up, and is timed one call at a time."""

import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

import numpy as np

from bit_keras.artifacts.reference import reference_images
from bit_keras.artifacts.runtimes import open_program
from bit_keras.benchmark.entries import Entry, Network
from bit_keras.errors import BitKerasError, ProcessError
from bit_keras.exporters.targets import INPUT_RANGES
from bit_keras.extras import is_importable, require_extra
from bit_keras.processes import Child

#: Where the libraries that compute look for a number of threads when they are loaded:
#: OpenMP (PyTorch, and TensorFlow's oneDNN), OpenBLAS, MKL, TensorFlow.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    "TF_NUM_INTRAOP_THREADS",
)

#: Calls that no clock runs for: what engines compile, allocate or choose on the way.
WARM_UP = 3

#: Side of the matrices whose product is the machine's peak: large enough to hide all
#: that is not arithmetic, small enough for a tenth of a second.
MATRIX_SIDE = 2048

Call = Callable[[], Any]


class Loaded(NamedTuple):
    """A program that is ready: the name of its engine, and what prepares calls for a batch size."""

    engine: str
    prepare: Callable[[int], Call]


def start_entry(entry: Entry, threads: int) -> Child:
    """Starts the process of an entry.

    Args:
        entry: Entry.
        threads: int. That it computes with.

    Returns:
        Child, whose first result is the name of the engine; see `serve` for what it can be asked.
    """
    job = {"entry": entry.to_json(), "threads": threads}
    return Child("bit_keras.benchmark.entry_process:serve", job, environment=environment(threads))


def environment(threads: int) -> dict[str, str]:
    """The variables of a process that computes on the CPU with so many threads."""
    return {
        **{name: str(threads) for name in _THREADS},
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def failure_of(error: BitKerasError) -> str:
    """Why an entry has no times, as a sentence."""
    return f"The process failed: {error}." if isinstance(error, ProcessError) else str(error)


def images_of(network: Network, batch: int, dtype: str) -> np.ndarray:
    """Images that a network takes, channels last."""
    input_range = (0.0, 255.0) if dtype == "uint8" else INPUT_RANGES[0]
    images = reference_images(network.height, network.width, input_range).astype(dtype)
    return images[np.arange(batch) % len(images)]


def load_file(entry: Entry, threads: int) -> Loaded:
    """An artifact, or another file that an engine runs."""
    assert entry.path is not None
    engine = None if entry.program == "file" else entry.program
    program = open_program(entry.path, threads=threads, engine=engine, trust=entry.trust)
    dtype = next(iter(program.signatures.values())).input_dtype

    def prepare(batch: int) -> Call:
        images = images_of(entry.network, batch, dtype)
        return lambda: program(images)

    return Loaded(program.engine, prepare)


def load_torch(entry: Entry, threads: int) -> Loaded:
    """A network of timm or transformers in PyTorch's eager mode."""
    require_extra("benchmark", "torch", purpose=entry.name)
    if not is_importable(entry.program):
        raise BitKerasError(f"{entry.program} is not installed.")
    from bit_keras.benchmark import torch_networks

    network = torch_networks.build(entry, threads)

    def prepare(batch: int) -> Call:
        images = images_of(entry.network, batch, "float32")
        return torch_networks.forward_pass(network, images, entry.precision)

    return Loaded(torch_networks.engine(entry), prepare)


def load_matrix_product(entry: Entry, threads: int) -> Loaded:
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


PROGRAMS: dict[str, Callable[[Entry, int], Loaded]] = {
    "file": load_file,
    "timm": load_torch,
    "transformers": load_torch,
    # As the engines are called; what is quantised computes in int8 under either.
    "openvino": load_file,
    "openvino-bfloat16": load_file,
    "matrix_product": load_matrix_product,
}


def serve(job: dict[str, Any]) -> Generator[Any, Any, None]:
    """Runs in the process of an entry: loads a program and is timed one call at a time.

    Args:
        job: dict. The `entry` and the number of `threads`, from `start_entry`.

    Yields:
        The name of the engine first. Then a result for each message: for a batch size, `None`
        once calls with so many images are prepared and warm; for `None`, the seconds of a call.
        The first message must be a batch size.
    """
    entry = Entry.from_json(job["entry"])
    loaded = PROGRAMS[entry.program](entry, job["threads"])
    message = yield loaded.engine
    while True:
        call = loaded.prepare(message)
        for _ in range(WARM_UP):
            call()
        message = yield None
        while message is None:
            call()  # The turn of another has emptied the caches and put threads to sleep.
            message = yield _seconds(call)


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
