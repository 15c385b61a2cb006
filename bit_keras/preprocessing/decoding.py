"""From logits to the names and scores of the best classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bit_keras.errors import DecodingError
from bit_keras.preprocessing.classifier_spec import Activation, ClassifierSpec
from bit_keras.preprocessing.evaluation import is_integer
from bit_keras.preprocessing.labels import Labels, labels_of
from bit_keras.registry import model_info


def decode_predictions(
    logits: Any,
    name: str | ClassifierSpec | Sequence[str] | Labels,
    top: int = 5,
    classes: Sequence[str] | None = None,
) -> list[list[tuple[str, str, float]]]:
    """The best classes of each image, with their scores.

    Scores are softmax probabilities, or sigmoid probabilities where the head is
    multi-label (`Checkpoint.activation`; all ImageNet-21k heads), computed in
    float64. The order is that of the logits, equal ones by class index, so it
    stays right where scores round to 0 or 1.

    The VTAB and small-set checkpoints were published without class lists. Their
    classes are called `"class_0"`, `"class_1"`, ... as id and as label.

    Args:
        logits: Anything NumPy converts, NumPy, TensorFlow, JAX and PyTorch
            tensors included: `(batch, classes)`, or `(classes,)` for one image.
        name: str, ClassifierSpec, list of str, or Labels. A model name or a spec, whose
            head gave the logits, or one's own labels in the order of the logits;
            these are scored with softmax, and a list's labels are also the ids.
        top: int. How many classes, from 1. A head with fewer gives all it has.
            Defaults to `5`.
        classes: sequence of str. The ids that the head was cut down to, as
            `create_classifier` takes them; softmax is then over these. Defaults to all
            classes of `name`.

    Returns:
        One list per image, best class first, of tuples `(class id, label,
        score)`: str, str, float in [0, 1].

    Raises:
        DecodingError: The logits have another number of classes than the list,
            another rank, or values that are not finite; `top` is below 1; or
            `name` is none of these.
        UnknownModelError: No model has that name.
        BitKerasError: There is no id in `classes`, one comes twice, or is not an id of
            `name`.

    Example:

    ```python
    bit_keras.decode_predictions([[0.0, 0.0, -40.0]], ["cat", "dog", "fish"], top=2)
    # [[('cat', 'cat', 0.5), ('dog', 'dog', 0.5)]]
    bit_keras.decode_predictions([1.0, 1.0], "bit_tiny.cifar10", classes=["cat", "dog"])
    # [[('cat', 'cat', 0.5), ('dog', 'dog', 0.5)]]
    ```

    Reference:
        Sigmoid for ImageNet-21k: [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370).
    """
    if not is_integer(top) or top < 1:
        raise DecodingError(f"`top` must be an integer from 1; got {top!r}.")
    values = _as_batch(logits)
    labels, activation, owner = _classes(name, values.shape[1])
    if classes is not None:
        labels, owner = labels.select(classes), "`classes`"
    if len(labels) != values.shape[1]:
        raise DecodingError(
            f"The logits have {values.shape[1]} classes and {owner} has {len(labels)}; "
            "for a head of one's own, pass its labels as a list instead of a model name."
        )
    scores = scores_of(values, activation)
    best = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [
        [(labels.ids[index], labels.names[index], float(row[index])) for index in indices]
        for row, indices in zip(scores, best, strict=True)
    ]


def _as_batch(logits: Any) -> np.ndarray:
    if hasattr(logits, "detach"):
        # PyTorch refuses to convert tensors with gradients, on a device or in bfloat16.
        logits = logits.detach().cpu().double()
    try:
        values = np.asarray(logits).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DecodingError(f"The logits are not an array of numbers: {error}") from error
    if values.ndim not in (1, 2) or values.shape[-1] == 0:
        raise DecodingError(
            f"Logits have the shape (batch, classes), or (classes,) for one image. "
            f"Received: shape={values.shape}."
        )
    values = np.atleast_2d(values)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if broken.size:
        raise DecodingError(
            f"The logits of {broken.size} of {len(values)} images are not finite; "
            f"the first is image {broken[0]}."
        )
    return values


def _classes(
    name: str | ClassifierSpec | Sequence[str] | Labels, width: int
) -> tuple[Labels, Activation, str]:
    """The classes that `name` stands for, what turns logits into scores, and whose they are."""
    if isinstance(name, ClassifierSpec):
        return name.labels, name.activation, name.labels.name
    if isinstance(name, Labels):
        return name, "softmax", name.name
    if isinstance(name, str):
        checkpoint = model_info(name)
        labels = labels_of(checkpoint)
        owner = checkpoint.name + (f" ({checkpoint.labels})" if checkpoint.labels else "")
        return labels, checkpoint.activation, owner
    is_list = isinstance(name, list | tuple | np.ndarray)
    if not is_list or not all(isinstance(label, str) for label in name):
        raise DecodingError(
            f"`name` must be a model name, a ClassifierSpec, a list of strings or a Labels. "
            f"Received: {type(name).__name__}"
            f"{' with entries that are not strings' if is_list else ''}."
        )
    own = tuple(str(label) for label in name)
    return Labels("the list of labels", own, own), "softmax", "the list of labels"


def scores_of(logits: np.ndarray, activation: Activation) -> np.ndarray:
    """Scores in [0, 1] from logits `(batch, classes)`, in float64 where these are."""
    return _sigmoid(logits) if activation == "sigmoid" else _softmax(logits)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    # 1 / (1 + exp(-x)) overflows for large negative x; this form does not.
    return np.exp(-np.logaddexp(0.0, -logits))
