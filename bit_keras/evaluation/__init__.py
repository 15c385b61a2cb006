"""How good a classifier is on labelled images: measured, and written down."""

from bit_keras.evaluation.classes import match_classes as match_classes
from bit_keras.evaluation.metrics import ClassResult as ClassResult
from bit_keras.evaluation.metrics import Evaluation as Evaluation
from bit_keras.evaluation.metrics import Mistake as Mistake
from bit_keras.evaluation.metrics import evaluate as evaluate
from bit_keras.evaluation.report import write_report as write_report
