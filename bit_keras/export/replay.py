"""Replays the stored inputs of an artifact in a process of its own.

`python -m bit_keras.export.replay ARTIFACT` prints one JSON object: the relative
difference to the stored output, for each way to call the artifact. It loads a
SavedModel with TensorFlow alone, and neither Keras nor a network of this package.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from bit_keras.export.artifact import (
    OUTPUTS,
    Metadata,
    read_golden,
    relative_difference,
)
from bit_keras.preprocessing import Task
from bit_keras.preprocessing.decoding import scores_of


def replay(artifact: Path) -> dict[str, float]:
    """The relative difference of every endpoint, by its name."""
    metadata, golden = Metadata.read(artifact), read_golden(artifact)
    if metadata.target == "keras":
        return _replay_keras(artifact, golden)
    loaded = tf.saved_model.load(str(artifact))
    differences = {
        name: _replay_signature(signature, metadata, golden)
        for name, signature in loaded.signatures.items()
    }
    if metadata.target == "hub":
        images, output = tf.constant(golden["inputs"]), OUTPUTS[metadata.variant]
        answers = {
            "__call__": loaded(images),
            "__call__, one image at a time": tf.concat(
                [loaded(image[None]) for image in images], 0
            ),
        }
        differences |= {
            name: relative_difference(answer.numpy(), golden[output])
            for name, answer in answers.items()
        }
    return differences


def _replay_keras(artifact: Path, golden: dict[str, np.ndarray]) -> dict[str, float]:
    import keras

    from bit_keras.export.keras_file import named_outputs

    model = keras.models.load_model(artifact, compile=False)
    answers = named_outputs(model, golden["inputs"])
    differences = [relative_difference(answer, golden[name]) for name, answer in answers.items()]
    return {"the network": max(differences)}


def _replay_signature(signature: Any, metadata: Metadata, golden: dict[str, np.ndarray]) -> float:
    """The largest difference of all outputs of a signature."""
    (name,) = signature.structured_input_signature[1]
    if name == "image_bytes":
        pictures = [golden[f"picture_{number}"].tobytes() for number in (0, 1)]
        answers = signature(image_bytes=tf.constant(pictures))
        prefix = "picture_"
    else:
        answers = signature(inputs=tf.constant(golden["inputs"]))
        prefix = ""
    answers = {key: value.numpy() for key, value in answers.items()}
    if "class_ids" in answers:
        return _ranking_difference(answers, metadata, golden["picture_logits"])
    return max(
        relative_difference(answer, _expected(output, metadata, golden, prefix))
        for output, answer in answers.items()
    )


def _expected(
    output: str, metadata: Metadata, golden: dict[str, np.ndarray], prefix: str
) -> np.ndarray:
    if output == "probabilities":
        return scores_of(golden[f"{prefix}logits"], _task(metadata).activation)
    return golden[prefix + output]


def _ranking_difference(
    answers: dict[str, np.ndarray], metadata: Metadata, logits: np.ndarray
) -> float:
    """Difference of the scores of the best classes, and of those that the ids stand for."""
    task = _task(metadata)
    expected = scores_of(logits, task.activation)
    index = {id: number for number, id in enumerate(task.labels.ids)}
    indices = np.array([[index[id.decode()] for id in row] for row in answers["class_ids"]])
    names = [[task.labels.names[number] for number in row] for row in indices]
    if names != [[name.decode() for name in row] for row in answers["classes"]]:
        return float("inf")
    scores = answers["scores"]
    best = -np.sort(-expected, axis=1)[:, : scores.shape[1]]
    of_ids = np.take_along_axis(expected, indices, axis=1)
    return max(relative_difference(scores, best), relative_difference(scores, of_ids))


def _task(metadata: Metadata) -> Task:
    assert metadata.task is not None  # What has probabilities has a task.
    return Task.from_json(metadata.task)


if __name__ == "__main__":
    print(json.dumps(replay(Path(sys.argv[1]))))
