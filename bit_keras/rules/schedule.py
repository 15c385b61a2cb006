"""The learning rate of a rule as a Keras schedule."""

from typing import Any

import keras
import numpy as np
from keras import ops

from bit_keras.layers.moments import Tensor
from bit_keras.rules.rules import Rule


@keras.saving.register_keras_serializable("bit_keras")
class RuleSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of a `Rule` as a Keras schedule.

    After the last step the learning rate stays constant.

    Args:
        rule: Rule, or the document of its `to_json`.
        micro_batches: int. Number of optimizer calls per step, if
            `gradient_accumulation_steps` is used: Keras counts each call. Defaults to `1`.

    Call arguments:
        step: int or integer tensor, counted from 0.

    Returns:
        float32 scalar, when called.

    Example:

    ```python
    rule = bit_keras.training.hyper_rule(4500, image_size=(32, 32))
    schedule = bit_keras.training.RuleSchedule(rule)
    [round(float(schedule(step)), 6) for step in (0, 50, 100, 200, 201)]
    # [0.0, 0.0015, 0.003, 0.003, 0.0003]
    ```
    """

    def __init__(self, rule: Rule | dict[str, Any], micro_batches: int = 1) -> None:
        super().__init__()
        self.rule = Rule.from_json(rule) if isinstance(rule, dict) else rule
        self.micro_batches = micro_batches

    def __call__(self, step: Tensor) -> Tensor:
        rule = self.rule
        step = ops.floor_divide(ops.cast(step, "int32"), self.micro_batches)
        step = ops.clip(step, 0, rule.steps - 1)
        exact = ops.cast(step, "float32")
        if rule.schedule == "step":
            drops = [ops.cast(step > boundary, "float32") for boundary in rule.boundaries]
            factor = ops.power(0.1, sum(drops, start=ops.zeros(())))
        else:
            rest = max(rule.steps - rule.warmup_steps, 1)
            done = (exact - rule.warmup_steps) / rest
            factor = 0.5 * (1.0 + ops.cos(np.pi * done))
        if rule.warmup_steps:
            rising = exact / rule.warmup_steps
            factor = ops.where(step < rule.warmup_steps, rising, factor)
        return rule.learning_rate * factor

    def get_config(self) -> dict[str, Any]:
        return {"rule": self.rule.to_json(), "micro_batches": self.micro_batches}
