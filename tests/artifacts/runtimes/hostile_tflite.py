"""Damaged TFLite files through the way of `predict`, in a process of its own."""

import collections
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import BitKerasError
from bit_keras.inference import load_predictor
from tests.checkpoints.mutations import mutated

SIDE = 64


def logits_of_predict(path, images):
    """As `bit-keras predict` gets them: the metadata are read first."""
    return load_predictor(path).network(images)


def logits_of_program(path, images):
    """As programs get them that run files of others."""
    return open_program(path)(images)["logits"]


WAYS = {"predict": logits_of_predict, "program": logits_of_program}


def outcomes(argument):
    """What becomes of damaged versions of a file.

    Args:
        argument: list: path of the file, count, seed, and one of `WAYS`.

    Returns:
        dict: `counts` of "refused", "same" logits, "other" logits and names of exceptions that
        are not of this package; the damages after all but the first two as `worth_a_look`; the
        `slowest` in seconds; and the growth of `memory` in bytes. (What a process that tries a
        file may take is limited by `require_loadable`; Linux counts the memory of the process
        that started it as its own.)
    """
    path, count, seed, way = argument
    data, logits = Path(path).read_bytes(), WAYS[way]
    images = np.random.default_rng(0).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype("float32")
    expected, before = logits(Path(path), images), _peak()
    counts, notable, slowest = collections.Counter(), [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "damaged.tflite"
        for what, content in mutated(data, count, seed):
            file.write_bytes(content)
            start = time.monotonic()
            try:
                found = logits(file, images)
                outcome = "same" if np.array_equal(found, expected) else "other"
            except BitKerasError:
                outcome = "refused"
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            slowest = max(slowest, time.monotonic() - start)
            counts[outcome] += 1
            if outcome not in ("refused", "same"):
                notable.append(f"{what}: {outcome}")
    return {
        "counts": counts,
        "worth_a_look": notable,
        "slowest": slowest,
        "memory": _peak() - before,
    }


def _peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
