"""OpenVINO at its best: compiled anew for the shape of every batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

from bit_keras.benchmark.contestants import Contestant

#: OpenVINO's hints. What is quantised computes in int8 under either of them.
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


def compiled(contestant: Contestant, images: np.ndarray, threads: int) -> Callable[[], Any]:
    """A call on a batch of images.

    A graph that leaves the batch open ran R50x1 at 3/4 of this speed in float32, and at
    3/5 in bfloat16 (OpenVINO 2026.4).
    """
    core = openvino.Core()
    network = core.read_model(contestant.path)
    network.reshape(list(images.shape))
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _HINTS[contestant.precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(network, "CPU", options).create_infer_request()
    return lambda: request.infer([images], share_inputs=True, share_outputs=True)
