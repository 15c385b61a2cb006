"""BiT (Big Transfer) models for Keras 3, and an exporter for TF Hub.

Importing this package is cheap: what needs Keras is imported on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

from bit_keras.registry import list_models as list_models
from bit_keras.registry import model_info as model_info

if TYPE_CHECKING:
    from bit_keras.checkpoints import load_weights as load_weights
    from bit_keras.checkpoints import save_weights as save_weights
    from bit_keras.exporters import export as export
    from bit_keras.inference import load_predictor as load  # noqa: F401
    from bit_keras.models import create_class_maps as create_class_maps
    from bit_keras.models import create_classifier as create_classifier
    from bit_keras.models import create_feature_extractor as create_feature_extractor
    from bit_keras.models import create_feature_maps as create_feature_maps
    from bit_keras.models import fold_weight_standardization as fold_weight_standardization
    from bit_keras.preprocessing import decode_predictions as decode_predictions
    from bit_keras.preprocessing import eval_transform as eval_transform

__version__ = "0.1.0"

#: Where each name is; after a colon, what it is called there.
_HOMES = {
    "load": "bit_keras.inference:load_predictor",
    "create_classifier": "bit_keras.models",
    "create_feature_extractor": "bit_keras.models",
    "create_feature_maps": "bit_keras.models",
    "create_class_maps": "bit_keras.models",
    "fold_weight_standardization": "bit_keras.models",
    "load_weights": "bit_keras.checkpoints",
    "save_weights": "bit_keras.checkpoints",
    "eval_transform": "bit_keras.preprocessing",
    "export": "bit_keras.exporters",
    "decode_predictions": "bit_keras.preprocessing",
}

_SUBPACKAGES = (
    "artifacts",
    "checkpoints",
    "collection",
    "data",
    "evaluation",
    "exporters",
    "inference",
    "layers",
    "models",
    "preprocessing",
    "training",
)

__all__ = ["__version__", "list_models", "model_info", *_HOMES, *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, _, own_name = _HOMES[name].partition(":")
        return getattr(importlib.import_module(module), own_name or name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"bit_keras.{name}")
    raise AttributeError(f"module 'bit_keras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


@wrapt.when_imported("keras")
def _register_classes(_: Any) -> None:
    # Keras loads a .keras file only when the classes in it are registered; this
    # registers ours as soon as both packages are imported, in either order. All
    # registered classes are in these two parts, which need no framework but Keras.
    importlib.import_module("bit_keras.layers.functional")
    importlib.import_module("bit_keras.rules")
