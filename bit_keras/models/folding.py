"""The same function without weight standardisation at run time."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from bit_keras.errors import BitKerasError
from bit_keras.layers import StdConv2D
from bit_keras.layers.functional import Functional
from bit_keras.layers.moments import Tensor
from bit_keras.models.finite import require_finite_weights

#: How far the copy may be from the model, relative to the largest output: the contract of
#: float32, and for half precision twice the rounding of bfloat16, once per network.
TOLERANCE, HALF_PRECISION_TOLERANCE = 1e-5, 5e-2

#: Sides of the inputs that both are compared on, where the model takes any: the smallest that
#: every network of this package takes.
_SIDE = 32

#: What `keras.layers.Conv2D` has no place for, or has no use for in a copy for inference: the
#: standardised kernel already contains a LoRA update.
_DROPPED = ("epsilon", "lora_rank", "lora_alpha")


def fold_weight_standardization(model: keras.Model, allow_nonfinite: bool = False) -> keras.Model:
    """A copy of a model with plain convolutions that compute the same.

    Standardising the 53 kernels of an R50x1 takes as long for one image as for a
    thousand, and nothing depends on the image: here it is done once, and the
    results are the kernels of `keras.layers.Conv2D`. Names, inputs and outputs
    stay, and so does the state of every other layer. The copy is for inference:
    to train it is to train another network, without standardisation.

    The copy is compared with the model on random inputs before it is returned.

    Args:
        model: keras.Model, Functional or Sequential, of this package or with one
            inside, also inside wrappers such as `keras.layers.TimeDistributed`. It is
            not changed.
        allow_nonfinite: bool. Take weights that are infinite or not a number. Defaults to
            `False`.

    Returns:
        keras.Model with weights of its own. It differs from `model` by the
        rounding of float32 at most.

    Raises:
        BitKerasError: A layer cannot be copied from its configuration, creates a
            `StdConv2D` of its own, or computes something else in the copy; or a weight is
            not finite. The message names it.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10")
    folded = bit_keras.fold_weight_standardization(model)
    type(folded.get_layer("stem_conv")).__name__  # 'Conv2D'
    ```

    Reference:
        [Qiao et al., 2019](https://arxiv.org/abs/1903.10520). Standardising a folded
        kernel again changes nothing, so an official file may contain it too.
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
    """A copy of a model in which `swap` gives the layer for each that contains no others."""
    copy = keras.models.clone_model(model, clone_function=swap, recursive=True)
    # Keras copies what models of its own have.
    for source, target in zip(_models(model), _models(copy), strict=True):
        if isinstance(source, Functional):
            target.checkpoint = source.checkpoint
    return copy


def _models(model: keras.Model) -> Iterator[keras.Model]:
    """A model and the models in it."""
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _models(layer)


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model and of the models in it, without these models themselves."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def copy_state(model: keras.Model, copy: keras.Model) -> None:
    """Gives every layer of a copy the state of the layer that it is a copy of.

    Keras's own way to save a layer is used, not `get_weights`: an adapted `Normalization`
    derives more than its weights when they are loaded, and a layer with LoRA adds the update
    to its kernel when they are saved.

    Raises:
        BitKerasError: The copy has other layers, or a layer in it does not take the state.
    """
    # By their order: a layer inside of another one may have a name that Keras made up.
    sources, targets = model._flatten_layers(), copy._flatten_layers()
    if len(sources) != len(targets):
        raise _refusal(model, model, f"has {len(sources)} layers and its copy {len(targets)}")
    for source, target in zip(sources, targets, strict=True):
        if isinstance(target, StdConv2D):
            raise _refusal(
                model,
                _owner(model, source),
                f"creates the StdConv2D {source.name!r} itself, where no copy can replace it",
            )
        try:
            target.load_own_variables(_state(source))
        # What layers raise whose variables differ is not specified.
        except Exception as error:
            raise _refusal(
                model, source, f"does not take the state of the original ({error})"
            ) from error
    for state, copied in zip(_random_states(model), _random_states(copy), strict=True):
        # By way of NumPy: on JAX the two would share a buffer, which `predict` gives away.
        copied.assign(keras.ops.convert_to_numpy(state))


def require_same_outputs(model: keras.Model, copy: keras.Model) -> None:
    """Raises unless a copy computes what a model does, on random inputs.

    Args:
        model: keras.Model.
        copy: keras.Model. With the same inputs and layers.

    Raises:
        BitKerasError: It differs by more than rounding. The message names the first layer that
            does.
    """
    inputs: Any = {tensor.name: _random(tensor) for tensor in model.inputs}
    if len(inputs) == 1:
        (inputs,) = inputs.values()
    difference = _difference(_outputs(model, inputs), _outputs(copy, inputs))
    if difference > _tolerance(model):
        raise _refusal(
            model,
            _first_that_differs(model, copy),
            f"computes something else in the copy (the outputs differ by {difference:.1g})",
        )


def _plain(layer: keras.layers.Layer) -> keras.layers.Layer:
    try:
        if isinstance(layer, StdConv2D):
            return keras.layers.Conv2D.from_config(_plain_config(layer))
        if isinstance(layer, keras.layers.Lambda):
            # Its function is that of the model in this process, not one of a file.
            return keras.layers.Lambda.from_config(layer.get_config(), safe_mode=False)
        return layer.__class__.from_config(_with_plain_layers(layer.get_config()))
    # Configurations of other people's layers raise whatever they like.
    except Exception as error:
        raise BitKerasError(
            f"The layer {layer.name!r} ({type(layer).__name__}) cannot be copied, so the model "
            f"cannot be folded: {' '.join(str(error).split())[:300]}. Give the class a get_config "
            "from which Keras can build it again, and register it with "
            "keras.saving.register_keras_serializable."
        ) from error


def _plain_config(layer: StdConv2D) -> dict[str, Any]:
    if type(layer) is not StdConv2D:
        raise TypeError("a subclass of StdConv2D may compute something else")
    return {name: value for name, value in layer.get_config().items() if name not in _DROPPED}


def _with_plain_layers(config: Any) -> Any:
    """A configuration in which plain convolutions take the place of standardised ones.

    Wrappers and models of other classes describe the layers inside of them there.
    """
    if isinstance(config, list | tuple):
        return type(config)(map(_with_plain_layers, config))
    if not isinstance(config, dict):
        return config
    if config.get("registered_name") == keras.saving.get_registered_name(StdConv2D):
        inner = StdConv2D.from_config(config["config"])
        plain = keras.layers.Conv2D.from_config(_plain_config(inner))
        # In the graph of a model the entry also has a name and the calls of the layer.
        graph = {name: config[name] for name in ("name", "inbound_nodes") if name in config}
        return keras.saving.serialize_keras_object(plain) | graph
    return {name: _with_plain_layers(value) for name, value in config.items()}


def _state(layer: keras.layers.Layer) -> dict[str, Any]:
    """What Keras would save of a layer; of a standardised convolution, that of a plain one."""
    state: dict[str, Any] = {}
    layer.save_own_variables(state)
    state = {name: keras.ops.convert_to_numpy(value) for name, value in state.items()}
    if isinstance(layer, StdConv2D) and state:
        state["0"] = keras.ops.convert_to_numpy(layer.standardized_kernel())
    return state


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """The states of random generators, which belong to no layer's own variables."""
    return [each for each in model.variables if each.path.endswith("/seed_generator_state")]


def _owner(model: keras.Model, inner: keras.layers.Layer) -> keras.layers.Layer:
    """The layer of the model's graphs that another layer is inside of."""
    return next((layer for layer in leaf_layers(model) if inner in layer._flatten_layers()), inner)


def _random(tensor: Tensor) -> np.ndarray:
    shape = [2, *(side or _SIDE for side in tensor.shape[1:])]
    values = np.random.default_rng(0).uniform(-1.0, 1.0, shape)
    return values.astype(keras.backend.standardize_dtype(tensor.dtype))


def _outputs(layer: keras.layers.Layer, inputs: Any) -> list[np.ndarray]:
    # JAX compiles a model faster than all of its operations.
    compiled = isinstance(layer, keras.Model) and keras.backend.backend() == "jax"
    outputs = layer.predict_on_batch(inputs) if compiled else layer(inputs, training=False)
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(output, "float32"))
        for output in keras.tree.flatten(outputs)
    ]


def _difference(expected: list[np.ndarray], found: list[np.ndarray]) -> float:
    """The largest difference, relative to the largest value.

    Values that are not finite have to be so in both, or the difference is infinite.
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
    """The first layer that differs by itself, or the model where none does."""
    for source, target in zip(leaf_layers(model), leaf_layers(copy), strict=True):
        # Layers without a place in a graph, or with more arguments than inputs, are passed over.
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            inputs = keras.tree.map_structure(_random, source.input)
            if _difference(_outputs(source, inputs), _outputs(target, inputs)) > _tolerance(model):
                return source
    return model


def _refusal(model: keras.Model, layer: keras.layers.Layer, reason: str) -> BitKerasError:
    return BitKerasError(
        f"The model {model.name!r} cannot be folded: its layer {layer.name!r} "
        f"({type(layer).__name__}) {reason}. Export it without folding (--to hub or --to keras), "
        "or fold the BiT network inside it."
    )
