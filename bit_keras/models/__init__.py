"""The network, the functions that build Keras models from it, and folding."""

from bit_keras.models.builders import create_classifier as create_classifier
from bit_keras.models.builders import create_feature_extractor as create_feature_extractor
from bit_keras.models.builders import create_feature_maps as create_feature_maps
from bit_keras.models.class_maps import create_class_maps as create_class_maps
from bit_keras.models.folding import fold_weight_standardization as fold_weight_standardization
from bit_keras.models.own_head import with_own_head as with_own_head
