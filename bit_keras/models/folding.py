"""Folding: replaces standardised convolutions by plain ones with the same function."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from bit_keras.artifacts.reference import HALF_PRECISION_TOLERANCE, TOLERANCE
from bit_keras.errors import BitKerasError
from bit_keras.layers import StdConv2D
from bit_keras.layers.functional import Functional
from bit_keras.layers.moments import Tensor
from bit_keras.models.finite import require_finite_weights

#: Side of the test inputs if the model takes any: the minimum of the networks of this package.
_SIDE = 32

#: Configuration that `keras.layers.Conv2D` does not take or that a copy for inference does not
#: need: the standardised kernel already includes a LoRA update.
_DROPPED = ("epsilon", "lora_rank", "lora_alpha")


def fold_weight_standardization(model: keras.Model, allow_nonfinite: bool = False) -> keras.Model:
    """Returns a copy of a model with plain convolutions and the same outputs.

    `StdConv2D` standardises its kernel in every call, although the result does not
    depend on the image. The copy contains the standardised kernels in
    `keras.layers.Conv2D`. Names, inputs, outputs and the state of all other layers
    stay the same. Use the copy for inference only: it would be trained without
    weight standardisation.

    The copy is compared with the model on random inputs before it is returned.

    Args:
        model: keras.Model, Functional or Sequential, of this package or with one
            inside, also inside wrappers such as `keras.layers.TimeDistributed`. It is
            not changed.
        allow_nonfinite: bool. Accept weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model with its own weights. Its outputs differ from those of `model` at
        most by the rounding of float32.

    Raises:
        BitKerasError: A layer cannot be copied from its configuration, creates a
            `StdConv2D` itself, or has other outputs in the copy; or a weight is not
            finite. The message names it.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10")
    folded = bit_keras.fold_weight_standardization(model)
    type(folded.get_layer("stem_conv")).__name__  # 'Conv2D'
    ```

    Reference:
        [Qiao et al., 2019](https://arxiv.org/abs/1903.10520). Standardising a folded
        kernel again does not change it, so official files can contain folded kernels.
    """
    if not getattr(model, "inputs", None):
        raise _refusal(model, model, "is not a Functional or Sequential model with known inputs")
    if not allow_nonfinite:
        require_finite_weights(model)
    folded = clone_with(model, _plain)
    copy_state(model, folded)
    require_same_outputs(model, folded)
    return folded


def clone_with(
    model: keras.Model, swap: Callable[[keras.layers.Layer], keras.layers.Layer]
) -> keras.Model:
    """Copies a model and calls `swap` for each layer without sublayers to get its copy."""
    copy = keras.models.clone_model(model, clone_function=swap, recursive=True)
    # Keras copies only the attributes of its own models.
    for source, target in zip(_models(model), _models(copy), strict=True):
        if isinstance(source, Functional):
            target.checkpoint = source.checkpoint
    return copy


def _models(model: keras.Model) -> Iterator[keras.Model]:
    """Yields a model and its nested models."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _models(layer)


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model and of its nested models, without these models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def copy_state(model: keras.Model, copy: keras.Model) -> None:
    """Copies the state of every layer of a model to its copy.

    The state is copied as Keras saves and loads layers, not by `get_weights`: an adapted
    `Normalization` derives further attributes when its weights are loaded, and a layer with
    LoRA adds the update to its kernel when it is saved.

    Raises:
        BitKerasError: The copy has other layers, or a layer does not accept the state.
    """
    # Layers are matched by order: sublayers may have names that Keras generated.
    sources, targets = model._flatten_layers(), copy._flatten_layers()
    if len(sources) != len(targets):
        raise _refusal(model, model, f"has {len(sources)} layers and its copy {len(targets)}")
    for source, target in zip(sources, targets, strict=True):
        if isinstance(target, StdConv2D):
            raise _refusal(
                model,
                _owner(model, source),
                f"creates the StdConv2D {source.name!r} itself, so that it cannot be replaced",
            )
        try:
            target.load_own_variables(_state(source))
        # Keras does not specify what layers raise if their variables differ.
        except Exception as error:
            raise _refusal(
                model, source, f"does not accept the state of the original ({error})"
            ) from error
    for state, copied in zip(_random_states(model), _random_states(copy), strict=True):
        # Via NumPy: on JAX both would share a buffer, which `predict` donates.
        copied.assign(keras.ops.convert_to_numpy(state))


def require_same_outputs(model: keras.Model, copy: keras.Model) -> None:
    """Raises an error if a copy has other outputs than the model on random inputs.

    Args:
        model: keras.Model.
        copy: keras.Model with the same inputs and layers.

    Raises:
        BitKerasError: The outputs differ by more than rounding. The message names the first
            layer that differs.
    """
    inputs: Any = {tensor.name: _random(tensor) for tensor in model.inputs}
    if len(inputs) == 1:
        (inputs,) = inputs.values()
    difference = _difference(_outputs(model, inputs), _outputs(copy, inputs))
    if difference > _tolerance(model):
        raise _refusal(
            model,
            _first_that_differs(model, copy),
            f"has other outputs in the copy (the difference is {difference:.1g})",
        )


def _plain(layer: keras.layers.Layer) -> keras.layers.Layer:
    try:
        if isinstance(layer, StdConv2D):
            return keras.layers.Conv2D.from_config(_plain_config(layer))
        if isinstance(layer, keras.layers.Lambda):
            # The function comes from the model in this process, not from a file.
            return keras.layers.Lambda.from_config(layer.get_config(), safe_mode=False)
        return layer.__class__.from_config(_with_plain_layers(layer.get_config()))
    # Custom layers may raise any exception.
    except Exception as error:
        raise BitKerasError(
            f"The model cannot be folded, because the layer {layer.name!r} "
            f"({type(layer).__name__}) cannot be copied: {' '.join(str(error).split())[:300]}. "
            "Implement get_config in its class, and register the class with "
            "keras.saving.register_keras_serializable."
        ) from error


def _plain_config(layer: StdConv2D) -> dict[str, Any]:
    if type(layer) is not StdConv2D:
        raise TypeError("a subclass of StdConv2D may have another function")
    return {name: value for name, value in layer.get_config().items() if name not in _DROPPED}


def _with_plain_layers(config: Any) -> Any:
    """Replaces standardised convolutions in a configuration by plain ones.

    Wrappers and subclassed models describe their sublayers in their configuration.
    """
    if isinstance(config, list | tuple):
        return type(config)(map(_with_plain_layers, config))
    if not isinstance(config, dict):
        return config
    if config.get("registered_name") == keras.saving.get_registered_name(StdConv2D):
        inner = StdConv2D.from_config(config["config"])
        plain = keras.layers.Conv2D.from_config(_plain_config(inner))
        # In the graph of a model, the entry also contains a name and the calls of the layer.
        graph = {name: config[name] for name in ("name", "inbound_nodes") if name in config}
        return keras.saving.serialize_keras_object(plain) | graph
    return {name: _with_plain_layers(value) for name, value in config.items()}


def _state(layer: keras.layers.Layer) -> dict[str, Any]:
    """Returns the state that Keras saves for a layer, with the kernel standardised."""
    state: dict[str, Any] = {}
    layer.save_own_variables(state)
    state = {name: keras.ops.convert_to_numpy(value) for name, value in state.items()}
    if isinstance(layer, StdConv2D) and state:
        state["0"] = keras.ops.convert_to_numpy(layer.standardized_kernel())
    return state


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """Returns the states of random generators, which `save_own_variables` does not include."""
    return [each for each in model.variables if each.path.endswith("/seed_generator_state")]


def _owner(model: keras.Model, inner: keras.layers.Layer) -> keras.layers.Layer:
    """Returns the layer of the model's graph that contains another layer."""
    return next((layer for layer in leaf_layers(model) if inner in layer._flatten_layers()), inner)


def _random(tensor: Tensor) -> np.ndarray:
    shape = [2, *(side or _SIDE for side in tensor.shape[1:])]
    values = np.random.default_rng(0).uniform(-1.0, 1.0, shape)
    return values.astype(keras.backend.standardize_dtype(tensor.dtype))


def _outputs(layer: keras.layers.Layer, inputs: Any) -> list[np.ndarray]:
    # On JAX, compiling the model is faster than compiling each of its operations.
    compiled = isinstance(layer, keras.Model) and keras.backend.backend() == "jax"
    outputs = layer.predict_on_batch(inputs) if compiled else layer(inputs, training=False)
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
        for output in keras.tree.flatten(outputs)
    ]


def _difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """Returns the largest difference, relative to the largest value.

    If a value is finite in only one of the two, the difference is infinite.
    """
    largest = 0.0
    for theirs, ours in zip(expected, found, strict=True):
        finite = np.isfinite(theirs)
        if not np.array_equal(finite, np.isfinite(ours)):
            return np.inf
        theirs, ours = theirs[finite], ours[finite]
        if theirs.size:
            scale = np.abs(theirs).max() or 1.0
            largest = max(largest, float(np.abs(theirs - ours).max() / scale))
    return largest


def _tolerance(model: keras.Model) -> float:
    halves = {"float16", "bfloat16"}
    half = any(layer.compute_dtype in halves for layer in model._flatten_layers())
    return HALF_PRECISION_TOLERANCE if half else TOLERANCE


def _first_that_differs(model: keras.Model, copy: keras.Model) -> keras.layers.Layer:
    """Returns the first layer whose own outputs differ, or the model if there is none."""
    for source, target in zip(leaf_layers(model), leaf_layers(copy), strict=True):
        # Skips layers that are not in a graph or have further arguments.
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            inputs = keras.tree.map_structure(_random, source.input)
            if _difference(_outputs(source, inputs), _outputs(target, inputs)) > _tolerance(model):
                return source
    return model


def _refusal(model: keras.Model, layer: keras.layers.Layer, reason: str) -> BitKerasError:
    return BitKerasError(
        f"The model {model.name!r} cannot be folded: its layer {layer.name!r} "
        f"({type(layer).__name__}) {reason}. Export it without folding (--to hub or --to keras), "
        "or fold only the BiT network inside it."
    )
