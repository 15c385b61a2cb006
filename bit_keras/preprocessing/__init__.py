"""From an image to the network's input, and from its logits to class names."""

from bit_keras.preprocessing.classifier_spec import ClassifierSpec as ClassifierSpec
from bit_keras.preprocessing.classifier_spec import spec_of as spec_of
from bit_keras.preprocessing.decoding import decode_predictions as decode_predictions
from bit_keras.preprocessing.evaluation import EvalTransform as EvalTransform
from bit_keras.preprocessing.evaluation import eval_transform as eval_transform
from bit_keras.preprocessing.evaluation import load_image as load_image
from bit_keras.preprocessing.labels import Labels as Labels
from bit_keras.preprocessing.labels import load_labels as load_labels
from bit_keras.preprocessing.training import TrainTransform as TrainTransform
