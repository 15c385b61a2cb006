"""The metadata of an artifact before it is written, from the model and the options."""

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

import bit_keras
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.reference import TOLERANCE, quantised_tolerance, reference_difference
from bit_keras.artifacts.runtimes.program import Program
from bit_keras.errors import ExportError, UnknownModelError
from bit_keras.exporters.outputs import variant_of
from bit_keras.exporters.specs import checked_spec, transform_and_spec
from bit_keras.models.finite import require_finite_weights
from bit_keras.preprocessing import ClassifierSpec, EvalTransform
from bit_keras.registry import checkpoint_of, model_info


def describe(
    model: keras.Model,
    target: str,
    input_range: tuple[float, float],
    spec: ClassifierSpec | None,
    allow_nonfinite: bool = False,
) -> Metadata:
    """Describes the artifact that a model is going to be written to, in float32 at any size.

    Raises:
        ExportError: Another backend, a model that is not a BiT or whose name is not
            in the registry, or a spec with another number of classes.
        BitKerasError: A weight is not finite, unless `allow_nonfinite`.
    """
    if keras.backend.backend() != "tensorflow":
        raise ExportError(
            f"The target {target} needs the TensorFlow backend; set KERAS_BACKEND=tensorflow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}"
        )
    variant = variant_of(model, target)
    try:
        checkpoint = model_info(checkpoint_of(model))
    except UnknownModelError as error:
        raise ExportError(
            f"{error} An artifact has the name of a published model: name the network, or the "
            "file of its weights, after the one that it comes from."
        ) from None
    if not allow_nonfinite:
        require_finite_weights(model)
    spec = checked_spec(model, spec)
    return Metadata(
        model=checkpoint.name,
        target=target,
        variant=variant,
        precision="float32",
        folded=False,
        input_range=(float(input_range[0]), float(input_range[1])),
        size=None,
        outputs=model.output_shape[-1],
        task=None if spec is None else spec.to_json(),
        tolerance=TOLERANCE,
        versions={
            "bit_keras": bit_keras.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    )


def at_size(
    metadata: Metadata, model: keras.Model, size: int | None, spec: ClassifierSpec | None
) -> tuple[Metadata, EvalTransform]:
    """The metadata of an artifact for images of one size, and what encoded images go through.

    Raises:
        SizeError, BitKerasError: As `transform_and_spec`.
    """
    transform, spec = transform_and_spec(model, size, spec)
    task = None if spec is None else spec.to_json()
    return dataclasses.replace(metadata, size=transform.size, task=task), transform


def compared(
    metadata: Metadata,
    opened: Callable[[], Program],
    reference: Mapping[str, np.ndarray],
    allow_nonfinite: bool = False,
) -> Metadata:
    """Compares a file with the network that it was written from.

    Returns:
        Metadata, with the tolerance of a file that is quantised.

    Raises:
        ExportError: A file in float32 computes something else than the network, unless
            `allow_nonfinite`; or the outputs of one that is quantised are infinite.
    """
    if metadata.precision == "float32" and allow_nonfinite:
        return metadata
    outputs = opened()(reference["inputs"])
    # The head of a new network returns zeros, which no difference is in units of.
    names = [name for name in outputs if name in reference and reference[name].any()]
    differences = (reference_difference(name, outputs[name], reference) for name in names)
    largest = max(differences, default=0.0)
    if not np.isfinite(largest):
        raise ExportError(
            "The outputs are infinite: values of the network exceed the range of the "
            "quantisation. Export it with quantize='none'."
        )
    if metadata.precision != "float32":
        return dataclasses.replace(metadata, tolerance=quantised_tolerance(largest))
    if largest > metadata.tolerance:
        raise ExportError(
            f"The file computes something else than {metadata.model}: its outputs differ by "
            f"{largest:.1g}, and {metadata.tolerance:g} is the most that is written. Export it "
            "with --to keras, which changes nothing."
        )
    return metadata
