"""A step of fine-tuning R50x1 next to timm and transformers under PyTorch, interleaved.

    python benchmarks/fine_tuning.py [--batch 8] [--size 160] [--rounds 9]
        [--precision float32 bfloat16] [--contenders NAME ...]

Every contender is a process of its own, takes the same images and targets, and
does the same step: forward pass, cross-entropy, backward pass, SGD with momentum
on all weights. They take turns, one at work while the others wait. Prints the
median of the images per second, the median of the ratios to the fastest peer
round by round (machines drift, ratios of neighbours do not), and the most memory
that a process used. A contender that is not installed is named and skipped.

Only on a machine with nothing else to do: PyTorch's threads wait for one another
actively, and next to other work its steps can take ten times as long.
"""

import argparse
import functools
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import numpy as np
import rich.console
import rich.table

if TYPE_CHECKING:
    import torch

#: Steps that no clock runs for: compilation, and the optimizer's first use of its memory.
WARM_UP = 3

CLASSES = 10
LEARNING_RATE = 0.003
MOMENTUM = 0.9

Step = Callable[[], object]


def bit_keras_step(images: np.ndarray, targets: np.ndarray, precision: str, backend: str) -> Step:
    os.environ["KERAS_BACKEND"] = backend
    from bit_keras.cli.printing import start_keras

    start_keras()
    import keras

    import bit_keras

    if precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    if backend == "tensorflow":
        import tensorflow as tf

        # This pass of TensorFlow 2.21 drops the order of an update and the reads of a weight.
        tf.config.optimizer.set_experimental_options({"dependency_optimization": False})
    model = bit_keras.create_classifier(
        "bit_r50x1.in21k", weights=None, num_classes=CLASSES, input_shape=images.shape[1:]
    )
    model.compile(
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        jit_compile=backend == "jax",  # XLA on CPUs makes TensorFlow slower.
    )
    return lambda: model.train_on_batch(images, targets)


def transformers_step(images: np.ndarray, targets: np.ndarray, precision: str) -> Step:
    import transformers

    configuration = transformers.BitConfig()  # Of width and depth of R50x1.
    configuration.num_labels = CLASSES
    network = transformers.BitForImageClassification(configuration)
    return torch_step(network, lambda x: network(x).logits, images, targets, precision)


def timm_step(
    images: np.ndarray,
    targets: np.ndarray,
    precision: str,
    channels_last: bool = False,
    compiled: bool = False,
) -> Step:
    import timm
    import torch

    network = timm.create_model("resnetv2_50x1_bit", num_classes=CLASSES)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    forward = torch.compile(network) if compiled else network
    return torch_step(network, forward, images, targets, precision, channels_last)


def torch_step(
    network: "torch.nn.Module",
    forward: Callable,
    images: np.ndarray,
    targets: np.ndarray,
    precision: str,
    channels_last: bool = False,
) -> Step:
    import torch

    order = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=order)
    y = torch.from_numpy(targets)
    optimizer = torch.optim.SGD(network.train().parameters(), LEARNING_RATE, momentum=MOMENTUM)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(forward(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


#: The first is what the others are compared with; the names of peers have no backend of ours.
CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray, str], Step]] = {
    "bit_keras": functools.partial(bit_keras_step, backend="tensorflow"),
    "bit_keras on jax": functools.partial(bit_keras_step, backend="jax"),
    "bit_keras on torch": functools.partial(bit_keras_step, backend="torch"),
    "timm": timm_step,
    "timm, channels last": functools.partial(timm_step, channels_last=True),
    "timm, torch.compile": functools.partial(timm_step, compiled=True),
    "transformers": transformers_step,
}
DEFAULT = ("bit_keras", "timm", "timm, channels last", "transformers")


class Contender:
    """A process that does steps when it is told to."""

    def __init__(self, name: str, precision: str, batch: int, size: int) -> None:
        self.name, self.precision = name, precision
        # A fresh process: a fork would share the threads and the memory of this one.
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        context.Process(
            target=_serve, args=(end, name, precision, batch, size), daemon=True
        ).start()
        end.close()
        self.missing: str | None = self._pipe.recv()

    def seconds(self, steps: int) -> float:
        self._pipe.send(steps)
        return self._pipe.recv()

    def gigabytes(self) -> float:
        """Ends the process, and returns the most memory that it used."""
        self._pipe.send(None)
        return self._pipe.recv()


def _serve(pipe: Connection, name: str, precision: str, batch: int, size: int) -> None:
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (batch, size, size, 3)).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[generator.integers(CLASSES, size=batch)]
    try:
        step = CONTENDERS[name](images, targets, precision)
    except ImportError as error:
        return pipe.send(str(error))
    for _ in range(WARM_UP):
        step()
    pipe.send(None)
    while (steps := pipe.recv()) is not None:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(time.perf_counter() - start)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)


def compare(
    contenders: list[Contender], batch: int, rounds: int, steps: int
) -> dict[str, list[float]]:
    """Images per second of every contender in every round."""
    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            rates[contender.name].append(batch * steps / contender.seconds(steps))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=3, help="of one contender in a round")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--contenders", nargs="+", default=DEFAULT, choices=CONTENDERS)
    arguments = parser.parse_args()

    console = rich.console.Console(width=120, highlight=False)
    columns = ("precision", "contender", "images/s", "to the best peer", "peak memory")
    table = rich.table.Table(*columns, box=None, padding=(0, 2))
    for precision in arguments.precision:
        contenders = []
        for name in arguments.contenders:
            contender = Contender(name, precision, arguments.batch, arguments.size)
            if contender.missing:
                console.print(f"Without {name}: {contender.missing}")
            else:
                contenders.append(contender)
        if not contenders:
            continue
        rates = compare(contenders, arguments.batch, arguments.rounds, arguments.steps)
        medians = {name: statistics.median(column) for name, column in rates.items()}
        peers = [name for name in medians if not name.startswith("bit_keras")]
        best = max(peers or medians, key=lambda name: medians[name])
        for contender in contenders:
            pairs = zip(rates[contender.name], rates[best], strict=True)
            ratio = statistics.median(mine / other for mine, other in pairs)
            row = (f"{medians[contender.name]:.2f}", f"{ratio:.2f}")
            memory = f"{contender.gigabytes():.2f} GB"
            table.add_row(precision, contender.name, *row, memory)
    console.print(table)


if __name__ == "__main__":
    main()
