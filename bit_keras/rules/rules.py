"""Rules for fine-tuning as data: number of steps, learning rate, image size.

Sources: BT is `google-research/big_transfer`, `bit_hyperrule.py` and README; P1 the
paper, [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370), section 3.3; BV
`google-research/big_vision`, `configs/transfer.py`.
"""

import dataclasses
import math
from typing import Any, Literal

from bit_keras.errors import TrainingError

#: Minimum number of training images of a medium and of a large task (BT).
MEDIUM, LARGE = 20_000, 500_000

#: Length of the warm-up, the three drops, and the total number of steps (BT).
SUPPORTS = {
    "small": (100, 200, 300, 400, 500),
    "medium": (500, 3_000, 6_000, 9_000, 10_000),
    "large": (500, 6_000, 12_000, 18_000, 20_000),
}

#: Images with a smaller area are small (BT).
SMALL_AREA = 96 * 96

#: Sides of the resized image and of the crop, for small and for other images.
SMALL_SIZES = (160, 128)
CODE_SIZES = (512, 480)
PAPER_SIZES = (448, 384)

#: The only network that the paper fine-tunes at 480 pixels.
LARGEST_ARCHITECTURE = "bit_r152x4"

BASE_BATCH, BASE_LEARNING_RATE = 512, 0.003

#: The second published pair (BT), for one GPU. Smaller batches scale linearly from it.
SMALL_BATCH, SMALL_BATCH_LEARNING_RATE = 128, 0.001

MIXUP_ALPHA = 0.1

