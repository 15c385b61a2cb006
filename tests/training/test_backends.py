"""The same training on every backend."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import keras
import numpy as np
from bit_keras.training import finetune, load_run

generator = np.random.default_rng(0)
labels = np.arange(48) % 2
pixels = generator.integers(0, 120, (48, 32, 32, 3)) + 120 * labels[:, None, None, None]
data = (pixels.astype("uint8"), labels)
options = dict(weights="random", size=32, batch=12, steps=16, learning_rate=0.01)
options |= dict(accumulate=2, remat=True)
result = finetune("bit_tiny.cifar10", data, sys.argv[1], **options)
model, spec = load_run(sys.argv[1])
assert keras.backend.backend() == sys.argv[2]
assert model.output_shape == (None, 2)
assert result.best_accuracy == 1.0, result
"""

FEW_RESOURCES = {
    # On a busy machine the threads of OpenMP, which PyTorch has, wait for each other.
    "OMP_NUM_THREADS": "1",
    # The program runs for a few steps: compiling takes longer.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


@pytest.mark.long
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_network_learns_on_other_backends(backend, tmp_path):
    pytest.importorskip(backend, reason=f"{backend} is not installed.")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), backend],
        env={**os.environ, **FEW_RESOURCES, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == 0, result.stderr
