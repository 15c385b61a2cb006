"""The rules against numbers written down from their sources."""

import dataclasses
import json
import math

import pytest

from bit_keras.errors import TrainingError
from bit_keras.rules.rules import Rule, big_vision_rule, hyper_rule, scratch_rule

SMALL, OTHER = (32, 32), (224, 224)

# Images, then step and learning rate: big_transfer, `bit_hyperrule.py`.
REFERENCE = {
    19_999: {
        0: 0.0,
        1: 0.00003,
        99: 0.00297,
        100: 0.003,
        200: 0.003,
        201: 0.0003,
        300: 0.0003,
        301: 0.00003,
        400: 0.00003,
        401: 0.000003,
        499: 0.000003,
    },
    20_000: {
        0: 0.0,
        1: 0.000006,
        499: 0.002994,
        500: 0.003,
        3_000: 0.003,
        3_001: 0.0003,
        6_000: 0.0003,
        6_001: 0.00003,
        9_000: 0.00003,
        9_001: 0.000003,
        9_999: 0.000003,
    },
    500_000: {
        0: 0.0,
        500: 0.003,
        6_000: 0.003,
        6_001: 0.0003,
        12_000: 0.0003,
        12_001: 0.00003,
        18_000: 0.00003,
        18_001: 0.000003,
        19_999: 0.000003,
    },
}
REFERENCE[1] = REFERENCE[19_999]
REFERENCE[499_999] = REFERENCE[20_000]

STEPS = {1: 500, 19_999: 500, 20_000: 10_000, 499_999: 10_000, 500_000: 20_000}


@pytest.mark.parametrize("examples", REFERENCE)
def test_hyper_rule_has_the_published_steps_and_learning_rates(examples):
    rule = hyper_rule(examples, SMALL)
    assert rule.steps == STEPS[examples]
    for step, expected in REFERENCE[examples].items():
        # Products and quotients of a few numbers in double precision.
        assert rule.learning_rate_at(step) == pytest.approx(expected, rel=1e-12), step


def original_learning_rate(step, examples, base=0.003):
    """The original's procedure, told again in plain Python."""
    if examples < 20_000:
        supports = [100, 200, 300, 400, 500]
    elif examples < 500_000:
        supports = [500, 3000, 6000, 9000, 10_000]
    else:
        supports = [500, 6000, 12_000, 18_000, 20_000]
    if step < supports[0]:
        return base * step / supports[0]
    if step >= supports[-1]:
        return None
    rate = base
    for support in supports[1:]:
        if support < step:
            rate /= 10
    return rate


@pytest.mark.parametrize("examples", [10, 19_999, 20_000, 499_999, 500_000])
def test_hyper_rule_agrees_with_the_original_at_every_step(examples):
    rule = hyper_rule(examples, SMALL)
    for step in range(rule.steps):
        expected = original_learning_rate(step, examples)
        assert math.isclose(rule.learning_rate_at(step), expected, rel_tol=1e-12), step
    assert original_learning_rate(rule.steps, examples) is None
    assert rule.learning_rate_at(rule.steps + 7) == rule.learning_rate_at(rule.steps - 1)


def test_the_rest_of_the_hyper_rule():
    rule = hyper_rule(19_999, SMALL)
    assert (rule.momentum, rule.nesterov, rule.weight_decay, rule.clip_norm) == (
        0.9,
        False,
        0,
        None,
    )
    assert (rule.batch, rule.learning_rate, rule.crop, rule.flip) == (512, 0.003, "random", True)
    assert rule.mixup_alpha == 0.0
    assert hyper_rule(20_000, SMALL).mixup_alpha == 0.1
    assert hyper_rule(500_000, SMALL).mixup_alpha == 0.1


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [
        ((32, 32), (160, 128)),
        ((95, 97), (160, 128)),  # 9,215 pixels.
        ((96, 96), (512, 480)),
        ((10, 1000), (512, 480)),
        ((224, 224), (512, 480)),
    ],
)
def test_the_size_follows_the_area_of_the_images(image_size, expected):
    rule = hyper_rule(100, image_size)
    assert (rule.precrop, rule.size) == expected


