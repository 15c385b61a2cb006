"""From a network to the bytes of a TFLite model."""

from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from bit_keras.artifacts.metadata import CALIBRATED, Metadata
from bit_keras.artifacts.reference import reference_size
from bit_keras.artifacts.runtimes.program import CLASS_MAPS
from bit_keras.errors import ExportError
from bit_keras.exporters.saved_model import features_and_outputs
from bit_keras.exporters.serving_signatures import ACTIVATIONS, rescaled
from bit_keras.exporters.tflite.centred_group_norm import CentredGroupNorm
from bit_keras.exporters.tflite.convolution_head import ConvolutionHead
from bit_keras.exporters.tflite.int8_rounding import (
    Ranges,
    observed_ranges,
    rounded,
    rounded_features,
)
from bit_keras.exporters.tflite.shapes import with_batch_of_one, with_default_size
from bit_keras.layers import GroupNorm
from bit_keras.models.folding import clone_with, copy_state, fold_weight_standardization
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.progress import without_native_notes
from bit_keras.registry import RGB


def converted(
    model: keras.Model,
    metadata: Metadata,
    spec: ClassifierSpec | None,
    calibration: np.ndarray | None,
    class_maps: bool = False,
) -> bytes:
    """The model in TFLite's format, without any metadata.

    Args:
        model: keras.Model from a builder.
        metadata: Metadata. Of the artifact: precision, input range and size.
        spec: ClassifierSpec, or None for a feature extractor.
        calibration: float32 array `(n, size, size, 3)` in [-1, 1], for `int8` and
            `int8-pure`.
        class_maps: bool. Whether `class_maps` are an output.

    Raises:
        ExportError: TensorFlow cannot convert it.
    """
    network, ranges = fold_weight_standardization(model, allow_nonfinite=True), None
    if metadata.precision == "int8":
        assert calibration is not None  # `export_tflite` has looked.
        ranges = observed_ranges(network, calibration)
        network = rounded(network, ranges)
    elif metadata.precision == "int8-pure":
        network = _with(network, GroupNorm, CentredGroupNorm)
    elif metadata.precision == "dynamic" or class_maps:
        network = _with(network, keras.layers.Dense, ConvolutionHead)
    converter = _converter(network, metadata, spec, ranges, class_maps)
    _quantise(converter, metadata.precision, calibration)
    try:
        with without_native_notes():
            content = converter.convert()
    # The converter raises whatever its passes in C++ do.
    except Exception as error:
        raise ExportError(
            f"{model.name} cannot be converted to TFLite with --quantize {metadata.precision} "
            f"({' '.join(str(error).split())[:300]})."
        ) from error
    if metadata.size is not None:
        return with_batch_of_one(content)
    height, _ = reference_size(model.input_shape, metadata)
    return with_default_size(content, height)


def _with(
    network: keras.Model, kind: type[keras.layers.Layer], other: type[keras.layers.Layer]
) -> keras.Model:
    """A copy with another class in place of one, which computes the same."""

    def swap(layer: keras.layers.Layer) -> keras.layers.Layer:
        swapped = other if type(layer) is kind else type(layer)
        return swapped.from_config(layer.get_config())

    copy = clone_with(network, swap)
    copy_state(network, copy)
    return copy


def _converter(
    network: keras.Model,
    metadata: Metadata,
    spec: ClassifierSpec | None,
    ranges: Mapping[str, Ranges] | None,
    class_maps: bool,
) -> tf.lite.TFLiteConverter:
    """The converter of the one function that gives all outputs."""
    size = metadata.size
    both = features_and_outputs(network, class_maps)
    # 8-bit images are brought to the range of the network by the scale of their tensor.
    scale = (-1.0, 1.0) if metadata.takes_pixels else metadata.input_range

    def serving_default(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        features, outputs, *maps = both(rescaled(inputs, scale), training=False)
        if ranges is not None:
            features = rounded_features(features, ranges)
        if spec is None:
            return {"features": features}
        activation = ACTIVATIONS[spec.activation]
        results = {"logits": outputs, "probabilities": activation(outputs), "features": features}
        if class_maps:
            results[CLASS_MAPS] = network.get_layer("head")(*maps)
        return results

    function = tf.function(
        serving_default,
        input_signature=[tf.TensorSpec((None, size, size, RGB), tf.float32, name="inputs")],
        autograph=False,
    )
    # A Keras model in this place makes files that fail or give NaN: it is no `tf.Module`.
    holder = tf.train.Checkpoint()
    holder.variables = [variable.value for variable in both.variables]
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
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _one_by_one(calibration)


def _one_by_one(images: np.ndarray | None) -> Iterator[list[np.ndarray]]:
    assert images is not None  # `export_tflite` has looked.
    for image in images:
        yield [image[None]]
