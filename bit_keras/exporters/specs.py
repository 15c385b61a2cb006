"""The labels and the transform that travel with an exported classifier."""

import contextlib
from typing import TYPE_CHECKING

from bit_keras.errors import ExportError, SizeError, UnknownModelError
from bit_keras.preprocessing import ClassifierSpec, EvalTransform, eval_transform, spec_of
from bit_keras.preprocessing.classifier_spec import known_name, network_side, size_for, spec_for
from bit_keras.preprocessing.labels import numbered_labels
from bit_keras.registry import checkpoint_of

if TYPE_CHECKING:
    import keras


def checked_spec(model: "keras.Model", spec: ClassifierSpec | None = None) -> ClassifierSpec | None:
    """The spec to store with a model: the given one, or what the registry knows of its name.

    Args:
        model: A network of this package.
        spec: ClassifierSpec or None.

    Returns:
        ClassifierSpec, or None for a network without a head, and where the registry does not
        know the name or no source states the size of the images.

    Raises:
        ExportError: The network has another number of classes than the given spec.
    """
    classes = _classes(model)
    if classes is None:
        return None
    if spec is not None:
        if classes != len(spec.labels):
            raise ExportError(
                f"{model.name} has {classes} classes and the labels of its spec are "
                f"{len(spec.labels)}."
            )
        return spec
    height, width = model.input_shape[1:3]
    if height == width:
        with contextlib.suppress(UnknownModelError, SizeError):
            return spec_of(checkpoint_of(model), height, classes)
    return None


def as_built(
    model: "keras.Model", spec: ClassifierSpec | None
) -> "tuple[keras.Model, ClassifierSpec | None]":
    """A model of one's own around a network, as what the builders return.

    Args:
        model: keras.Model. Of this package, which stays what it is, or with one inside.
        spec: ClassifierSpec or None. What is known of it.

    Returns:
        tuple of keras.Model and ClassifierSpec. Classes of a head of one's own that nobody
        has named are
        `"class_0"`, `"class_1"`, ...; images go through the transform of the network's checkpoint.

    Raises:
        BitKerasError: As `bit_keras.models.with_own_head`; or no source states the transform.
    """
    from bit_keras.models import with_own_head

    if any(layer.name == "stem_conv" for layer in model.layers):
        return model, spec
    classifier, activation = with_own_head(model)
    if spec is None:
        name = known_name(checkpoint_of(classifier))
        labels = numbered_labels(name, classifier.output_shape[-1])
        transform = eval_transform(name, network_side(model.input_shape))
        spec = ClassifierSpec(labels, transform, activation)
    return classifier, spec


def transform_and_spec(
    model: "keras.Model", size: int | None, spec: ClassifierSpec | None
) -> tuple[EvalTransform, ClassifierSpec | None]:
    """What encoded images go through, and the spec of a classifier, both at one size.

    Args:
        model: A network of this package.
        size: int or None. The side of images that is requested.
        spec: ClassifierSpec or None. Of an extractor, only the transform is used.

    Raises:
        SizeError: The network takes another size, or none is given and none is known.
        BitKerasError: It takes other images than RGB squares.
    """
    side, classes = network_side(model.input_shape), _classes(model)
    if classes is not None:
        spec = spec_for(checkpoint_of(model), spec, classes, side, size)
        return spec.transform, spec
    size = size_for(checkpoint_of(model), side, size)
    if spec is None:
        return eval_transform(checkpoint_of(model), size), None
    return (spec if size is None else spec.at_size(size)).transform, None


def _classes(model: "keras.Model") -> int | None:
    """Width of the head, whatever follows it."""
    heads = [layer for layer in model.layers if layer.name == "head"]
    return heads[0].output.shape[-1] if heads else None
