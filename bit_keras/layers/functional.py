"""Models that know their place: the blocks of a network, and the checkpoint that it is of."""

from typing import Any

import keras

from bit_keras.layers.moments import Tensor


# The name is that of Keras's own class: `model.summary()` prints it, and in `.keras` and
# `.weights.h5` files the groups of nested models are called after it.
@keras.saving.register_keras_serializable("bit_keras")
class Functional(keras.Model):
    """A Functional model of this package.

    A network remembers its checkpoint, whatever it is called. A block, which has none, is
    connected with the network that it is a part of: `keras.Model(network.input,
    network.get_layer("block4").output)` is the network up to there.

    Args:
        inputs: KerasTensor.
        outputs: KerasTensor, or a structure of them.
        name: str. Defaults to what Keras makes up.
        **kwargs: `checkpoint`, str, the name of a model of the registry or of an
            architecture; and arguments of `keras.Model`.
    """

    # The arguments are those of Keras's class, by which it recognises what it can load.
    def __init__(
        self, inputs: Tensor, outputs: Any, name: str | None = None, **kwargs: Any
    ) -> None:
        checkpoint = kwargs.pop("checkpoint", None)
        super().__init__(inputs, outputs, name=name, **kwargs)
        self.checkpoint = checkpoint

    @property
    def input(self) -> Any:
        """Of a block the input in the network, as `output`."""
        connected = self._connected("input")
        return super().input if connected is None else connected

    @property
    def output(self) -> Any:
        """Of a block the output in the network: that of its first call, as layers have it."""
        connected = self._connected("output")
        return super().output if connected is None else connected

    def _connected(self, end: str) -> Any:
        # While Keras constructs the model there is no attribute yet.
        if getattr(self, "checkpoint", None) is not None:
            return None
        try:
            return getattr(keras.Operation, end).fget(self)
        except AttributeError:  # It was never called.
            return None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config if self.checkpoint is None else {**config, "checkpoint": self.checkpoint}
