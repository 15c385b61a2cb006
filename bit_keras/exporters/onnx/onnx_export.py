"""Target `onnx`: one file, with its weights in another next to it where they are large."""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np

from bit_keras.artifacts.checksums import DATA_SUFFIX, seal
from bit_keras.artifacts.members import METADATA, REFERENCE
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.onnx_entries import entries_of
from bit_keras.artifacts.reference import reference_bytes
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.opening import is_installed
from bit_keras.artifacts.runtimes.program import Layout, in_layout
from bit_keras.atomic import replaced_file, require_new, scratch_directory
from bit_keras.errors import ExportError
from bit_keras.exporters.calibration import required_calibration
from bit_keras.exporters.description import at_size, compared, describe
from bit_keras.exporters.outputs import ExportedNetwork, reference_outputs
from bit_keras.exporters.targets import OPSET, precision_of, require_suffix
from bit_keras.extras import require_extra
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.preprocessing.classifier_spec import network_side, size_for
from bit_keras.registry import checkpoint_of, model_info


def export_onnx(
    model: keras.Model | ExportedNetwork,
    path: str | os.PathLike,
    quantize: str = "none",
    size: int | None = None,
    input_range: tuple[float, float] = (-1.0, 1.0),
    spec: ClassifierSpec | None = None,
    calibration: Iterable[np.ndarray] | None = None,
    batch: int | None = None,
    opset: int = OPSET,
    layout: Layout = "nhwc",
    allow_nonfinite: bool = False,
) -> Metadata:
    """Writes a model as an ONNX file.

    Its input is `inputs`, float32 `(batch, height, width, 3)`, or with the layout `"nchw"`
    `inputs_nchw`, `(batch, 3, height, width)`; any batch is taken unless `batch` is given, and
    any height and width unless `size` is given. A classifier has the outputs `logits`,
    `probabilities` and `features`, an extractor `features`, all float32; further output levels
    have their channels last in either layout. Nodes and weights are named like the layers. The
    metadata, and a stored input and output for `bit_keras.artifacts.Artifact.verify`, are
    entries of the model's metadata; the last one is a checksum, and a file that differs is refused.

    With `quantize="float16"` weights and arithmetic are in float16, but for the statistics of
    GroupNorm and the sums of the head; with `"int8"` the head and all convolutions but the first
    are in 8 bits, weights by output channel, everything else in float32.

    Weights of 2 GB and more are in a second file, the name with `.data` appended: the
    two belong together.

    The options are described, and checked, by `bit_keras.export`, which calls this function.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError, SizeError, BitKerasError: As `bit_keras.export`.
    """
    path = Path(path)
    require_suffix("onnx", path)
    require_new(path, ExportError)
    packages = ("onnx",) if quantize == "none" else ("onnx", "onnxruntime")
    require_extra("onnx", *packages, purpose="Exporting to ONNX", error=ExportError)
    network = ExportedNetwork.of(model)
    metadata = describe(network.model, "onnx", input_range, spec, allow_nonfinite)
    metadata = at_any_size(metadata, network.model, size, spec)
    metadata = dataclasses.replace(
        metadata, precision=precision_of(quantize), folded=True, layout=layout
    )
    images = required_calibration(calibration, metadata)
    with _new_files(path) as file:
        if images is None:
            write_network(network, file, metadata, opset)
        else:
            _write_quantized(network, file, metadata, images, opset)
        if batch is not None:
            _fix_batch(file, batch)
        reference = reference_outputs(network, metadata)
        if is_installed("onnxruntime"):
            metadata = compared(metadata, lambda: open_program(file), reference, allow_nonfinite)
        _add_entries(file, metadata, reference)
    return metadata


def at_any_size(
    metadata: Metadata, model: keras.Model, size: int | None, spec: ClassifierSpec | None
) -> Metadata:
    """The metadata of a graph in ONNX for images of one size, or of any where none is given.

    Raises:
        SizeError, BitKerasError: As `bit_keras.export`.
    """
    versions = metadata.versions | {"onnx": importlib.metadata.version("onnx")}
    metadata = dataclasses.replace(metadata, versions=versions)
    side = size_for(checkpoint_of(model), network_side(model.input_shape), size)
    return metadata if side is None else at_size(metadata, model, side, spec)[0]


def write_network(
    network: ExportedNetwork,
    file: Path,
    metadata: Metadata,
    opset: int = OPSET,
) -> None:
    """Writes the graph of a network, and its weights next to it where they are large."""
    import onnx

    from bit_keras.exporters.onnx import weights as storage
    from bit_keras.exporters.onnx.graph import onnx_model

    model, half = network.model, metadata.precision == "float16"
    size_of_weights = model.count_params() * (2 if half else 4)
    checkpoint, activation = model_info(metadata.model), None
    if metadata.variant == "classification":
        activation = metadata.spec.activation if metadata.spec else checkpoint.activation
    with contextlib.ExitStack() as stack:
        weights = storage.Weights()
        if size_of_weights >= storage.EXTERNAL_DATA_FROM:
            data = file.with_name(file.name + DATA_SUFFIX)
            weights = storage.Weights(stack.enter_context(data.open("wb")), data.name)
        graph = onnx_model(
            model,
            weights,
            size=metadata.size,
            input_range=metadata.input_range,
            activation=activation,
            pool_border=checkpoint.architecture.pool_border,
            half=half,
            levels=network.levels,
            opset=opset,
            layout=metadata.layout,
        )
    onnx.save(graph, file)


def _write_quantized(
    network: ExportedNetwork,
    file: Path,
    metadata: Metadata,
    images: np.ndarray,
    opset: int,
) -> None:
    from bit_keras.exporters.onnx.graph import INPUTS
    from bit_keras.exporters.onnx.quantization import quantize_file

    low, high = metadata.input_range
    images = low + (images + 1) * ((high - low) / 2)
    # In a folder that does not stay: neither do its weights, which can be apart.
    full = file.with_name("float32.onnx")
    write_network(network, full, metadata, opset)
    quantize_file(full, file, INPUTS[metadata.layout], in_layout(images, metadata.layout))


def _fix_batch(file: Path, batch: int) -> None:
    """Closes the batch of a file, last: a file is calibrated with as many images as fit."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    # Shapes between them, which the quantisation has noted, have the open batch.
    del model.graph.value_info[:]
    onnx.save(model, file)


@contextlib.contextmanager
def _new_files(path: Path) -> Iterator[Path]:
    """Yields a file to write in a folder of its own; it becomes `path` with what is next to it."""
    with (
        replaced_file(path) as partial,
        scratch_directory(partial) as folder,
    ):
        file = folder / path.name
        yield file
        data = file.with_name(file.name + DATA_SUFFIX)
        # First, so that no model is ever without its weights.
        if data.exists():
            data.replace(path.with_name(data.name))
        file.replace(partial)


def _add_entries(file: Path, metadata: Metadata, reference: Mapping[str, np.ndarray]) -> None:
    """Adds the metadata, the reference outputs and the usual entries of a file; checks it all."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    members = {METADATA: metadata.to_json().encode(), REFERENCE: reference_bytes(reference)}
    low, high = metadata.input_range
    axes = "channels last" if metadata.layout == "nhwc" else "channels first"
    entries = {
        "model": metadata.model,
        "author": "bit_keras",
        "description": f"Images are RGB, {axes}, float32 in [{low:g}, {high:g}].",
        **entries_of(members),
    }
    if metadata.spec is not None:
        entries["labels"] = "\n".join(metadata.spec.labels.names)
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, file)
    seal(file)
    onnx.checker.check_model(file, full_check=True)
