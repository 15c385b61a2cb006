"""HDF5 files with the weights of tf.keras (Keras 2), and datasets of HDF5 in any file.

The names in such files are not reliable. They come from the scopes in which the
variables were made, and those differ by version of TensorFlow: the same network gives
`block1/unit01/a/group_norm/gamma:0` or `group_norm/gamma:0`. What does not differ is
the order, which the file keeps in attributes.

HDF5 of this layout has no checksums. What contradicts itself or the size of the file is
refused; a changed value, or a place that was moved to where nothing else is, cannot
be seen.
"""

from pathlib import Path

from bit_keras.checkpoints.files.array_file import BinaryFile, ForeignError
from bit_keras.checkpoints.files.hdf5_objects import SIGNATURE, Objects

#: The layers' names, in a file with nothing but weights and in one with a whole model
#: (`keras-team/tf-keras`, saving/legacy/hdf5_format.py).
_LAYERS, _WHOLE_MODEL = "layer_names", "model_weights"

#: The weights that a model has besides those of its layers.
_OWN_WEIGHTS = "top_level_model_weights"


class Hdf5File(BinaryFile):
    """The weights in an HDF5 file of tf.keras, in the order in which it saved them.

    Files of `save_weights` are read, and those of whole models. A name is the path of
    the dataset below the weights: that of the layer, then that of the weight.

    Args:
        path: The file.

    Raises:
        CheckpointError: The file is not a HDF5, is damaged, contains no weights of tf.keras
            or more than its attributes name, or contains them in another way than Keras
            writes them.
    """

    file_format, expected = "tf.keras h5", "an HDF5 file"

    def _read_metadata(self) -> None:
        if not is_hdf5(self.path):
            raise ForeignError("is not an HDF5 file.")
        # Next to the weights of a whole model, anything may be.
        branch = _WHOLE_MODEL, _LAYERS
        objects = Objects(self._file, self._start, self.path.stat().st_size, branch)
        root = "" if objects.has_names("", _LAYERS) else _WHOLE_MODEL
        if not objects.has_names(root, _LAYERS):
            raise ForeignError(
                f"is an HDF5 file without the attribute {_LAYERS!r}, so it contains no weights of "
                "tf.keras; give a file that its `save_weights` wrote."
            )
        prefix = f"{root}/" if root else ""
        found = {
            path.removeprefix(prefix): dataset
            for path, dataset in objects.datasets.items()
            if path.startswith(prefix)
        }
        layers = objects.names(root, _LAYERS)
        if prefix + _OWN_WEIGHTS in objects.groups and _OWN_WEIGHTS not in layers:
            layers.append(_OWN_WEIGHTS)
        for layer in layers:
            for weight in objects.names(prefix + layer, "weight_names"):
                name = f"{layer}/{weight}"
                if name not in found:
                    raise ValueError(f"it names a weight {name!r} that is not there")
                self._add(name, found[name])
        unnamed = found.keys() - self.shapes.keys()
        if unnamed:
            raise ForeignError(
                f"contains {min(unnamed)!r}, which its attributes do not name; only files as "
                "tf.keras writes them are read."
            )


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5, by its content."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(SIGNATURE)) == SIGNATURE
