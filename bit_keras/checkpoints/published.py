"""Which published checkpoint weights are, by their name and their shapes."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from bit_keras.checkpoints.names import head_classes, identify
from bit_keras.errors import SizeError, UnknownModelError
from bit_keras.preprocessing import ClassifierSpec, spec_of
from bit_keras.registry import Checkpoint, Shape, model_info


def published_checkpoint(
    source: str | os.PathLike, shapes: Mapping[str, Shape]
) -> Checkpoint | None:
    """The checkpoint that weights are named after, where they have its architecture and head.

    Args:
        source: What `bit_keras.sources.resolve` takes. The name, or that of the file, with or
            without its suffix, is a model name or an alias.
        shapes: Mapping from official name to shape. The head may be missing.

    Returns:
        Checkpoint or None.
    """
    architecture, classes = identify(shapes), head_classes(shapes)
    for name in (os.fspath(source), Path(source).stem, Path(source).name):
        with contextlib.suppress(UnknownModelError):
            checkpoint = model_info(name)
            if checkpoint.architecture == architecture and classes in (None, checkpoint.classes):
                return checkpoint
    return None


def published_spec(source: str | os.PathLike, shapes: Mapping[str, Shape]) -> ClassifierSpec | None:
    """The spec of the checkpoint that weights are named after, where its images are known.

    Args:
        source: What `published_checkpoint` takes.
        shapes: Mapping from official name to shape; without a head there is not a spec.
    """
    checkpoint = published_checkpoint(source, shapes)
    if checkpoint is None or head_classes(shapes) is None:
        return None
    try:
        return spec_of(checkpoint.name)
    except SizeError:
        return None
