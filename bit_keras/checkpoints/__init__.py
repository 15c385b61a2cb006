"""Read and write checkpoints of every public format, strictly, and fetch the published ones.

Importing this package is cheap: what needs Keras is imported on first use, so that a file's
format is known without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bit_keras.checkpoints.checkpoint_file import CheckpointFile as CheckpointFile
    from bit_keras.checkpoints.checkpoint_file import open_checkpoint as open_checkpoint
    from bit_keras.checkpoints.keras_model import load_keras_model as load_keras_model
    from bit_keras.checkpoints.seeded import fill_with_seeded_values as fill_with_seeded_values
    from bit_keras.checkpoints.transfer import load_weights as load_weights
    from bit_keras.checkpoints.transfer import save_weights as save_weights

_HOMES = {
    "CheckpointFile": "checkpoint_file",
    "fill_with_seeded_values": "seeded",
    "load_keras_model": "keras_model",
    "load_weights": "transfer",
    "open_checkpoint": "checkpoint_file",
    "save_weights": "transfer",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
