"""Evaluation of classifiers on labelled images, and reports."""

from bit_keras.evaluation.metrics import Evaluation as Evaluation
from bit_keras.evaluation.metrics import evaluate as evaluate
from bit_keras.evaluation.report import write_report as write_report
