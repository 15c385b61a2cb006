"""The metadata of files that tests write."""

from bit_keras.artifacts.metadata import Metadata
from bit_keras.preprocessing import spec_of
from tests.exporters.tflite.models import NAME


def described(quantize, **changes):
    spec = spec_of(NAME)
    fields = {
        "model": NAME,
        "target": "tflite",
        "variant": "classification",
        "precision": "float32" if quantize == "none" else quantize,
        "folded": True,
        "input_range": (0.0, 255.0) if quantize.startswith("int8") else (-1.0, 1.0),
        "size": spec.transform.size,
        "outputs": len(spec.labels),
        "task": spec.to_json(),
        "tolerance": 1e-5,
        "versions": {"bit_keras": "0.0"},
    }
    return Metadata(**{**fields, **changes})
