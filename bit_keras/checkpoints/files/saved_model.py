"""The variables of TensorFlow SavedModels."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_keras.checkpoints.files.array_file import (
    ArrayFile,
    ForeignError,
    damage_explained,
    in_native_dtype,
)
from bit_keras.checkpoints.files.tensor_bundle import checked_index
from bit_keras.errors import CheckpointError

# Only TensorFlow reads its own format; it is a requirement of this package, and imported on
# use, because the other backends have no need of it and it takes seconds.
if TYPE_CHECKING:
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

_MODEL = Path("saved_model.pb")
_INDEX = Path("variables", "variables.index")

#: Under which name TensorFlow stores what the variables belong to, and a variable's
#: value (`tensorflow/tensorflow`, python/trackable/base.py).
_GRAPH, _VALUE = "_CHECKPOINTABLE_OBJECT_GRAPH", "VARIABLE_VALUE"

#: Ten times that of the largest network of the registry.
_GRAPH_BYTES = 10_000_000

#: What follows the path of an object in a key.
_ATTRIBUTES = "/.ATTRIBUTES/"

#: How often something was saved, which is not a weight.
_COUNTER = "save_counter"


class SavedModelFile(ArrayFile):
    """The variables of a SavedModel, of a model of tf.keras or of TF Hub.

    Keras models and reusable SavedModels have a list `variables`: its content is read, in
    its order. Without such a list it is every variable but the slots of optimizers. The
    names are those that the variables were made with, or, where two have the same, the
    places in the list: `variables/0`.

    Args:
        path: The folder.

    Raises:
        CheckpointError: The folder is not a SavedModel, or is damaged.

    Example:

    ```python
    from bit_keras.exporters.hub import export_hub

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    export_hub(model, "tiny")
    with bit_keras.checkpoints.files.SavedModelFile("tiny") as arrays:
        print(arrays.shapes["head/kernel"])  # (1024, 10)
    ```
    """

    file_format = "SavedModel"

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(path)
        if not is_saved_model(self.path):
            raise CheckpointError(
                f"{self.path} is not a SavedModel with variables: a folder with {_MODEL} and "
                f"{_INDEX}."
            )
        #: The key in the checkpoint by name.
        self._keys: dict[str, str] = {}
        with _damage_explained(self.path):
            self._open()

    def _open(self) -> None:
        import tensorflow as tf
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        prefix = self.path / _INDEX.with_suffix("")
        entries = checked_index(prefix)
        self._reader: Any = tf.compat.v1.train.NewCheckpointReader(os.fspath(prefix))
        # TensorFlow 1 saved no graph of objects, and its keys are the names.
        keys = {key: key for key in sorted(entries)}
        if _GRAPH in entries:
            if entries[_GRAPH].shape or entries[_GRAPH].bytes > _GRAPH_BYTES:
                raise ValueError(f"its graph of objects has {entries[_GRAPH].bytes:,} bytes")
            graph = self._reader.get_tensor(_GRAPH)
            keys = _keys_by_name(trackable_object_graph_pb2.TrackableObjectGraph.FromString(graph))
        for name, key in keys.items():
            entry = entries[key]
            if not (entry.dtype.is_floating or entry.dtype.is_integer or entry.dtype.is_bool):
                raise ForeignError(
                    f"stores {name!r} as {entry.dtype.name}; save the weights as float32."
                )
            self._keys[name] = key
            self.shapes[name], self.dtypes[name] = entry.shape, entry.dtype.name

    def __getitem__(self, name: str) -> np.ndarray:
        key = self._keys[name]
        with _damage_explained(self.path, name):
            array = np.asarray(self._reader.get_tensor(key))
        return in_native_dtype(array, self.dtypes[name])

    def verify(self) -> None:
        for name in self:
            self[name]  # Whoever reads an array compares its checksum.

    def close(self) -> None:
        self._reader = None


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a SavedModel with variables."""
    return (path / _MODEL).is_file() and (path / _INDEX).is_file()


@contextlib.contextmanager
def _damage_explained(path: Path, name: str | None = None) -> Iterator[None]:
    """`damage_explained`, for what TensorFlow and its protocol buffers raise as well."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    with damage_explained(path, name):
        try:
            yield
        except (tf.errors.OpError, DecodeError) as error:
            raise ValueError(" ".join(str(error).split())) from error


def _keys_by_name(graph: "TrackableObjectGraph") -> dict[str, str]:
    """The keys of the values of all weights in a graph of objects."""
    root = {child.local_name: child.node_id for child in graph.nodes[0].children}
    if "variables" not in root:
        return _all_keys_by_name(graph)
    children = _node(graph, root["variables"]).children
    listed = sorted((int(child.local_name), child.node_id) for child in children)
    return _named({f"variables/{number}": _value(_node(graph, node)) for number, node in listed})


def _all_keys_by_name(graph: "TrackableObjectGraph") -> dict[str, str]:
    slots = {slot.slot_variable_node_id for node in graph.nodes for slot in node.slot_variables}
    values = [
        attribute
        for number, node in enumerate(graph.nodes)
        if number not in slots
        for attribute in node.attributes
        if attribute.name == _VALUE and attribute.full_name != _COUNTER
    ]
    return _named({value.checkpoint_key.partition(_ATTRIBUTES)[0]: value for value in values})


def _named(values: dict[str, Any]) -> dict[str, str]:
    """Keys by the names that the variables were made with, or by others if those repeat."""
    names = [value.full_name for value in values.values()]
    if not all(names) or len(set(names)) < len(names):
        names = list(values)
    return {name: value.checkpoint_key for name, value in zip(names, values.values(), strict=True)}


def _node(graph: "TrackableObjectGraph", number: int) -> Any:
    if not 0 <= number < len(graph.nodes):
        raise ValueError(f"its graph has no object {number}")
    return graph.nodes[number]


def _value(node: Any) -> Any:
    for attribute in node.attributes:
        if attribute.name == _VALUE:
            return attribute
    raise ValueError("its list of variables contains something else")
