"""Replays the stored input of a SavedModel in a process of its own.

`python -m bit_keras.export.replay ARTIFACT` prints one JSON object: the relative
difference to the stored output, for each way to call the artifact. It loads the
artifact with TensorFlow alone, and neither Keras nor a network of this package.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

from bit_keras.export.artifact import OUTPUTS, Metadata, read_golden, relative_difference


def replay(artifact: Path) -> dict[str, float]:
    """The relative difference of every endpoint, by its name."""
    output = OUTPUTS[Metadata.read(artifact).variant]
    inputs, golden = read_golden(artifact)
    loaded = tf.saved_model.load(str(artifact))
    images = tf.constant(inputs)
    answers = {
        "serving_default": loaded.signatures["serving_default"](inputs=images)[output],
        "__call__": loaded(images),
        "__call__, one image at a time": tf.concat([loaded(image[None]) for image in images], 0),
    }
    return {name: relative_difference(got.numpy(), golden) for name, got in answers.items()}


if __name__ == "__main__":
    print(json.dumps(replay(Path(sys.argv[1]))))
