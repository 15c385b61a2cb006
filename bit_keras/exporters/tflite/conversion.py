"""From a network to the bytes of a TFLite model."""

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from bit_keras.artifacts.metadata import CALIBRATED, Metadata
from bit_keras.artifacts.reference import reference_size
from bit_keras.errors import ExportError
from bit_keras.exporters.outputs import ExportedNetwork, apply_level
from bit_keras.exporters.serving_signatures import ACTIVATIONS, rescaled
from bit_keras.exporters.tflite.int8_rounding import (
    Ranges,
    observed_ranges,
    rounded,
    rounded_features,
)
from bit_keras.exporters.tflite.interface import with_batch_of_one, with_default_size
from bit_keras.exporters.tflite.layers import CentredGroupNorm, ConvolutionHead, with_layers
from bit_keras.layers import GroupNorm
from bit_keras.models.folding import fold_weight_standardization
from bit_keras.progress import without_native_notes
from bit_keras.registry import RGB


def converted(
    network: ExportedNetwork,
    metadata: Metadata,
    calibration: np.ndarray | None,
) -> bytes:
    """The model in TFLite's format, without any metadata.

    Args:
        network: ExportedNetwork.
        metadata: Metadata. Of the artifact: precision, input range and size.
        calibration: float32 array `(n, size, size, 3)` in [-1, 1], for `int8` and
            `int8-pure`.

    Raises:
        ExportError: TensorFlow cannot convert it.
    """
    folded, ranges = fold_weight_standardization(network.model, allow_nonfinite=True), None
    if metadata.precision == "int8":
        assert calibration is not None  # `export_tflite` has looked.
        ranges = observed_ranges(folded, calibration)
        folded = rounded(folded, ranges)
    elif metadata.precision == "int8-pure":
        folded = with_layers(folded, {GroupNorm: CentredGroupNorm})
    elif metadata.precision == "dynamic" or network.levels:
        folded = with_layers(folded, {keras.layers.Dense: ConvolutionHead})
    converter = _converter(network.with_model(folded), metadata, ranges)
    _quantise(converter, metadata.precision, calibration)
    try:
        with without_native_notes():
            content = converter.convert()
    # The converter raises whatever its passes in C++ do.
    except Exception as error:
        raise ExportError(
            f"{network.model.name} cannot be converted to TFLite in {metadata.precision} "
            f"({' '.join(str(error).split())[:300]})."
        ) from error
    if metadata.size is not None:
        return with_batch_of_one(content)
    height, _ = reference_size(network.model.input_shape, metadata)
    return with_default_size(content, height)


def _converter(
    network: ExportedNetwork,
    metadata: Metadata,
    ranges: Mapping[str, Ranges] | None,
) -> tf.lite.TFLiteConverter:
    """The converter of the one function that returns all outputs."""
    size, spec = metadata.size, metadata.spec
    graph = network.graph()
    # 8-bit images are brought to the range of the network by the scale of their tensor.
    scale = (-1.0, 1.0) if metadata.takes_pixels else metadata.input_range

    def serving_default(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features, outputs, *sources = graph(rescaled(inputs, scale), training=False)
        if ranges is not None:
            features = rounded_features(features, ranges)
        if spec is None:
            return {"features": features}
        activation = ACTIVATIONS[spec.activation]
        results = {"logits": outputs, "probabilities": activation(outputs), "features": features}
        for name, source in zip(network.levels, sources, strict=True):
            results[name] = apply_level(name, network.model, source)
        return results

    function = tf.function(
        serving_default,
        input_signature=[tf.TensorSpec((None, size, size, RGB), tf.float32, name="inputs")],
        autograph=False,
    )
    # A Keras model in this place makes files that fail or give NaN: it is not a `tf.Module`.
    holder = tf.train.Checkpoint()
    holder.variables = [variable.value for variable in graph.variables]
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], holder
    )


def _quantise(
    converter: tf.lite.TFLiteConverter, precision: str, calibration: np.ndarray | None
) -> None:
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision == "float32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in CALIBRATED:
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    if precision == "int8-pure":
        assert calibration is not None  # `export_tflite` has looked.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([image[None]] for image in calibration)
