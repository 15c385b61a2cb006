"""The outputs of an exported network, by name: those of every network and further levels."""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np

from bit_keras.artifacts.metadata import OUTPUTS, Metadata, Variant
from bit_keras.artifacts.reference import REFERENCE_CLASSES, reference_images, reference_size
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.errors import ExportError
from bit_keras.layers.moments import Tensor


class Level(NamedTuple):
    """How a further output is computed.

    Attributes:
        source: str. The layer whose input it is computed from.
        layer: str. The layer that is applied to that.
    """

    source: str
    layer: str


#: The outputs that only some artifacts have, next to `features` and what the variant returns.
LEVELS = {CLASS_MAPS: Level(source="features", layer="head")}


#: The last layer of what the builders return, by variant.
_LAST_LAYERS: dict[str, Variant] = {"head": "classification", "features": "feature_extraction"}


@dataclasses.dataclass(frozen=True)
class ExportedNetwork:
    """A network and the further output levels that its artifact has.

    Attributes:
        model: keras.Model from `create_classifier` or `create_feature_extractor`.
        levels: tuple of str. Names in `LEVELS`.
    """

    model: keras.Model
    levels: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: "keras.Model | ExportedNetwork") -> "ExportedNetwork":
        """The network that is exported, without further levels where a model is given."""
        return model if isinstance(model, cls) else cls(model)

    def with_model(self, model: keras.Model) -> "ExportedNetwork":
        """The same levels of another model with the same layers."""
        return dataclasses.replace(self, model=model)

    def graph(self) -> keras.Model:
        """The same network with all outputs: pooled features, what the model returns, and the
        source of each further level, in their order.

        `apply_level` turns a source into the output, so that a caller of other outputs does
        not compute it.
        """
        layers = self.model.get_layer
        sources = (layers(LEVELS[name].source).input for name in self.levels)
        outputs = (layers("features").output, self.model.output, *sources)
        return keras.Model(self.model.input, outputs, name=self.model.name)


def variant_of(model: keras.Model, target: str) -> Variant:
    """The variant of a model from a builder: with a head, or without.

    Raises:
        ExportError: The model is not one of a builder, or takes pixels in [0, 255].
    """
    last = model.layers[-1].name
    if last not in _LAST_LAYERS:
        raise ExportError(
            f"The last layer of {model.name} is {last!r}; the target {target} takes the models of "
            "create_classifier (without an activation) and create_feature_extractor. "
            "bit_keras.models.with_own_head turns a feature extractor with a Dense layer of your "
            "own into such a classifier."
        )
    if any(layer.name == "rescaling" for layer in model.layers):
        raise ExportError(
            f"{model.name} takes pixels in [0, 255]; build it without include_preprocessing, and "
            "choose the range of the artifact with input_range."
        )
    return _LAST_LAYERS[last]


def apply_level(name: str, model: keras.Model, source: Tensor) -> Tensor:
    """Computes a further output from its source, with the layer of a model."""
    return model.get_layer(LEVELS[name].layer)(source)


def reference_outputs(network: ExportedNetwork, metadata: Metadata) -> dict[str, np.ndarray]:
    """Computes reference images for an artifact, and the outputs of the float32 network for them.

    Returns:
        dict of arrays: `inputs` in the range of the artifact, uint8 where it takes
        pixels; `features`; `logits` of a classifier; and of each further level the first
        classes.
    """
    model = network.model
    height, width = reference_size(model.input_shape, metadata)
    channels = model.input_shape[-1]
    features, outputs, *sources = network.graph()(
        reference_images(height, width, (-1.0, 1.0), channels), training=False
    )
    inputs = reference_images(height, width, metadata.input_range, channels)
    results = {
        "inputs": np.rint(inputs).astype("uint8") if metadata.takes_pixels else inputs,
        "features": features.numpy(),
        OUTPUTS[metadata.variant]: outputs.numpy(),
    }
    for name, source in zip(network.levels, sources, strict=True):
        results[name] = apply_level(name, model, source).numpy()[..., :REFERENCE_CLASSES]
    return results