Variant = Literal["code", "paper"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """The hyperparameters of a training, with the reasons for their values.

    Attributes:
        name: str. Name of the rule.
        source: str. Source of the rule.
        batch: int. Images per step.
        steps: int. Total number of steps.
        warmup_steps: int. Steps in which the learning rate rises linearly from 0.
        boundaries: tuple of int. After each of these steps, the learning rate is
            divided by 10. Empty for `"cosine"`.
        learning_rate: float. Base learning rate, reached at the end of the warm-up.
        schedule: `"step"`, or `"cosine"`, which decays to zero at `steps`.
        precrop: int. Side in pixels to which images are resized before cropping.
        size: int. Side of the crop, the input size of the network.
        evaluation_side: int or None. Side to which evaluation images are resized
            before the central `size` is cropped. `None` resizes to `size` without a crop.
        crop: `"random"` or `"inception"`.
        flip: bool. Whether half of the images are mirrored.
        mixup_alpha: float. Parameter of the Beta distribution; 0 disables mixup.
        momentum: float. Momentum of SGD.
        nesterov: bool. Whether to use Nesterov momentum.
        weight_decay: float. Decoupled weight decay as in `keras.optimizers`, applied to
            kernels only.
        clip_norm: float or None. Maximum global norm of the gradients.
        reasons: tuple of str. Sentences that explain the values.

    Example:

    ```python
    rule = bit_keras.training.hyper_rule(4500, image_size=(32, 32))
    rule.steps, rule.size, rule.mixup_alpha  # (500, 128, 0.0)
    ```
    """

    name: str
    source: str
    batch: int
    steps: int
    warmup_steps: int
    boundaries: tuple[int, ...]
    learning_rate: float
    schedule: Literal["step", "cosine"]
    precrop: int
    size: int
    evaluation_side: int | None = None
    crop: Literal["random", "inception"] = "random"
    flip: bool = True
    mixup_alpha: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None
    reasons: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    def explain(self) -> str:
        """Returns a readable description of the rule and the reasons for its values.

        Example:

        ```python
        rule = bit_keras.training.hyper_rule(4500, image_size=(32, 32))
        rule.explain().splitlines()[1]
        # '4,500 training images are fewer than 20,000: a small task, 500 steps, no mixup.'
        ```
        """
        boundaries = ", ".join(f"{boundary:,}" for boundary in self.boundaries)
        drops = f", drops after {boundaries}" if boundaries else ""
        mixup = f"mixup {self.mixup_alpha:g}" if self.mixup_alpha else "no mixup"
        decay = f", weight decay {self.weight_decay:g}" if self.weight_decay else ""
        summary = (
            f"{self.name} ({self.source}): {self.steps:,} steps of {self.batch} images, "
            f"learning rate {self.learning_rate:g} after {self.warmup_steps:,} steps of warm-up"
            f"{drops}{', then cosine decay to zero' if self.schedule == 'cosine' else ''}; images "
            f"resized to {self.precrop}, {self.crop} crop of {self.size}, {mixup}; "
            f"SGD, momentum {self.momentum:g}{decay}."
        )
        return "\n".join((summary, *self.reasons))

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0.

        After the last step it stays constant; the original is undefined there.
        """
        step = min(max(step, 0), self.steps - 1)
        if step < self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        if self.schedule == "step":
            return self.learning_rate / 10 ** sum(bound < step for bound in self.boundaries)
        done = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def with_steps(self, steps: int) -> "Rule":
        """Returns the rule with its schedule scaled to another number of steps.

        Raises:
            TrainingError: `steps` is less than 1.

        Example:

        ```python
        bit_keras.training.hyper_rule(4500, image_size=(32, 32)).with_steps(50).boundaries
        # (20, 30, 40)
        ```
        """
        _require_positive("steps", steps)
        scale = steps / self.steps
        return self._with(
            f"{steps:,} steps were requested instead of {self.steps:,}; warm-up and drops are "
            "scaled accordingly.",
            steps=steps,
            warmup_steps=round(self.warmup_steps * scale),
            boundaries=tuple(round(bound * scale) for bound in self.boundaries),
        )

    def with_size(self, size: int) -> "Rule":
        """Returns the rule with another crop size; `precrop` is scaled with it."""
        _require_positive("size", size)
        return self._with(
            f"Crops of {size} pixels were requested instead of {self.size}.",
            size=size,
            precrop=round(self.precrop * size / self.size),
            evaluation_side=self.evaluation_side and round(self.evaluation_side * size / self.size),
        )

    def with_learning_rate(self, learning_rate: float) -> "Rule":
        """Returns the rule with another base learning rate.

        Raises:
            TrainingError: The learning rate is not a positive number.
        """
        if not (learning_rate > 0 and math.isfinite(learning_rate)):
            raise TrainingError(
                "`learning_rate` (--lr) must be a positive number. "
                f"Received: learning_rate={learning_rate}"
            )
        return self._with(
            f"A learning rate of {learning_rate:g} was requested instead of "
            f"{self.learning_rate:g}.",
            learning_rate=float(learning_rate),
        )

    def with_mixup(self, alpha: float) -> "Rule":
        """Returns the rule with another mixup parameter; 0 disables mixup.

        Raises:
            TrainingError: `alpha` is negative or not finite.
        """
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise TrainingError(f"`mixup` must be 0 or a positive number. Received: mixup={alpha}")
        reason = f"Mixup {alpha:g} was requested instead of {self.mixup_alpha:g}."
        return self._with(reason, mixup_alpha=float(alpha))

    def _with(self, reason: str, **values: Any) -> "Rule":
        return dataclasses.replace(self, **values, reasons=(*self.reasons, reason))

    def to_json(self) -> dict[str, Any]:
        """Returns the rule as a JSON document, for `from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Rule":
        """Creates a rule from the document of `to_json`."""
        lists = {key: tuple(document[key]) for key in ("boundaries", "reasons")}
        return cls(**{**document, **lists})


def hyper_rule(
    examples: int,
    image_size: tuple[int, int],
    batch: int = BASE_BATCH,
    variant: Variant = "code",
    architecture: str | None = None,
) -> Rule:
    """Returns BiT-HyperRule for a number and a size of training images.

    The number of steps (500, 10,000 or 20,000) depends on the number of training
    images, the size of the crops on the size of the images, and mixup is used from
    20,000 images up. The learning rate rises from 0 to 0.003 during the warm-up and is
    divided by 10 after each boundary. The head is new and zero, weight decay is not
    used, and all layers are trained.

    For batches below 512, the learning rate is `min(0.003, 0.001 * batch / 128)`, which
    includes both published pairs, (128, 0.001) and (512, 0.003). The number of steps
    stays the same, so fewer images are seen; `explain` states how many.

    Args:
        examples: int. Number of training images, before any are held out.
        image_size: tuple of int. Height and width of the images.
        batch: int. Images per step. Defaults to `512`.
        variant: `"code"`, the rule of the authors' program, or `"paper"`: crops of 384
            pixels instead of 480 except for R152x4, and drops at 30, 60 and 90 %.
            Defaults to `"code"`.
        architecture: str or None. Name of the architecture, for `"paper"`.

    Returns:
        Rule.

    Raises:
        TrainingError: An argument is invalid.

    Example:

    ```python
    rule = bit_keras.training.hyper_rule(50_000, image_size=(32, 32))
    rule.steps, rule.boundaries  # (10000, (3000, 6000, 9000))
    ```

    Reference:
        `google-research/big_transfer`, `bit_hyperrule.py`; the small batch from its
        README; [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370), 3.3.
    """
    _require_positive("batch", batch)
    if variant not in ("code", "paper"):
        raise TrainingError(f"`variant` must be 'code' or 'paper'. Received: variant={variant!r}")
    task, reason = _task_size(examples)
    warmup, *drops, steps = SUPPORTS[task]
    if variant == "paper":
        drops = [round(steps * part) for part in (0.3, 0.6, 0.9)]
    large = PAPER_SIZES if variant == "paper" and architecture != LARGEST_ARCHITECTURE else None
    precrop, size, size_reason = _sizes(image_size, large or CODE_SIZES)
    mixup_alpha = 0.0 if task == "small" else MIXUP_ALPHA
    reasons = [
        f"{reason}, {steps:,} steps, {f'mixup {mixup_alpha:g}' if mixup_alpha else 'no mixup'}.",
        size_reason,
    ]
    learning_rate = BASE_LEARNING_RATE
    if batch < BASE_BATCH:
        learning_rate = min(BASE_LEARNING_RATE, SMALL_BATCH_LEARNING_RATE * batch / SMALL_BATCH)
        reasons.append(
            f"A batch of {batch} instead of {BASE_BATCH}: the learning rate is {learning_rate:g} "
            f"instead of {BASE_LEARNING_RATE:g}, and the same {steps:,} steps see "
            f"{steps * batch:,} images instead of {steps * BASE_BATCH:,}."
        )
    return Rule(
        name="BiT-HyperRule" if variant == "code" else "BiT-HyperRule as in the paper",
        source="big_transfer" if variant == "code" else "arXiv 1912.11370",
        batch=batch,
        steps=steps,
        warmup_steps=warmup,
        boundaries=tuple(drops),
        learning_rate=learning_rate,
        schedule="step",
        precrop=precrop,
        size=size,
        mixup_alpha=mixup_alpha,
        reasons=tuple(reasons),
    )


def big_vision_rule(examples: int, batch: int = BASE_BATCH) -> Rule:
    """Returns big_vision's recipe for BiT: cosine decay, clipped gradients, no mixup.

    Its learning rate of 0.01 is a starting point to be tuned, and is not scaled with the
    batch.

    Args:
        examples: int. Number of training images.
        batch: int. Images per step. Defaults to `512`.

    Returns:
        Rule.

    Raises:
        TrainingError: An argument is invalid.

    Example:

    ```python
    from bit_keras.rules.rules import big_vision_rule

    big_vision_rule(4500).warmup_steps  # 100
    ```

    Reference:
        `google-research/big_vision`, `configs/transfer.py`.
    """
    _require_positive("batch", batch)
    task, reason = _task_size(examples)
    warmup, *_, steps = SUPPORTS[task]
    precrop, size = PAPER_SIZES
    reasons = [f"{reason}, {steps:,} steps.", "Its learning rate is meant to be tuned."]
    if batch != BASE_BATCH:
        reasons.append(f"A batch of {batch} instead of {BASE_BATCH} does not change other values.")
    return Rule(
        name="the big_vision rule",
        source="big_vision, configs/transfer.py",
        batch=batch,
        steps=steps,
        warmup_steps=warmup,
        boundaries=(),
        learning_rate=0.01,
        schedule="cosine",
        precrop=precrop,
        size=size,
        clip_norm=1.0,
        reasons=tuple(reasons),
    )


def scratch_rule(examples: int, size: int, batch: int = SMALL_BATCH, epochs: int = 30) -> Rule:
    """Returns this project's recipe for training from random weights.

    SGD with a learning rate of 0.1 for 128 images, proportional to the batch, a
    linear warm-up over a tenth of the steps, then cosine decay to zero. The weight
    decay has the effect of L2 regularisation with a gradient of 5e-4 times the weight,
    which momentum would multiply by 1 / (1 - 0.9).

    Args:
        examples: int. Number of training images.
        size: int. Side of the crop in pixels.
        batch: int. Images per step. Defaults to `128`.
        epochs: int. Number of passes over the images. Defaults to `30`.

    Returns:
        Rule.

    Raises:
        TrainingError: An argument is invalid.

    Example:

    ```python
    from bit_keras.rules.rules import scratch_rule

    scratch_rule(49_000, size=64).steps  # 11484
    ```
    """
    _require_positive("examples", examples)
    _require_positive("batch", batch)
    _require_positive("epochs", epochs)
    momentum, l2 = 0.9, 5e-4
    steps = max(math.floor(examples * epochs / batch), 1)
    return Rule(
        name="training from random weights",
        source="this project's own",
        batch=batch,
        steps=steps,
        warmup_steps=steps // 10,
        boundaries=(),
        learning_rate=0.1 * batch / 128,
        schedule="cosine",
        precrop=round(1.125 * size),
        evaluation_side=round(1.125 * size),
        size=size,
        momentum=momentum,
        weight_decay=round(l2 / (1 - momentum), 6),
        reasons=(
            f"{epochs} epochs of {examples:,} training images are {steps:,} steps of {batch}.",
        ),
    )


def _task_size(examples: int) -> tuple[str, str]:
    _require_positive("examples", examples)
    images = f"{examples:,} training images are"
    for task, limit in (("small", MEDIUM), ("medium", LARGE)):
        if examples < limit:
            return task, f"{images} fewer than {limit:,}: a {task} task"
    return "large", f"{images} {LARGE:,} or more: a large task"


def _sizes(image_size: tuple[int, int], large: tuple[int, int]) -> tuple[int, int, str]:
    """Returns the sides of the resized image and of the crop, and the reason for them."""
    height, width = image_size
    _require_positive("height", height)
    _require_positive("width", width)
    is_small = height * width < SMALL_AREA
    precrop, size = SMALL_SIZES if is_small else large
    relation = "smaller than" if is_small else "at least"
    return (
        precrop,
        size,
        (
            f"Images of {width}x{height} pixels are {relation} 96x96: resized to {precrop}, "
            f"crops of {size}."
        ),
    )


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise TrainingError(f"`{name}` must be at least 1. Received: {name}={value}")
