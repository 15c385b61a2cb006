"""Images in, class names and scores out, in whatever format the network is stored."""

import concurrent.futures
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.checksums import has_checksums
from bit_keras.artifacts.metadata import OUTPUTS
from bit_keras.artifacts.runtimes import Program
from bit_keras.artifacts.runtimes.opening import CHECKED
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.artifacts.runtimes.trial import require_runs
from bit_keras.errors import BitKerasError, ImageError
from bit_keras.inference.explain import Explanation, explanation_of
from bit_keras.inference.network import load_network
from bit_keras.preprocessing import ClassifierSpec, decode_predictions, load_image
from bit_keras.preprocessing.classifier_spec import network_side, spec_for
from bit_keras.preprocessing.evaluation import ImageSource
from bit_keras.processes import available_cores
from bit_keras.registry import checkpoint_of
from bit_keras.sources import Source, resolve

#: Bytes of memory that Python, the engines of ONNX files and their libraries take.
_LIBRARIES = 600_000_000

#: Images that go through the network at once.
BATCH = 16

#: Threads that decode images. Each may have one decoded photograph in memory.
_MOST_THREADS = 4

_LOGITS = OUTPUTS["classification"]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The best classes of one image.

    Attributes:
        source: The image, as it was given to `Predictor.predict`.
        classes: list of (class id, label, score), best first; empty where there is an error.
        error: ImageError or None. Why the image cannot be read.
    """

    source: ImageSource
    classes: list[tuple[str, str, float]]
    error: ImageError | None = None


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A classifier with its own transform and labels.

    Attributes:
        name: str. The registry's name of the model it is or was made from.
        spec: ClassifierSpec. Its labels, and its transform from an image to float32 in
            [-1, 1].
        network: callable from images in [-1, 1] to logits, both NumPy arrays.
        class_maps: callable from such images to class maps `(batch, rows, columns,
            classes)`, whose means over the positions are the logits; None for an
            artifact that was exported without them.
    """

    name: str
    spec: ClassifierSpec
    network: Callable[[np.ndarray], np.ndarray]
    class_maps: Callable[[np.ndarray], np.ndarray] | None = None

    def __call__(self, images: list[np.ndarray], top: int = 5) -> list[list[tuple]]:
        """Classifies transformed images.

        Args:
            images: list of float32 arrays `(size, size, 3)`, from `spec.transform`.
            top: int. Classes per image. Defaults to `5`.

        Returns:
            For each image a list of (class id, label, score), best first.
        """
        predictions = []
        for start in range(0, len(images), BATCH):
            logits = self.network(np.stack(images[start : start + BATCH]))
            predictions += decode_predictions(logits, self.spec, top)
        return predictions

    def predict(self, sources: Iterable[ImageSource], top: int = 5) -> Iterator[Prediction]:
        """Classifies images one batch after the other, and yields each result as it is known.

        Images are decoded in threads, and those of one batch of 16 are in memory at a time: any
        number of them can be classified, and `sources` may be a generator that never ends.

        Args:
            sources: Iterable of what `spec.transform` takes: paths, encoded bytes, PIL images
                or uint8 arrays. It is read as far as the results are consumed, and up to a
                batch further.
            top: int. Classes per image. Defaults to `5`.

        Yields:
            Prediction, in the order of `sources`. An image that cannot be read has an `error`
            and does not stop the others.

        Example:

        ```python
        predictor = bit_keras.inference.load_predictor("bit_tiny.cifar10")
        images = (np.full((40, 50, 3), value, "uint8") for value in range(100))
        sum(len(prediction.classes) == 3 for prediction in predictor.predict(images, top=3))  # 100
        ```
        """
        batch: list[tuple[ImageSource, np.ndarray | ImageError]] = []
        readable = 0
        for source, image in self._transformed(sources):
            batch.append((source, image))
            readable += not isinstance(image, ImageError)
            # Full batches, because Keras compiles the network again for each other size.
            if readable in (0, BATCH):
                yield from self._classified(batch, top)
                batch, readable = [], 0
        yield from self._classified(batch, top)

    def _transformed(
        self, sources: Iterable[ImageSource]
    ) -> Iterator[tuple[ImageSource, np.ndarray | ImageError]]:
        """Each source with the array that the network takes, or why it cannot be read."""

        def transformed(source: ImageSource) -> np.ndarray | ImageError:
            try:
                return self.spec.transform(source)
            except ImageError as error:
                return error

        remaining = iter(sources)
        threads = min(available_cores(), _MOST_THREADS)
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            while some := list(itertools.islice(remaining, BATCH)):
                yield from zip(some, pool.map(transformed, some), strict=True)

    def _classified(
        self, batch: list[tuple[ImageSource, np.ndarray | ImageError]], top: int
    ) -> list[Prediction]:
        ranked = iter(self([image for _, image in batch if isinstance(image, np.ndarray)], top))
        return [
            Prediction(source, [], image)
            if isinstance(image, ImageError)
            else Prediction(source, next(ranked))
            for source, image in batch
        ]

    def explain(self, source: ImageSource, top: int = 5) -> Explanation:
        """Classifies an image and computes where in it each of the best classes is seen.

        The network runs once: the mean of a class map is the logit.

        Args:
            source: What `spec.transform` takes: a path, encoded bytes, a PIL image or a
                uint8 array.
            top: int. Classes to explain. Defaults to `5`.

        Returns:
            Explanation.

        Raises:
            BitKerasError: The classifier is an artifact without class maps.
            ImageError: The image cannot be read.

        Example:

        ```python
        predictor = bit_keras.inference.load_predictor("bit_tiny.cifar10")
        explanation = predictor.explain(np.zeros((60, 80, 3), "uint8"), top=3)
        bit_keras.inference.write_explanations([explanation], "explained.png")
        ```

        Reference:
            [Zhou et al., 2015](https://arxiv.org/abs/1512.04150).
        """
        if self.class_maps is None:
            raise BitKerasError(
                f"This artifact of {self.name} has no class maps; export the model again "
                "with --class-maps."
            )
        image = load_image(source)
        (maps,) = self.class_maps(self.spec.transform(image)[None])
        return explanation_of(source, image, self.spec, maps, top)


