"""GroupNorm next to Keras's own layer, in a whole R50x1, interleaved in one process.

    python benchmarks/group_norm.py [--batch 1 8] [--size 224] [--rounds 15]

Prints the median time of a forward pass for both networks, which contain the same
weights and give the same logits, and the median of the ratios round by round:
machines drift, ratios of neighbours do not.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from bit_keras.cli.printing import console, start_keras

start_keras()

import keras  # noqa: E402
import numpy as np  # noqa: E402
import rich.table  # noqa: E402

import bit_keras  # noqa: E402
from bit_keras.checkpoints import fill_with_seeded_values  # noqa: E402
from bit_keras.layers import GroupNorm  # noqa: E402


def with_keras_layer(model: keras.Model) -> keras.Model:
    """The same network with `keras.layers.GroupNormalization`."""

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        if not isinstance(layer, GroupNorm):
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.GroupNormalization(layer.groups, epsilon=layer.epsilon, name=layer.name)

    twin = keras.models.clone_model(model, clone_function=swap, recursive=True)
    twin.set_weights(model.get_weights())
    return twin


def seconds(network: Callable, images: np.ndarray) -> float:
    start = time.perf_counter()
    np.asarray(network(images))
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()

    ours = bit_keras.create_feature_extractor("bit_r50x1.in21k", weights=None)
    fill_with_seeded_values(ours)
    theirs = with_keras_layer(ours)
    table = rich.table.Table("batch", "bit_keras", "keras", "ratio", box=None, padding=(0, 2))
    for batch in arguments.batch:
        images = np.random.default_rng(0).uniform(-1, 1, (batch, arguments.size, arguments.size, 3))
        networks = [jitted(ours), jitted(theirs)]
        outputs = [np.asarray(network(images)) for network in networks]
        np.testing.assert_allclose(*outputs, rtol=0, atol=1e-4 * np.abs(outputs[0]).max())
        times = [
            [seconds(network, images) for network in networks] for _ in range(arguments.rounds)
        ]
        mine, other = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        table.add_row(str(batch), f"{1e3 * mine:.0f} ms", f"{1e3 * other:.0f} ms", f"{ratio:.2f}")
    console().print(table)


def jitted(model: keras.Model) -> Callable:
    """One compiled function of images, as `predict` makes it, without its bookkeeping."""
    import tensorflow as tf

    function = tf.function(lambda x: model(x, training=False), autograph=False)
    return lambda images: function(tf.constant(images, tf.float32))


if __name__ == "__main__":
    main()
