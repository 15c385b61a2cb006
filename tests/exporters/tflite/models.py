"""TFLite models as TensorFlow's converter leaves them, made once for all tests of a process."""

import functools
import warnings

import numpy as np
import tensorflow as tf

from bit_keras.exporters.outputs import ExportedNetwork
from bit_keras.exporters.tflite.interface import with_signatures
from bit_keras.exporters.tflite.layers import CentredGroupNorm
from bit_keras.layers import GroupNorm
from bit_keras.models import create_classifier
from bit_keras.models.folding import clone_with, fold_weight_standardization
from bit_keras.preprocessing import eval_transform
from tests.cifar10 import SAMPLES

NAME = "bit_tiny.cifar10"
SIZE = 64
#: What `bit-keras export` is told, by the name that a form has on the page of clients.
FORMS = {
    "tflite": {},
    "tflite --quantize float16": {"quantize": "float16"},
    "tflite --quantize dynamic": {"quantize": "dynamic"},
    "tflite --quantize int8": {"quantize": "int8"},
    "tflite --quantize int8-pure": {"quantize": "int8-pure"},
    "tflite --size dynamic": {"size": "dynamic"},
    "tflite --class-maps": {"class_maps": True},
}

SIGNATURES = ("serving_default", "features")


@functools.cache
def network():
    """The trained network, folded, with both outputs."""
    return ExportedNetwork(fold_weight_standardization(create_classifier(NAME))).graph()


@functools.cache
def photos():
    """The ten samples as uint8 pixels of the size that the network takes."""
    images = np.stack([eval_transform(NAME)(path) for path in sorted(SAMPLES.glob("*.jpg"))])
    return np.rint((images + 1) * 127.5).astype("uint8")


@functools.cache
def results():
    """Features and probabilities of the images by Keras, in float32."""
    features, logits = network()(photos() / np.float32(127.5) - 1, training=False)
    return features.numpy(), tf.nn.softmax(logits).numpy()


@functools.cache
def model_of(quantize):
    """The network with all its outputs, quantised only by the converter, and signatures."""
    both = in_integers(network()) if quantize == "int8-pure" else network()

    def outputs(inputs):
        features, logits = both(inputs, training=False)
        return {"features": features, "logits": logits, "probabilities": tf.nn.softmax(logits)}

    return with_signatures(converted(outputs, quantize, variables=both.variables), SIGNATURES)


@functools.cache
def extractor():
    """A model in float32 whose only output is the features."""

    def features(inputs):
        return {"features": network()(inputs, training=False)[0]}

    return with_signatures(converted(features, "none", variables=network().variables), SIGNATURES)


def in_integers(both):
    def swap(layer):
        layer_class = CentredGroupNorm if isinstance(layer, GroupNorm) else layer.__class__
        return layer_class.from_config(layer.get_config())

    copy = clone_with(both, swap)
    copy.set_weights(both.get_weights())
    return copy


def converted(function, quantize, shape=(1, SIZE, SIZE, 3), variables=()):
    """What the converter makes of a function; it loses the signature if variables are missing."""
    spec = tf.TensorSpec(shape, tf.float32, name="inputs")
    concrete = tf.function(function, input_signature=[spec], autograph=False)
    holder = tf.train.Checkpoint()
    holder.kept = [variable.value for variable in variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [concrete.get_concrete_function()], holder
    )
    if quantize != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize == "flex":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    if quantize in ("int8-pure", "int8-and-float"):
        converter.representative_dataset = lambda: (
            [image[None] / np.float32(127.5) - 1] for image in photos()
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if quantize == "int8-and-float":
            converter.target_spec.supported_ops.append(tf.lite.OpsSet.TFLITE_BUILTINS)
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    with warnings.catch_warnings():
        # The converter says so of every calibrated model.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs were expected")
        return converter.convert()
