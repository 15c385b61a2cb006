"""Replays the stored inputs of an artifact; `verify` does so in a process of its own.

Whatever Keras did
not write is loaded by other programs alone, and by no network of this package: a
SavedModel by TensorFlow, every other file by the engines that are made for it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bit_keras.export.artifact import (
    OUTPUTS,
    Metadata,
    golden_difference,
    read_golden,
    relative_difference,
)
from bit_keras.preprocessing import Task
from bit_keras.preprocessing.decoding import scores_of
from bit_keras.runtimes import Program, is_installed, open_program
from bit_keras.runtimes.program import CLASS_MAPS

#: What each kind of artifact is replayed in, besides the SavedModels and Keras's own file.
ENGINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tflite": ("litert", "tf.lite"), "onnx": ("onnxruntime",), "openvino": ("openvino",)}
)


def replay(artifact: str | os.PathLike, trust: bool = False) -> dict[str, float]:
    """The relative difference to the stored output, for each way to call the artifact."""
    artifact = Path(artifact)
    metadata, golden = Metadata.read(artifact), read_golden(artifact)
    if metadata.target == "keras":
        return _replay_keras(artifact, golden, trust)
    if metadata.target not in ENGINES:
        return _replay_saved_model(artifact, metadata, golden, trust)
    differences: dict[str, float] = {}
    for engine in _installed(ENGINES[metadata.target]):
        program = open_program(artifact, engine=engine, trust=trust)
        differences |= _replay_program(program, metadata, golden)
    return differences


def replay_job(job: dict[str, Any]) -> dict[str, float]:
    """`replay` with its arguments in one, as a process of its own takes them."""
    return replay(**job)


def _installed(engines: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are installed; where none is, the first one, which says what is missing."""
    return tuple(engine for engine in engines if is_installed(engine)) or engines[:1]


def _replay_program(
    program: Program, metadata: Metadata, golden: dict[str, np.ndarray]
) -> dict[str, float]:
    engine, _, _version = program.engine.rpartition(" ")
    differences: dict[str, float] = {}
    for name in program.signatures:
        answers = program(golden["inputs"], name)
        if CLASS_MAPS in answers:  # One output of several, which is to be seen by itself.
            maps = {CLASS_MAPS: answers.pop(CLASS_MAPS)}
            differences[f"{CLASS_MAPS} ({engine})"] = _largest_difference(maps, metadata, golden)
        differences[f"{name} ({engine})"] = _largest_difference(answers, metadata, golden)
    return differences


def _replay_saved_model(
    artifact: Path, metadata: Metadata, golden: dict[str, np.ndarray], trust: bool
) -> dict[str, float]:
    import tensorflow as tf

    from bit_keras.runtimes.tensorflow import load_saved_model

    loaded = load_saved_model(artifact, trust)
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


def _replay_keras(artifact: Path, golden: dict[str, np.ndarray], trust: bool) -> dict[str, float]:
    from bit_keras.checkpoints import load_keras_model
    from bit_keras.export.keras_file import named_outputs

    model = load_keras_model(artifact, trust)
    answers = named_outputs(model, golden["inputs"])
    differences = [relative_difference(answer, golden[name]) for name, answer in answers.items()]
    return {"the network": max(differences)}


def _replay_signature(signature: Any, metadata: Metadata, golden: dict[str, np.ndarray]) -> float:
    import tensorflow as tf

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
    return _largest_difference(answers, metadata, golden, prefix)


def _largest_difference(
    answers: Mapping[str, np.ndarray],
    metadata: Metadata,
    golden: dict[str, np.ndarray],
    prefix: str = "",
) -> float:
    """The largest difference of all outputs of a signature."""
    expected = {
        key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)
    }
    if "probabilities" in answers:
        expected["probabilities"] = scores_of(expected["logits"], _task(metadata).activation)
    return max(golden_difference(output, answer, expected) for output, answer in answers.items())


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
