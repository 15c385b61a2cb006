"""What a user may name as weights, and which published checkpoint that is."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from bit_keras.checkpoints.download import pretrained_path
from bit_keras.checkpoints.hugging_face import is_repository, repository_weights
from bit_keras.checkpoints.names import head_classes, identify
from bit_keras.errors import CheckpointError, SizeError, UnknownModelError
from bit_keras.preprocessing import ClassifierSpec, spec_of
from bit_keras.registry import Checkpoint, Shape, model_info

#: What files of weights are called, in whatever format.
_SUFFIXES = {
    ".bin",
    ".ckpt",
    ".h5",
    ".hdf5",
    ".keras",
    ".npz",
    ".pt",
    ".pth",
    ".safetensors",
    ".tar",
}


def weights_path(source: str | os.PathLike) -> Path:
    """The local file or folder of what a user names as weights, downloaded on first use.

    Args:
        source: A file or a folder that exists; `hf://OWNER/NAME`, also with `@REVISION`,
            or `timm/NAME` for a repository of the Hugging Face hub; or a model name or
            an alias, for its published weights.

    Returns:
        Path, for `open_checkpoint`. Of a repository it is the folder.

    Raises:
        UnknownModelError: It is none of these.
        CheckpointError: It looks like a file, and there is none.
        DownloadError: The weights cannot be fetched.

    Example:

    ```python
    bit_keras.checkpoints.weights_path("bit_tiny.cifar10").name  # 'bit_tiny.cifar10.npz'
    ```
    """
    name, path = os.fspath(source), Path(source)
    if path.exists():
        return path
    if is_repository(name):
        return repository_weights(name).parent
    try:
        checkpoint = model_info(name)
    except UnknownModelError as error:
        is_path = not {"/", os.sep}.isdisjoint(name) and "://" not in name
        if is_path or path.suffix.lower() in _SUFFIXES:
            raise CheckpointError(f"There is no file {path}.") from None
        raise UnknownModelError(f"{error} Nor is there a file of that name.") from None
    return pretrained_path(checkpoint)


def published_checkpoint(
    source: str | os.PathLike, shapes: Mapping[str, Shape]
) -> Checkpoint | None:
    """The checkpoint that weights are named after, where they have its architecture and head.

    Args:
        source: What `weights_path` takes. The name, or that of the file, with or without
            its suffix, is a model name or an alias.
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
        shapes: Mapping from official name to shape; without a head there is no task.
    """
    checkpoint = published_checkpoint(source, shapes)
    if checkpoint is None or head_classes(shapes) is None:
        return None
    try:
        return spec_of(checkpoint.name)
    except SizeError:
        return None
