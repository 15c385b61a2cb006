"""What readers make of many damaged files, in a process of its own: a crash ends only that."""

import collections
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bit_keras.checkpoints import files
from bit_keras.errors import BitKerasError
from bit_keras.processes import run_in_process
from tests.checkpoints.mutations import mutated
from tests.checkpoints.reading import bits, read_all

#: Seconds that one file may take, and bytes of memory beyond four times its size.
SECONDS, MEMORY = 10, 200_000_000


def outcomes(reader, opened, count, seed, damaged=None):
    """Reads `count` damaged versions of a file in a child.

    Args:
        reader: str. The class in `bit_keras.checkpoints.files`, or `"load"` for a SavedModel
            that TensorFlow loads and runs.
        opened: Path. What the reader is given, a file or a folder; it is not changed.
        count: int.
        seed: int.
        damaged: str. The file in the folder that is damaged.

    Returns:
        dict: how many were `refused`, gave `equal` arrays or `other` ones, the `slowest` in
        seconds, the `memory` that was added in bytes.
    """
    job = {"reader": reader, "opened": str(opened), "count": count, "seed": seed}
    return run_in_process(
        "tests.checkpoints.hostile:run",
        {**job, "damaged": damaged},
        timeout=60 + SECONDS * count,
        memory=4_000_000_000,
    )


def run(job):
    """The child's side of `outcomes`."""
    read = loaded if job["reader"] == "load" else arrays_of(getattr(files, job["reader"]))
    with tempfile.TemporaryDirectory() as folder:
        opened = Path(folder) / Path(job["opened"]).name
        copy = shutil.copytree if Path(job["opened"]).is_dir() else shutil.copyfile
        copy(job["opened"], opened)
        file = opened / job["damaged"] if job["damaged"] else opened
        expected, content = read(opened), file.read_bytes()
        slowest, most = 0.0, 0
        found = collections.Counter()
        for what, damaged in mutated(content, job["count"], job["seed"]):
            file.write_bytes(damaged)
            start, before = time.monotonic(), memory_from_here()
            try:
                found["equal" if same(read(opened), expected) else "other"] += 1
            except BitKerasError:
                found["refused"] += 1
            except Exception as error:
                raise AssertionError(f"{what}, seed {job['seed']}: {error!r}") from error
            taken = time.monotonic() - start
            added = peak_memory() - before
            slowest, most = max(slowest, taken), max(most, added)
            assert taken < SECONDS, f"{what}, seed {job['seed']}: {taken:.0f} s"
            limit = 4 * len(damaged) + MEMORY
            assert added < limit, f"{what}, seed {job['seed']}: {added:,} bytes"
    return {**{k: found[k] for k in ("refused", "equal", "other")}, "slowest": slowest,
            "memory": most}  # fmt: skip


def arrays_of(reader):
    return lambda path: bits(read_all(reader, path))


def loaded(path):
    from bit_keras.artifacts.runtimes import open_program

    images = np.linspace(-1, 1, 2 * 32 * 32 * 3, dtype="float32").reshape(2, 32, 32, 3)
    return {name: array.tobytes() for name, array in open_program(path)(images).items()}


def same(found, expected):
    return list(found) == list(expected) and found == expected


def memory_from_here():
    """The memory of this process; `peak_memory` is what it has at most from now on."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return peak_memory()


def peak_memory():
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