def test_the_paper_differs_in_size_and_in_drops():
    paper = hyper_rule(100, OTHER, variant="paper")
    assert (paper.precrop, paper.size) == (448, 384)
    assert paper.boundaries == (150, 300, 450)
    largest = hyper_rule(100, OTHER, variant="paper", architecture="bit_r152x4")
    assert (largest.precrop, largest.size) == (512, 480)
    small = hyper_rule(100, SMALL, variant="paper")
    assert (small.precrop, small.size) == (160, 128)
    assert hyper_rule(20_000, OTHER, variant="paper").boundaries == (3_000, 6_000, 9_000)
    assert hyper_rule(500_000, OTHER, variant="paper").boundaries == (6_000, 12_000, 18_000)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [(32, 0.00025), (128, 0.001), (256, 0.002), (384, 0.003), (511, 0.003), (512, 0.003)],
)
def test_a_smaller_batch_scales_the_learning_rate_through_both_published_pairs(batch, expected):
    rule = hyper_rule(100, SMALL, batch=batch)
    assert rule.learning_rate == pytest.approx(expected, rel=1e-12)
    assert (rule.steps, rule.warmup_steps, rule.boundaries) == (500, 100, (200, 300, 400))


def test_a_larger_batch_changes_nothing():
    assert hyper_rule(100, SMALL, batch=1024).learning_rate == 0.003


def test_a_rule_explains_itself():
    text = hyper_rule(4_500, SMALL, batch=32).explain()
    assert "4,500 training images are fewer than 20,000: a small task, 500 steps" in text
    assert "Images of 32x32 pixels are smaller than 96x96" in text
    assert "the learning rate is 0.00025 instead of 0.003" in text
    assert "see 16,000 images instead of 256,000" in text
    assert "fewer than 500,000: a medium task" in hyper_rule(20_000, OTHER).explain()
    assert "500,000 or more: a large task" in hyper_rule(500_000, OTHER).explain()


def test_other_steps_scale_the_warm_up_and_the_drops():
    rule = hyper_rule(100, SMALL).with_steps(50)
    assert (rule.steps, rule.warmup_steps, rule.boundaries) == (50, 10, (20, 30, 40))
    assert "50 steps were requested instead of 500" in rule.explain()
    assert hyper_rule(100, SMALL).with_steps(1).learning_rate_at(0) == 0.003


def test_other_wishes_change_what_they_name():
    rule = hyper_rule(100, SMALL)
    assert (rule.with_size(64).size, rule.with_size(64).precrop) == (64, 80)
    assert rule.with_learning_rate(0.1).learning_rate == 0.1
    assert rule.with_mixup(0.2).mixup_alpha == 0.2


def test_the_big_vision_rule():
    small, medium, large = (big_vision_rule(n) for n in (19_999, 20_000, 500_000))
    assert [rule.steps for rule in (small, medium, large)] == [500, 10_000, 20_000]
    assert [rule.warmup_steps for rule in (small, medium, large)] == [100, 500, 500]
    assert (medium.learning_rate, medium.clip_norm, medium.mixup_alpha) == (0.01, 1.0, 0.0)
    assert (medium.precrop, medium.size) == (448, 384)
    assert medium.learning_rate_at(500) == 0.01
    assert medium.learning_rate_at(5_250) == pytest.approx(0.005)
    assert medium.learning_rate_at(9_999) < 1e-8


def test_the_rule_for_random_weights():
    rule = scratch_rule(49_000, size=64, batch=256, epochs=30)
    assert (rule.steps, rule.warmup_steps) == (5_742, 574)
    assert (rule.learning_rate, rule.precrop, rule.evaluation_side, rule.size) == (0.2, 72, 72, 64)
    assert "this project's own" in rule.explain()


@pytest.mark.parametrize("rule", [hyper_rule(100, SMALL), big_vision_rule(5), scratch_rule(9, 32)])
def test_a_rule_comes_back_from_json(rule):
    document = json.loads(json.dumps(rule.to_json()))
    assert Rule.from_json(document) == rule
    assert dataclasses.replace(rule, steps=7) != rule


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: hyper_rule(0, SMALL),
        lambda: hyper_rule(10, (0, 5)),
        lambda: hyper_rule(10, SMALL, batch=0),
        lambda: hyper_rule(10, SMALL, variant="book"),
        lambda: hyper_rule(10, SMALL).with_steps(0),
        lambda: hyper_rule(10, SMALL).with_learning_rate(math.nan),
        lambda: hyper_rule(10, SMALL).with_learning_rate(-1.0),
        lambda: hyper_rule(10, SMALL).with_mixup(-0.1),
        lambda: scratch_rule(10, 32, epochs=0),
    ],
)
def test_invalid_arguments_are_an_error(wrong):
    with pytest.raises(TrainingError, match="Received: "):
        wrong()
