"""A Functional model that stores its checkpoint and connects its blocks with its graph."""

from typing import Any

import keras

from bit_keras.layers.moments import Tensor


# The name is that of Keras's own class, because `model.summary()` prints it, and `.keras` and
# `.weights.h5` files name the groups of nested models after it.
@keras.saving.register_keras_serializable("bit_keras")
class Functional(keras.Model):
    """A Functional model of this package.

    A network stores the name of its checkpoint, independent of its own name. A block has no
    checkpoint and is connected with the graph of its network: `keras.Model(network.input,
    network.get_layer("block4").output)` is the network up to that block.

    Args:
        inputs: KerasTensor.
        outputs: KerasTensor, or a structure of them.
        name: str. Defaults to a name that Keras generates.
        **kwargs: `checkpoint`, str, the name of a registered model or architecture; and
            arguments of `keras.Model`.
    """

    # Keras loads a model as Functional only if it has these arguments.
    def __init__(
        self, inputs: Tensor, outputs: Any, name: str | None = None, **kwargs: Any
    ) -> None:
        checkpoint = kwargs.pop("checkpoint", None)
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.checkpoint = checkpoint

    @property
    def input(self) -> Any:
        """The input; for a block, the tensor in the graph of the network."""
        connected = self._connected("input")
        return super().input if connected is None else connected

    @property
    def output(self) -> Any:
        """The output; for a block, the output of its first call in the graph of the network."""
        connected = self._connected("output")
        return super().output if connected is None else connected

    def _connected(self, end: str) -> Any:
        # The attribute does not exist yet while Keras constructs the model.
        if getattr(self, "checkpoint", None) is not None:
            return None
        try:
            return getattr(keras.Operation, end).fget(self)
        except AttributeError:  # The block has not been called.
            return None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config if self.checkpoint is None else {**config, "checkpoint": self.checkpoint}
