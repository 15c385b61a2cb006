"""Replays the reference inputs of an artifact, which `Artifact.verify` does in a new process.

Only other programs load what Keras did not write, and no network of this package is built: a
SavedModel is run by TensorFlow, every other file by the engines that are made for it.
"""

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bit_keras.artifacts.artifact import Artifact
from bit_keras.artifacts.metadata import OUTPUTS
from bit_keras.artifacts.reference import (
    named_outputs,
    reference_difference,
    relative_difference,
)
from bit_keras.artifacts.runtimes import Program
from bit_keras.artifacts.runtimes.opening import is_installed
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.preprocessing.decoding import scores_of

#: What each type of artifact is replayed in, besides the SavedModels and Keras's own file.
ENGINES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tflite": ("litert", "tf.lite"), "onnx": ("onnxruntime",), "openvino": ("openvino",)}
)


def replay(path: str | os.PathLike, trust: bool = False) -> dict[str, float]:
    """The relative difference to the reference output, for each way to call an artifact."""
    artifact = Artifact(path)
    target, reference = artifact.metadata.target, artifact.read_reference()
    if target == "keras":
        return _replay_keras(artifact, reference, trust)
    if target not in ENGINES:
        return _replay_saved_model(artifact, reference, trust)
    differences: dict[str, float] = {}
    # Where none is installed, the first one says what is missing.
    for engine in [*filter(is_installed, ENGINES[target])] or ENGINES[target][:1]:
        program = artifact.open_program(engine=engine, trust=trust)
        differences |= _replay_program(program, artifact.spec, reference)
    return differences


def replay_job(job: dict[str, Any]) -> dict[str, float]:
    """`replay` with its arguments in one dict, as `run_in_process` passes them."""
    return replay(**job)


def _replay_program(
    program: Program, spec: ClassifierSpec | None, reference: dict[str, np.ndarray]
) -> dict[str, float]:
    engine, _, _version = program.engine.rpartition(" ")
    differences: dict[str, float] = {}
    for name in program.signatures:
        results = program(reference["inputs"], name)
        if CLASS_MAPS in results:  # One of several outputs, shown separately.
            maps = {CLASS_MAPS: results.pop(CLASS_MAPS)}
            differences[f"{CLASS_MAPS} ({engine})"] = _largest_difference(maps, spec, reference)
        differences[f"{name} ({engine})"] = _largest_difference(results, spec, reference)
    return differences


def _replay_saved_model(
    artifact: Artifact, reference: dict[str, np.ndarray], trust: bool
) -> dict[str, float]:
    import tensorflow as tf

    from bit_keras.artifacts.runtimes.tensorflow import load_saved_model

    loaded = load_saved_model(artifact.path, trust)
    differences = {
        name: _replay_signature(signature, artifact.spec, reference)
        for name, signature in loaded.signatures.items()
    }
    if artifact.metadata.target == "hub":
        images, output = tf.constant(reference["inputs"]), OUTPUTS[artifact.metadata.variant]
        results = {
            "__call__": loaded(images),
            "__call__, one image at a time": tf.concat(
                [loaded(image[None]) for image in images], 0
            ),
        }
        differences |= {
            name: relative_difference(values.numpy(), reference[output])
            for name, values in results.items()
        }
    return differences


def _replay_keras(
    artifact: Artifact, reference: dict[str, np.ndarray], trust: bool
) -> dict[str, float]:
    from bit_keras.checkpoints import load_keras_model

    results = named_outputs(load_keras_model(artifact.path, trust), reference["inputs"])
    return {"the network": _largest_difference(results, None, reference)}


def _replay_signature(
    signature: Any, spec: ClassifierSpec | None, reference: dict[str, np.ndarray]
) -> float:
    import tensorflow as tf

    (name,) = signature.structured_input_signature[1]
    inputs: Any = reference["inputs"]
    expected = reference
    if name == "image_bytes":
        inputs = [reference[f"picture_{number}"].tobytes() for number in (0, 1)]
        expected = {
            key.removeprefix("picture_"): value
            for key, value in reference.items()
            if key.startswith("picture_")
        }
    outputs = signature(**{name: tf.constant(inputs)})
    results = {key: value.numpy() for key, value in outputs.items()}
    if "class_ids" in results:
        return _ranking_difference(results, spec, expected["logits"])
    return _largest_difference(results, spec, expected)


def _largest_difference(
    results: Mapping[str, np.ndarray],
    spec: ClassifierSpec | None,
    expected: dict[str, np.ndarray],
) -> float:
    """The largest difference of all outputs of a signature."""
    if "probabilities" in results:
        assert spec is not None  # Artifacts with probabilities have one.
        scores = scores_of(expected["logits"], spec.activation)
        expected = {**expected, "probabilities": scores}
    return max(reference_difference(output, values, expected) for output, values in results.items())


def _ranking_difference(
    results: dict[str, np.ndarray], spec: ClassifierSpec | None, logits: np.ndarray
) -> float:
    """Difference of the scores of the best classes, and of the classes that the ids name."""
    assert spec is not None
    expected = scores_of(logits, spec.activation)
    index = {id: number for number, id in enumerate(spec.labels.ids)}
    indices = np.array([[index[id.decode()] for id in row] for row in results["class_ids"]])
    names = [[spec.labels.names[number] for number in row] for row in indices]
    if names != [[name.decode() for name in row] for row in results["classes"]]:
        return float("inf")
    scores = results["scores"]
    best = -np.sort(-expected, axis=1)[:, : scores.shape[1]]
    of_ids = np.take_along_axis(expected, indices, axis=1)
    return max(relative_difference(scores, best), relative_difference(scores, of_ids))
