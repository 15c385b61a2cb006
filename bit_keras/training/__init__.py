"""Fine-tuning with rules, resumable at any time."""

from bit_keras.rules import Rule as Rule
from bit_keras.rules import RuleSchedule as RuleSchedule
from bit_keras.rules import hyper_rule as hyper_rule
from bit_keras.training.finetuning import FineTuned as FineTuned
from bit_keras.training.finetuning import finetune as finetune
from bit_keras.training.loop import Interrupted as Interrupted
from bit_keras.training.run import load_run as load_run
