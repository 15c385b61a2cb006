"""Opens a checkpoint of any format, recognised by its content, under the official names."""

import contextlib
import itertools
import logging
import os
import re
from pathlib import Path

import numpy as np

from bit_keras.checkpoints.dialects import (
    BIT_TF2,
    DIALECTS,
    KERAS,
    OFFICIAL,
    OFFICIAL_PLAIN_STEM,
    Dialect,
    bit_tf2_order,
    paths_by_name,
    rearranged,
    rearranged_shape,
)
from bit_keras.checkpoints.files import (
    ArrayFile,
    ArrayFileView,
    Hdf5File,
    KerasFile,
    NpzFile,
    SafetensorsFile,
    SavedModelFile,
    TorchFile,
    is_hdf5,
    is_keras_file,
    is_safetensors,
    is_saved_model,
    is_torch_file,
    require_file,
    require_finite,
)
from bit_keras.checkpoints.names import PLAIN_STEM, identify, official_names, without_numbers
from bit_keras.checkpoints.published import require_own_name
from bit_keras.checkpoints.transformers_folder import CONFIG, WEIGHTS_FILES, require_same_network
from bit_keras.checkpoints.views import standardized
from bit_keras.errors import CheckpointError
from bit_keras.registry import ARCHITECTURES, RGB, Shape

_logger = logging.getLogger("bit_keras")

#: Prefixes of the names of the weights: nothing, PyTorch's parallel wrapper, the
#: keys of training checkpoints (big_transfer, `bit_pytorch/train.py`; timm, `train.py`),
#: and those of big_vision, now and before (`utils.py`, `load_params`).
_PREFIXES = (
    "",
    "params/",
    "opt/target/",
    "module.",
    "model/",
    "model/module.",
    "state_dict/",
    "state_dict/module.",
)

#: What PyTorch's BatchNorm counts, and no output depends on.
_COUNT = ".num_batches_tracked"

#: Next to weights without a prefix: those counts, and the state of Keras's optimizer.
_NO_WEIGHT = re.compile(rf"optimizer/.*|.*{re.escape(_COUNT)}")

_FLOATS = ("float16", "bfloat16", "float32", "float64")


class CheckpointFile(ArrayFileView):
    """The weights in a file of any format, under their official names and in their layout.

    Names lose the number that some files have after `standardized_conv2d`. A
    standardised stem convolution for images that have not three channels is read as
    the plain kernel that it amounts to, as networks of this package have it.

    Args:
        file: ArrayFile. It is closed with this object.
        allow_nonfinite: bool. Whether `verify` takes infinities and what is not a number.
            Defaults to `False`.

    Attributes:
        path: Path.
        shapes: dict from official name to shape, in the order of the file.
        dtypes: dict from official name to the dtype in the file.
        format: str. What file format it is, and in whose names, for example
            `"safetensors, timm"`.
        left_out: tuple of str. What is not a weight, such as an optimizer's state, by the
            names in the file.

    Raises:
        CheckpointError: None of its arrays has a known name, a name occurs twice, or
            weights are not floats.
    """

    def __init__(self, file: ArrayFile, allow_nonfinite: bool = False) -> None:
        super().__init__(file)
        self._allow_nonfinite = allow_nonfinite
        self._dialect, self._paths, self.left_out = _interpreted(file)
        self.format = f"{file.file_format}, {self._dialect.name}"
        shapes = {path: self._shape(name, KERAS) for name, path in self._paths.items()}
        official = official_names(shapes)
        #: The name in the file by official name.
        self._sources: dict[str, str] = {}
        self.shapes, self.dtypes = {}, {}
        left_out = set(self.left_out)
        for name in file:
            if name not in left_out:
                self._add(official.get(self._paths.get(name, ""), name), name)
        plain = self._dialect in (OFFICIAL_PLAIN_STEM, KERAS) or "norm/moving_mean" in shapes
        self._standardizes_stem = PLAIN_STEM in self.shapes and not plain
        if self._dialect is OFFICIAL_PLAIN_STEM and PLAIN_STEM not in self.shapes:
            raise CheckpointError(
                f"{self.path} has a stem convolution for {RGB} channels that is not standardised, "
                "and that of every BiT is; the file contains another network."
            )

    def _shape(self, name: str, target: Dialect) -> Shape:
        """The shape of an array in the layout of a dialect."""
        shape, path = self._arrays.shapes[name], self._paths.get(name)
        if path is not None:
            with contextlib.suppress(ValueError):  # Misshapen: shown as it is in the file.
                return rearranged_shape(shape, self._dialect.layout(path), target.layout(path))
        return shape

    def _add(self, official: str, name: str) -> None:
        if official in self._sources:
            raise CheckpointError(f"{self.path} contains the array {official!r} twice.")
        dtype = self._arrays.dtypes[name]
        if dtype not in _FLOATS:
            raise CheckpointError(
                f"{self.path} contains {dtype} values in {name!r}, and weights are floats of at "
                "most 64 bits. Save the arrays as float32."
            )
        self._sources[official] = name
        self.shapes[official], self.dtypes[official] = self._shape(name, OFFICIAL), dtype

    def __getitem__(self, official: str) -> np.ndarray:
        name = self._sources[official]
        array, path = self._arrays[name], self._paths.get(name)
        if path is not None:
            with contextlib.suppress(ValueError):
                array = rearranged(array, self._dialect.layout(path), OFFICIAL.layout(path))
        if official == PLAIN_STEM and self._standardizes_stem:
            array = standardized(array)
        return array

    def verify(self) -> None:
        """Reads everything once: compares checksums, and looks for values that are not finite.

        Raises:
            CheckpointError: A checksum differs, or a weight is not finite.
        """
        super().verify()
        if not self._allow_nonfinite:
            for name in self._sources.values():
                require_finite(self.path, name, self._arrays[name])


