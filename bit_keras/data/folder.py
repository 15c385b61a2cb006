"""Pictures in a folder with one folder per class."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bit_keras.data.images import Images
from bit_keras.data.layout import Layout, is_picture, layout_of, require_split


def folder_splits(root: Path) -> tuple[str, ...]:
    """The splits of a folder, or `()`."""
    return _layout(root).splits


def folder_images(root: Path, split: str | None) -> Images:
    """The pictures of a folder `<class>/**/<picture>` or `<split>/<class>/**/<picture>`."""
    layout = _layout(root)
    require_split(split, layout.splits, str(root))
    paths, targets = layout.part(split)
    sizes = np.array([(root / path).stat().st_size for path in paths])
    return Images(
        layout.classes,
        np.array(targets),
        paths,
        sizes,
        lambda index: (root / paths[index]).read_bytes(),
    )


def loose_images(root: Path) -> Images | None:
    """The pictures that lie in a folder itself, all of one class; None where there are none."""
    paths = [path for path in sorted(root.iterdir()) if path.is_file() and is_picture(path.name)]
    if not paths:
        return None
    return Images(
        (root.name,),
        np.zeros(len(paths)),
        [path.name for path in paths],
        np.array([path.stat().st_size for path in paths]),
        lambda index: paths[index].read_bytes(),
    )


def _layout(root: Path) -> Layout:
    return layout_of(sorted(_files_below(root)), str(root))


def _files_below(root: Path) -> Iterator[str]:
    # Links to folders are followed: a subset of a data set is often made of them.
    for folder, _, files in os.walk(root, followlinks=True):
        relative = Path(folder).relative_to(root)
        yield from ((relative / file).as_posix() for file in files)
