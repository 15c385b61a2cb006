"""The metadata of files that tests write."""

from bit_keras.export.artifact import Metadata
from bit_keras.preprocessing import task_of
from tests.export.tflite.models import NAME


def described(quantize, **changes):
    task = task_of(NAME)
    fields = {
        "model": NAME,
        "target": "tflite",
        "variant": "classification",
        "precision": "float32" if quantize == "none" else quantize,
        "folded": True,
        "input_range": (0.0, 255.0) if quantize.startswith("int8") else (-1.0, 1.0),
        "size": task.transform.size,
        "outputs": len(task.labels),
        "task": task.to_json(),
        "tolerance": 1e-5,
        "versions": {"bit_keras": "0.0"},
    }
    return Metadata(**{**fields, **changes})
