"""Trainings that are really killed, at any moment, and continue."""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

pytestmark = [
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="Only TensorFlow on processors is promised to repeat to the bit.",
    ),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="This system has no SIGKILL."),
]

#: Writes a checkpoint after every step, so that a kill falls into one now and then.
PROGRAM = """
import sys
from bit_keras.training import loop
loop.CHECKPOINT_SECONDS = loop.CHECKPOINT_SHARE = float(sys.argv.pop(1))
from bit_keras.cli import main
main()
"""

# 54 images in batches of 12: nearly every batch is in the middle of an epoch.
OPTIONS = (
    *("finetune", "bit_tiny.cifar10", "--weights", "random", "--size", "32", "--lr", "0.01"),
    *("--batch", "12", "--mixup", "0.2", "--seed", "3"),
)


def start(data, out, steps, seconds_between_checkpoints):
    return subprocess.Popen(
        [
            *(sys.executable, "-c", PROGRAM, str(seconds_between_checkpoints)),
            *(*OPTIONS, "--steps", str(steps), "--data", str(data), "--out", str(out)),
        ],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def changed(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def kill_after_a_checkpoint(process, state, delay):
    """Kills a process some seconds after it first wrote its state; False if it was too late."""
    before, limit = changed(state), time.monotonic() + 240
    while changed(state) == before and process.poll() is None:
        assert time.monotonic() < limit, "No checkpoint was written in four minutes."
        time.sleep(0.005)
    time.sleep(delay)
    alive = process.poll() is None
    process.kill()
    process.communicate()
    return alive


def rows_of(path):
    """The history without what depends on the clock."""
    with (path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.mark.parametrize(
    ("times", "steps"),
    [pytest.param(1, 20, marks=pytest.mark.long), pytest.param(5, 60, marks=pytest.mark.full)],
)
def test_killed_again_and_again_it_ends_with_the_same_weights(
    colour_folder, tmp_path, times, steps
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    process = start(colour_folder, whole, steps, seconds_between_checkpoints=1e9)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors

    chance = random.Random(0)
    kills = 0
    for _ in range(times):
        process = start(colour_folder, parts, steps, seconds_between_checkpoints=0)
        kills += kill_after_a_checkpoint(process, parts / "checkpoint.npz", chance.uniform(0, 0.6))
    assert kills > times / 2
    process = start(colour_folder, parts, steps, seconds_between_checkpoints=0)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors

    for file in ("best.npz", "last.npz"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    with np.load(whole / "checkpoint.npz") as one, np.load(parts / "checkpoint.npz") as other:
        assert one.files == other.files
        for name in one.files:
            if name != "progress":  # Which contains the seconds.
                assert np.array_equal(one[name], other[name]), name
    assert rows_of(whole) == rows_of(parts)
    # Only the lock is hidden in the end: partial files of killed processes are gone.
    assert [f.name for f in parts.iterdir() if f.name.startswith(".")] == [".lock"]
