"""Models without weights, for their configuration and the shapes of their variables."""

import concurrent.futures
from collections.abc import Callable, Mapping
from typing import Any

import keras


def abstract_model(
    build: Callable[[], Any], custom_objects: Mapping[str, Any] | None = None
) -> Any:
    """Builds a model whose variables take no memory, now and later.

    Keras lists the variables of a `StatelessScope`, and gives all of the list values at the end
    of the next scope that initialises variables, such as one that infers the output shape of a
    layer. The list belongs to the thread, so the model is built in a thread that ends.

    Args:
        build: Function that returns the model.
        custom_objects: Mapping from name to class or function, which a
            `keras.saving.CustomObjectScope` of this thread has. Defaults to `None`.

    Returns:
        What `build` returns. A model of it cannot be called.

    Raises:
        Exception: Whatever `build` raises.
    """
    policy = keras.config.dtype_policy()

    def in_thread() -> Any:
        keras.config.set_dtype_policy(policy)
        with (
            keras.saving.CustomObjectScope(dict(custom_objects or {})),
            keras.StatelessScope(initialize_variables=False),
        ):
            return build()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(in_thread).result()