def load_predictor(
    source: str | os.PathLike | Source,
    size: int | None = None,
    trust: bool = False,
    allow_nonfinite: bool = False,
) -> Predictor:
    """Loads a classifier from wherever it is, with its own labels and transform.

    Args:
        source: A model name or alias; the folder of a fine-tuning run; an exported
            SavedModel, TFLite file, ONNX file or folder of OpenVINO IR; a `.keras`
            file; or weights of any format.
        size: int. Side of the images, at least 32. Defaults to what the classifier
            was made for.
        trust: bool. Take what runs code from the source, as
            `bit_keras.checkpoints.load_keras_model` and `bit_keras.artifacts.runtimes.open_program`
            describe. Defaults to `False`.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        Predictor.

    Raises:
        UnknownModelError: Neither a path nor a model name.
        SizeError: The classifier takes only images of another size, or no size is
            given or known.
        BitKerasError: The artifact cannot be read, or is not a classifier.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    model.save("tiny.keras")
    predictor = bit_keras.inference.load_predictor("tiny.keras")
    image = predictor.spec.transform(np.zeros((40, 50, 3), "uint8"))
    len(predictor([image], top=3)[0])  # 3
    ```
    """
    source = resolve(source)
    if source.is_program:
        return _from_program(source, size, trust)
    return _from_keras(source, size, trust, allow_nonfinite)


def _from_keras(source: Source, size: int | None, trust: bool, allow_nonfinite: bool) -> Predictor:
    import keras

    from bit_keras.models import create_class_maps

    model, spec = load_network(source, trust, allow_nonfinite)
    layers = {layer.name: layer for layer in model.layers}
    if "head" not in layers:
        raise BitKerasError(
            f"{source.name} returns features, not classes. Put a Dense layer after it in a "
            "keras.Sequential and train that, or build it with create_classifier; then save it."
        )
    # What follows the head turns logits into scores, which decoding does itself.
    logits = keras.Model(model.input, layers["head"].output)
    maps = create_class_maps(model) if "features" in layers else None
    takes_pixels = "rescaling" in layers

    def results(network: keras.Model, images: np.ndarray) -> np.ndarray:
        inputs = (images + 1.0) * np.float32(127.5) if takes_pixels else images
        return keras.ops.convert_to_numpy(network.predict_on_batch(inputs))

    name = checkpoint_of(model)
    spec = spec_for(name, spec, logits.output_shape[-1], network_side(model.input_shape), size)
    return Predictor(
        name,
        spec,
        functools.partial(results, logits),
        functools.partial(results, maps) if maps else None,
    )


def _from_program(source: Source, size: int | None, trust: bool) -> Predictor:
    assert source.path is not None
    artifact = Artifact(source.path)
    path, metadata = artifact.path, artifact.metadata
    if metadata.variant != "classification":
        raise BitKerasError(
            f"{path} returns features, not classes; export it with --variant classification."
        )
    if source.format in CHECKED and not has_checksums(path):
        require_runs(path, "bit_keras.artifacts.runtimes.opening:run_once", _LIBRARIES)
    program = artifact.open_program(trust=trust)
    signature, of_maps = _signature_with(program, _LOGITS), _signature_with(program, CLASS_MAPS)
    if signature is None:
        raise BitKerasError(f"{path} has no output {_LOGITS}; export the model again.")
    low, high = metadata.input_range

    def result(signature: str, output: str, images: np.ndarray) -> np.ndarray:
        inputs = low + (images + 1.0) * np.float32((high - low) / 2.0)
        if program.signatures[signature].input_dtype == "uint8":
            inputs = np.clip(np.rint(inputs), 0, 255).astype(np.uint8)
        return program(inputs, signature)[output]

    side = network_side(program.signatures[signature].input_shape)
    return Predictor(
        metadata.model,
        spec_for(metadata.model, metadata.spec, metadata.outputs, side, size),
        functools.partial(result, signature, _LOGITS),
        functools.partial(result, of_maps, CLASS_MAPS) if of_maps else None,
    )


def _signature_with(program: Program, output: str) -> str | None:
    """The first signature with an output of this name, if there is one."""
    signatures = program.signatures.items()
    return next((name for name, signature in signatures if output in signature.outputs), None)