def open_checkpoint(path: str | os.PathLike, allow_nonfinite: bool = False) -> CheckpointFile:
    """Opens a checkpoint of any format, recognised by its content and not by its name.

    | what                                  | whose                                        |
    |---------------------------------------|----------------------------------------------|
    | npz                                   | the official files, big_vision, `bit_jax`    |
    | safetensors, PyTorch (never unpickled)| timm, transformers, `bit_pytorch`            |
    | folder with config.json               | transformers, timm's repositories            |
    | HDF5                                  | `bit_tf2`, by the order of its weights       |
    | .keras                                | this package                                 |
    | SavedModel                            | this package, TF Hub; by name or by order    |

    Opening reads names and shapes; values are read one array at a time, and none is
    unpickled.

    Args:
        path: A file or a folder.
        allow_nonfinite: bool. Take weights that are infinite or not a number, which `verify`
            and whatever fills a network refuse otherwise. Defaults to `False`.

    Returns:
        CheckpointFile, to be closed, or used in a `with` block.

    Raises:
        CheckpointError: No such file, a format that is not known, or a damaged file; an
            h5 file that is published under the name of another network.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.save_weights(model, "tiny.safetensors", format="timm")
    with bit_keras.checkpoints.open_checkpoint("tiny.safetensors") as arrays:
        print(arrays.format)  # safetensors, timm
        print(arrays["resnet/head/conv2d/kernel"].shape)  # (1, 1, 1024, 10)
    ```
    """
    path = Path(path)
    file = _open_folder(path) if path.is_dir() else _open_file(path)
    try:
        checkpoint = CheckpointFile(file, allow_nonfinite)
        if path.is_dir():
            require_same_network(path, identify(checkpoint.shapes))
    except BaseException:
        file.close()
        raise
    return checkpoint


def _open_folder(path: Path) -> ArrayFile:
    if is_saved_model(path):
        return SavedModelFile(path)
    for name in WEIGHTS_FILES:
        if (path / name).is_file():
            return _open_file(path / name)
    raise CheckpointError(
        f"{path} is a folder without weights: neither {' nor '.join(WEIGHTS_FILES)} is in it, as "
        f"next to the {CONFIG} of transformers or timm, nor is it a SavedModel."
    )


def _open_file(path: Path) -> ArrayFile:
    require_file(path, "a checkpoint")
    with path.open("rb") as file:
        start = file.read(8)
    if is_torch_file(path):
        return TorchFile(path)
    if start.startswith(b"PK"):
        return KerasFile(path) if is_keras_file(path) else NpzFile(path)
    if is_hdf5(path):
        require_own_name(path)
        return Hdf5File(path)
    if is_safetensors(path):
        return SafetensorsFile(path)
    raise CheckpointError(
        f"{path} is not a checkpoint of a known format: it begins with {start!r}. An npz, a "
        ".safetensors, a PyTorch file, an .h5 of `bit_tf2`, a .keras file, the folder of a "
        "transformers model or of a SavedModel can be read."
    )


def _interpreted(file: ArrayFile) -> tuple[Dialect, dict[str, str], tuple[str, ...]]:
    """Whose names a file has, the paths by these names, and the names of what is not a weight."""
    found: dict[tuple[str, Dialect], dict[str, str]] = {}
    for prefix in _PREFIXES:
        names = [name for name in file if name.startswith(prefix)]
        bare = {name: without_numbers(name.removeprefix(prefix)) for name in names}
        for dialect in DIALECTS:
            known = paths_by_name(dialect)
            found[prefix, dialect] = {
                name: known[bare[name]] for name in names if bare[name] in known
            }
    prefix, dialect = max(found, key=lambda key: len(found[key]))
    paths = found[prefix, dialect]
    if not paths:
        return BIT_TF2, _paths_by_order(file), ()
    left_out = [name for name in file if not name.startswith(prefix) or _NO_WEIGHT.fullmatch(name)]
    if any(not name.endswith(_COUNT) for name in left_out):
        _logger.info(
            "%s: %d arrays that are not weights are skipped, such as %s.",
            file.path.name,
            len(left_out),
            left_out[0],
        )
    return dialect, paths, tuple(left_out)


def _paths_by_order(file: ArrayFile) -> dict[str, str]:
    """The paths of weights whose names say nothing, by their order, where all shapes agree."""
    shapes = list(file.shapes.values())
    if isinstance(file, Hdf5File | SavedModelFile):
        # A head's bias is the last, where there is a head.
        widths = [None, *(shape[0] for shape in shapes[-1:] if len(shape) == 1)]
        for architecture, classes in itertools.product(ARCHITECTURES.values(), widths):
            ordered = bit_tf2_order(architecture.weight_shapes(classes))
            if architecture.normalization == "group" and list(ordered.values()) == shapes:
                return dict(zip(file, ordered, strict=True))
    names = ", ".join(list(file)[:3]) or "none"
    raise CheckpointError(
        f"{file.path} is not a network of the registry: of its {len(file)} arrays ({names}, ...) "
        "none has a name that a public implementation of BiT gives, and their shapes in order are "
        "not those of `bit_tf2`."
    )
