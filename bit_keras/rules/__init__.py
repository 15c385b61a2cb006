"""Training recipes as data, and as the learning rate of any Keras optimizer.

Not part of `training`, which needs TensorFlow: a `.keras` file that was compiled with a rule loads
where only Keras is, on every backend.
"""

from bit_keras.rules.rules import Rule as Rule
from bit_keras.rules.rules import big_vision_rule as big_vision_rule
from bit_keras.rules.rules import hyper_rule as hyper_rule
from bit_keras.rules.rules import scratch_rule as scratch_rule
from bit_keras.rules.schedule import RuleSchedule as RuleSchedule
