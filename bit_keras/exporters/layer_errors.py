"""Where an artifact departs from Keras: the error of one layer after the other."""

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import keras
import numpy as np

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.metadata import OUTPUTS, Metadata
from bit_keras.artifacts.reference import relative_difference
from bit_keras.artifacts.runtimes import litert, onnx_runtime
from bit_keras.artifacts.runtimes.program import IMAGE_RANK, Intermediate
from bit_keras.errors import ExportError

#: What shows the results of the operations in an artifact, by its target.
_READERS: Mapping[str, Callable[[Path, np.ndarray], Iterator[Intermediate]]] = MappingProxyType(
    {"tflite": litert.intermediate_tensors, "onnx": onnx_runtime.intermediate_tensors}
)

#: Largest relative difference between the output that an artifact stores and the network that
#: it is compared with: another machine may sum float32 in another order.
_SAME_NETWORK = 1e-3

#: The layer that computes each output, whose tensor has the name of the output.
_LAYERS: Mapping[str, str] = MappingProxyType({"logits": "head", "features": "features"})

#: What stands between the names of layers in that of a tensor.
_SEPARATORS = re.compile("[/;:]")

#: What is added to the name of a layer: by Keras, where it is called again, and by ONNX
#: Runtime, where it quantises.
_ADDED = re.compile(r"(_\d+|_(Quantize|Dequantize)Linear_(Input|Output))+$")


@dataclasses.dataclass(frozen=True)
class LayerError:
    """How far the output of one layer is from that of Keras.

    Attributes:
        layer: str. Its name in the Keras network.
        dtype: str. What the artifact contains its output in.
        error: float. The root of the mean squared difference, divided by that of the
            mean square of what Keras computes.
    """

    layer: str
    dtype: str
    error: float


@dataclasses.dataclass(frozen=True)
class LayerErrors:
    """The errors of the layers whose output the artifact has, in the order of the network.

    Attributes:
        errors: tuple of LayerError.
        layers: int. How many layers the network has. Some are merged with their neighbour
            in the artifact, such as paddings and what a ReLU follows.
    """

    errors: tuple[LayerError, ...]
    layers: int


def layer_errors(artifact: str | os.PathLike, model: keras.Model) -> LayerErrors:
    """Compares a TFLite or ONNX artifact with its Keras network, layer by layer.

    Both compute the stored inputs of the artifact. An error includes those of the layers
    before it, so it is where it jumps that an artifact loses.

    Args:
        artifact: A TFLite or ONNX file that this package exported.
        model: keras.Model. The network in float32 with the weights that the artifact was
            exported from.

    Returns:
        LayerErrors.

    Raises:
        ExportError: Another type of artifact, other weights, a damaged file, or the package
            that runs it is missing.
    """
    opened = Artifact(artifact)
    artifact, metadata = opened.path, opened.metadata
    if metadata.target not in _READERS:
        raise ExportError(
            f"{artifact} is of the target {metadata.target}; the errors of layers are known of "
            f"{' and '.join(_READERS)}."
        )
    reference = opened.read_reference()
    low, high = metadata.input_range
    images = (reference["inputs"] - np.float32(low)) * np.float32(2.0 / (high - low)) - 1.0
    outputs = dict(_layer_outputs(model, images.astype(np.float32)))
    _require_same_network(artifact, metadata, reference, outputs)

    squares: dict[str, list[np.ndarray]] = {}
    dtypes: dict[str, str] = {}
    # One image at a time is what every file takes.
    for number, image in enumerate(reference["inputs"]):
        expected = {name: output[number : number + 1] for name, output in outputs.items()}
        tensors = _READERS[metadata.target](artifact, image[None])
        for name, tensor in _matched(tensors, expected).items():
            difference = tensor.values - expected[name]
            pair = np.array([np.square(difference).mean(), np.square(expected[name]).mean()])
            squares.setdefault(name, []).append(pair)
            dtypes[name] = tensor.dtype
    sums = {name: np.sum(squares[name], axis=0) for name in outputs if name in squares}
    errors = [
        LayerError(name, dtypes[name], float(np.sqrt(difference / expected)))
        for name, (difference, expected) in sums.items()
    ]
    return LayerErrors(errors=tuple(errors), layers=len(outputs))


def _layer_outputs(model: keras.Model, images: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """The output of every layer of a network and of the blocks in it, in their order."""
    x = images
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if not isinstance(layer, keras.Model):
            x = layer(x)
            yield layer.name, keras.ops.convert_to_numpy(x)
            continue
        inner = [one for one in layer.layers if not isinstance(one, keras.layers.InputLayer)]
        values = keras.Model(layer.inputs[0], [one.output for one in inner])(x, training=False)
        for one, value in zip(inner, values, strict=True):
            yield one.name, keras.ops.convert_to_numpy(value)
        x = values[-1]


def _require_same_network(
    artifact: Path,
    metadata: Metadata,
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
) -> None:
    output = OUTPUTS[metadata.variant]
    computed = outputs.get(_LAYERS[output], np.empty(0))
    if relative_difference(computed, reference[output]) > _SAME_NETWORK:
        raise ExportError(
            f"{artifact} was exported from other weights than those of the network that it is "
            "compared with; name with --against the model, run or file that it was exported from."
        )


def _matched(
    tensors: Iterable[Intermediate], outputs: Mapping[str, np.ndarray]
) -> dict[str, Intermediate]:
    """The tensor of each layer whose output an artifact has.

    A tensor is named after all layers that were merged into the operation that wrote it;
    it is the output of the last of them, and the others have none. Of the tensors of one
    layer the last one is its output.
    """
    order = {name: number for number, name in enumerate(outputs)}
    matched: dict[str, Intermediate] = {}
    merged: set[str] = set()
    for tensor in tensors:
        layers = sorted(_layers_in(tensor.name, order), key=order.__getitem__)
        if not layers:
            continue
        *others, layer = layers
        merged.update(others)
        values = _closest_layout(tensor.values, outputs[layer])
        if values is None:
            continue
        # The same numbers in another dtype: what wrote them is what matters.
        if layer not in matched or not np.array_equal(values, matched[layer].values):
            matched[layer] = dataclasses.replace(tensor, values=values)
    return {layer: tensor for layer, tensor in matched.items() if layer not in merged}


def _layers_in(name: str, layers: Collection[str]) -> set[str]:
    if name in _LAYERS:
        return {_LAYERS[name]} & set(layers)
    parts = _SEPARATORS.split(name)
    return {part for text in parts for part in (text, _ADDED.sub("", text)) if part in layers}


def _closest_layout(values: np.ndarray, output: np.ndarray) -> np.ndarray | None:
    """A tensor with its channels last, as Keras has them; None where it has another shape."""
    layouts = [values, np.moveaxis(values, 1, -1)] if values.ndim == IMAGE_RANK else [values]
    fitting = [layout for layout in layouts if layout.shape == output.shape]
    return min(fitting, key=lambda layout: np.abs(layout - output).mean(), default=None)
