"""Pictures in, names out, whatever the network is stored as."""

import dataclasses
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bit_keras.errors import BitKerasError, UnknownModelError
from bit_keras.export.artifact import Metadata
from bit_keras.preprocessing import EvalTransform, decode_predictions, eval_transform
from bit_keras.registry import CHECKPOINTS, Checkpoint, model_info

if TYPE_CHECKING:
    import keras

#: Images that go through the network at once.
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A classifier with its own transform and labels.

    Attributes:
        name: str. The model's name.
        transform: EvalTransform. From a picture to float32 in [-1, 1].
        network: callable from images in [-1, 1] to logits, both NumPy arrays.
        labels: str or list of str. What `decode_predictions` takes.
    """

    name: str
    transform: EvalTransform
    network: Callable[[np.ndarray], np.ndarray]
    labels: str | list[str]

    def __call__(self, images: list[np.ndarray], top: int = 5) -> list[list[tuple]]:
        """Classifies transformed images.

        Args:
            images: list of float32 arrays `(size, size, 3)`, from `transform`.
            top: int. Classes per image. Defaults to `5`.

        Returns:
            For each image a list of (class id, label, score), best first.
        """
        predictions = []
        for start in range(0, len(images), _BATCH):
            logits = self.network(np.stack(images[start : start + _BATCH]))
            predictions += decode_predictions(logits, self.labels, top)
        return predictions


def load_predictor(source: str | os.PathLike) -> Predictor:
    """Loads a classifier from wherever it is.

    Args:
        source: A model name or alias, the folder of an exported SavedModel, a
            `.keras` file, or an official npz file.

    Returns:
        Predictor.

    Raises:
        UnknownModelError: Neither a path nor a model name.
        BitKerasError: The artifact cannot be read, or is no classifier.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    model.save("tiny.keras")
    predictor = bit_keras.inference.load_predictor("tiny.keras")
    image = predictor.transform(np.zeros((40, 50, 3), "uint8"))
    len(predictor([image], top=3)[0])  # 3
    ```
    """
    path = Path(source)
    if path.is_dir():
        return _from_saved_model(path)
    if path.is_file():
        return _from_file(path)
    if path.suffix in (".keras", ".npz") and str(source) not in CHECKPOINTS:
        raise BitKerasError(f"There is no file {path}.")
    try:
        checkpoint = model_info(os.fspath(source))
    except UnknownModelError as error:
        raise UnknownModelError(f"{error} Nor is there an artifact of that name.") from None

    from bit_keras.models import create_classifier

    return _from_keras(create_classifier(checkpoint.name))


def _from_file(path: Path) -> Predictor:
    import keras

    from bit_keras.models import network_of_file

    if not _is_keras_file(path):
        return _from_keras(network_of_file(path))
    try:
        model = keras.models.load_model(path, compile=False)
    # Keras raises whatever the damage brings about; the cause is kept.
    except Exception as error:
        raise BitKerasError(f"{path} cannot be loaded by Keras ({error}).") from error
    return _from_keras(model)


def _is_keras_file(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "config.json" in archive.namelist()


def _from_keras(model: "keras.Model") -> Predictor:
    import keras

    layers = {layer.name: layer for layer in model.layers}
    _require_classifier(model.name, is_classifier="head" in layers)
    # What follows the head turns logits into scores, which decoding does itself.
    logits = keras.Model(model.input, layers["head"].output)
    takes_pixels = "rescaling" in layers

    def network(images: np.ndarray) -> np.ndarray:
        inputs = (images + 1.0) * np.float32(127.5) if takes_pixels else images
        return np.asarray(logits.predict(inputs, verbose=0))

    return _predictor(
        model.name, network, classes=logits.output_shape[-1], size=_side(model.input_shape)
    )


def _from_saved_model(path: Path) -> Predictor:
    metadata = Metadata.read(path)
    _require_classifier(str(path), is_classifier=metadata.variant == "classification")

    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    low, high = metadata.input_range

    def network(images: np.ndarray) -> np.ndarray:
        inputs = low + (images + 1.0) * np.float32((high - low) / 2.0)
        return signature(inputs=tf.constant(inputs))["logits"].numpy()

    size = _side(signature.structured_input_signature[1]["inputs"].shape)
    return _predictor(metadata.model, network, classes=metadata.outputs, size=size)


def _predictor(
    name: str, network: Callable[[np.ndarray], np.ndarray], classes: int, size: int | None
) -> Predictor:
    checkpoint = _checkpoint_of(name)
    own = [f"class_{index}" for index in range(classes)]
    labels = checkpoint.name if classes == checkpoint.classes else own
    return Predictor(checkpoint.name, eval_transform(checkpoint.name, size), network, labels)


def _side(input_shape: Sequence[int | None]) -> int | None:
    """The fixed side of the images that a network takes, if it is fixed."""
    height, width = input_shape[1:3]
    if height != width:
        raise BitKerasError(
            f"The network takes images of {height}x{width} pixels, and the evaluation transform "
            "gives squares; build it with a square input_shape, or with (None, None, 3)."
        )
    return height


def _checkpoint_of(name: str) -> Checkpoint:
    try:
        return model_info(name)
    except UnknownModelError:
        raise BitKerasError(
            f"The network calls itself {name!r}, which is no checkpoint of the registry, so the "
            "size of its images and its labels are unknown; build it by a model name "
            "(`bit-keras list`) with weights=PATH and save that."
        ) from None


def _require_classifier(name: str, *, is_classifier: bool) -> None:
    if not is_classifier:
        raise BitKerasError(
            f"{name} returns features and no classes; export it with --variant classification."
        )
