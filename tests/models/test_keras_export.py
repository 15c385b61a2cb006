"""Keras's own `model.export` of networks for images of any size: docs/troubleshooting.md."""

import keras
import numpy as np
import pytest

from bit_keras.models import create_classifier

BACKEND = keras.backend.backend()

#: On JAX the gradient of a convolution with strides cannot be traced for open sizes.
OPTIONS = {"tensorflow": {}, "jax": {"jax2tf_kwargs": {"with_gradient": False}}}


@pytest.mark.long
@pytest.mark.skipif(BACKEND not in OPTIONS, reason="Keras needs torch_xla to export from PyTorch.")
# jax2tf and TensorFlow use names of NumPy and of each other that are about to go.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_network_of_open_sizes_is_exported_by_keras(tmp_path):
    import tensorflow as tf

    model = create_classifier("bit_tiny.cifar10")
    model.export(tmp_path / "exported", verbose=False, **OPTIONS[BACKEND])
    exported = tf.saved_model.load(tmp_path / "exported")
    for shape in ((1, 64, 64, 3), (3, 45, 80, 3)):
        images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        expected = model.predict(images, verbose=0)
        np.testing.assert_allclose(exported.serve(images), expected, rtol=1e-4, atol=1e-4)
