"""Fine-tuning rules as data, and their learning rate schedule for Keras optimizers.

Separate from `training`, which needs TensorFlow: a `.keras` file that was compiled with a rule
loads on every backend.
"""

from bit_keras.rules.rules import Rule as Rule
from bit_keras.rules.rules import hyper_rule as hyper_rule
from bit_keras.rules.schedule import RuleSchedule as RuleSchedule
