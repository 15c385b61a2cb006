"""The metadata of an artifact before it is written, from the model and the options."""

import keras
import tensorflow as tf

import bit_keras
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.reference import TOLERANCE
from bit_keras.errors import ExportError, UnknownModelError
from bit_keras.exporters.outputs import variant_of
from bit_keras.exporters.specs import checked_spec
from bit_keras.models.finite import require_finite_weights
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.registry import checkpoint_of, model_info


def describe(
    model: keras.Model,
    target: str,
    input_range: tuple[float, float],
    spec: ClassifierSpec | None,
    allow_nonfinite: bool = False,
) -> Metadata:
    """Describes the artifact that a model is going to be written to.

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
