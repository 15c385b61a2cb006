"""Which published checkpoint weights are, by their name and their shapes or their md5."""

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from bit_keras.checkpoints.names import head_classes, identify
from bit_keras.errors import CheckpointError, SizeError, UnknownModelError
from bit_keras.preprocessing import ClassifierSpec, spec_of
from bit_keras.registry import Checkpoint, Shape, model_info

#: md5 of a published file of `bit_tf2` -> the network that is in it. `BiT-S-R50x3.h5` was published
#: with the bytes of `BiT-S-R50x1.h5`, and `BiT-S-R101x1.h5` with those of
#: `BiT-S-R152x4.h5` (`google-research/big_transfer`, issue 47).
NETWORKS = {
    "6cf1d1e2713303309e519bcaeff83ff9": "BiT-S-R50x1",
    "e997faeec447e05d5e398303c233e4d3": "BiT-S-R152x4",
    "f58452086fd56b204a9538c50277e10d": "BiT-S-R101x3",
    "482c5f2671bf6dad5e458260bfd6ac51": "BiT-M-R50x1",
    "215158ea03f1fa71907c5d7b266617a7": "BiT-M-R50x3",
    "8af399a1e846dbcce4001210240b805b": "BiT-M-R101x1",
    "5063875d671620bb49be6885ec23868c": "BiT-M-R101x3",
}

_PUBLISHED_NAME = re.compile(r"BiT-[SM]-R\d+x\d")


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


def require_own_name(path: Path) -> None:
    """Raises for a published file under the name of a network that is not in it.

    A file under another name is known by its shapes.

    Args:
        path: Path. An h5 file.

    Raises:
        CheckpointError: It has the name of another published network.
    """
    if not _PUBLISHED_NAME.fullmatch(path.stem):
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    network = NETWORKS.get(digest, path.stem)
    if network != path.stem:
        raise CheckpointError(
            f"{path} is not what its name says: by its md5, {digest}, it contains the weights of "
            f"{network}, published under a wrong name too (google-research/big_transfer, issue "
            f"47). Take {path.stem}.npz."
        )
