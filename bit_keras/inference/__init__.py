"""Predictions from model names and artifacts."""

from bit_keras.inference.drawing import write_explanations as write_explanations
from bit_keras.inference.explain import Explanation as Explanation
from bit_keras.inference.network import load_network as load_network
from bit_keras.inference.predictor import Prediction as Prediction
from bit_keras.inference.predictor import Predictor as Predictor
from bit_keras.inference.predictor import load_predictor as load_predictor
