"""The schedule that Keras takes, against the rule in plain Python."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from bit_keras.rules.rules import big_vision_rule, hyper_rule, scratch_rule
from bit_keras.training import RuleSchedule
from bit_keras.training.loop import compile_for

RULES = [
    hyper_rule(100, (32, 32)),
    hyper_rule(20_000, (32, 32)),
    hyper_rule(500_000, (32, 32)),
    hyper_rule(100, (32, 32)).with_steps(1),
    big_vision_rule(100),
    scratch_rule(1_000, size=32),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.name}, {rule.steps}")
def test_the_schedule_is_the_rule(rule):
    schedule = RuleSchedule(rule)
    near = [bound + offset for bound in rule.boundaries for offset in (-1, 0, 1)]
    steps = [0, 1, rule.warmup_steps - 1, rule.warmup_steps, *near, rule.steps - 1, rule.steps + 9]
    for step in (step for step in steps if step >= 0):
        expected = rule.learning_rate_at(step)
        # The cosine near its end is 1 minus almost 1 in float32; elsewhere float32's rounding.
        tolerance = {"rel": 1e-6, "abs": 1e-7 * rule.learning_rate}
        assert float(schedule(step)) == pytest.approx(expected, **tolerance), step
        assert float(schedule(ops.convert_to_tensor(step, "int32"))) == float(schedule(step))


def test_the_schedule_counts_steps_and_not_their_parts():
    rule = hyper_rule(100, (32, 32))
    schedule, parts = RuleSchedule(rule), RuleSchedule(rule, micro_batches=4)
    for call in (0, 3, 4, 403, 804, 807, 1999):
        assert float(parts(call)) == float(schedule(call // 4))


def test_an_optimizer_with_the_schedule_is_serialisable():
    rule = hyper_rule(100, (32, 32))
    optimizer = keras.optimizers.SGD(RuleSchedule(rule, micro_batches=2))
    document = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    again = keras.optimizers.deserialize(document)
    assert again._learning_rate.rule == rule
    assert again._learning_rate.micro_batches == 2


def test_the_weight_decay_acts_like_a_gradient_of_5e_4_times_the_weight():
    # A constant learning rate and no other gradient: the loss is 0 times the output.
    rule = scratch_rule(100, size=32)
    rate, steps = 0.05, 400
    decoupled = keras.optimizers.SGD(rate, momentum=0.9, weight_decay=rule.weight_decay)
    by_gradient = keras.optimizers.SGD(rate, momentum=0.9)
    one, other = keras.Variable([1.0]), keras.Variable([1.0])
    for _ in range(steps):
        decoupled.apply([ops.zeros(1)], [one])
        by_gradient.apply([5e-4 * ops.convert_to_tensor(other)], [other])
    got, expected = float(ops.convert_to_numpy(one)[0]), float(ops.convert_to_numpy(other)[0])
    assert expected == pytest.approx(0.907, abs=0.01)  # exp(-0.05 * 5e-4 * 10 * 400) = 0.905
    # The momentum takes about 10 of the 400 steps to build up.
    assert np.log(got) == pytest.approx(np.log(expected), rel=0.03)


def test_only_kernels_decay():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, bias_initializer="ones")(inputs))
    optimizer = compile_for(model, scratch_rule(100, size=32))
    assert [optimizer._use_weight_decay(v) for v in model.trainable_variables] == [True, False]
