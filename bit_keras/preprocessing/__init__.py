"""From a picture to the network's input, and from its logits to names."""

from bit_keras.preprocessing.decoding import DecodingError, decode_predictions
from bit_keras.preprocessing.evaluation import (
    EvalTransform,
    SizeError,
    eval_transform,
    load_image,
)
from bit_keras.preprocessing.labels import Labels, UnknownLabelsError, load_labels

__all__ = [
    "DecodingError",
    "EvalTransform",
    "Labels",
    "SizeError",
    "UnknownLabelsError",
    "decode_predictions",
    "eval_transform",
    "load_image",
    "load_labels",
]
