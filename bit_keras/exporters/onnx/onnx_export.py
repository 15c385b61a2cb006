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
from bit_keras.artifacts.reference import quantised_tolerance, reference_bytes, reference_difference
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.opening import is_installed
from bit_keras.artifacts.runtimes.program import Layout, in_layout
from bit_keras.atomic import replaced_file, require_new, scratch_directory
from bit_keras.errors import ExportError
from bit_keras.exporters.description import describe
from bit_keras.exporters.outputs import ExportedNetwork, reference_outputs
from bit_keras.exporters.specs import transform_and_spec
from bit_keras.exporters.targets import OPSET, precision_of
from bit_keras.extras import require_extra
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.preprocessing.classifier_spec import Activation, network_side, size_for
from bit_keras.registry import RGB, checkpoint_of, model_info


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
    _require_new_onnx_file(path)
    packages = ("onnx",) if quantize == "none" else ("onnx", "onnxruntime")
    require_extra("onnx", *packages, purpose="Exporting to ONNX", error=ExportError)
    network = ExportedNetwork.of(model)
    metadata = described(
        network.model, "onnx", quantize, size, input_range, spec, layout, allow_nonfinite
    )
    images = _calibration_images(calibration, metadata) if quantize == "int8" else None
    with _new_files(path) as file:
        if images is None:
            write_network(network, file, metadata, opset)
        else:
            _write_quantized(network, file, metadata, images, opset)
        if batch is not None:
            _fix_batch(file, batch)
        reference = reference_outputs(network, metadata)
        if quantize != "none":
            tolerance = quantised_tolerance(difference(file, reference))
            metadata = dataclasses.replace(metadata, tolerance=tolerance)
        elif is_installed("onnxruntime") and not allow_nonfinite:
            require_same_function(file, reference, metadata)
        _add_entries(file, metadata, reference)
    return metadata


def described(
    model: keras.Model,
    target: str,
    quantize: str,
    size: int | None,
    input_range: tuple[float, float],
    spec: ClassifierSpec | None,
    layout: Layout = "nhwc",
    allow_nonfinite: bool = False,
) -> Metadata:
    """What a file is going to be, with the tolerance of float32.

    Raises:
        ExportError, SizeError, BitKerasError: As `export_onnx`.
    """
    metadata = describe(model, target, input_range, spec, allow_nonfinite)
    side = size_for(checkpoint_of(model), network_side(model.input_shape), size)
    if side is not None:
        _, spec = transform_and_spec(model, side, spec)
        metadata = dataclasses.replace(metadata, task=None if spec is None else spec.to_json())
    return dataclasses.replace(
        metadata,
        precision=precision_of(quantize),
        folded=True,
        size=side,
        layout=layout,
        versions=metadata.versions | {"onnx": importlib.metadata.version("onnx")},
    )


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
            activation=_activation(metadata),
            pool_border=model_info(metadata.model).architecture.pool_border,
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


def _activation(metadata: Metadata) -> Activation | None:
    if metadata.variant == "feature_extraction":
        return None
    if metadata.task is None:
        return model_info(metadata.model).activation
    return metadata.task["activation"]


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


def require_same_function(
    file: Path, reference: Mapping[str, np.ndarray], metadata: Metadata
) -> None:
    """Raises where a file that is not quantised computes something else than the network."""
    largest = difference(file, reference)
    if largest > metadata.tolerance:
        raise ExportError(
            f"The file computes something else than {metadata.model}: its outputs differ by "
            f"{largest:.1g}, and {metadata.tolerance:g} is the most that is written. Export it "
            "with --to keras, which changes nothing."
        )


def difference(file: Path, reference: Mapping[str, np.ndarray]) -> float:
    """The largest relative difference that quantisation brought to a reference output."""
    outputs = open_program(file)(reference["inputs"])
    # The head of a new network returns zeros, which no difference is in units of.
    compared = [name for name in outputs if name in reference and reference[name].any()]
    largest = max(
        (reference_difference(name, outputs[name], reference) for name in compared), default=0.0
    )
    if not np.isfinite(largest):
        raise ExportError(
            "The outputs are infinite: values of the network exceed the range of the "
            "quantisation. Export it with quantize='none'."
        )
    return largest


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
    if metadata.task is not None:
        entries["labels"] = "\n".join(ClassifierSpec.from_json(metadata.task).labels.names)
    onnx.helper.set_model_props(model, entries)
    onnx.save(model, file)
    seal(file)
    onnx.checker.check_model(file, full_check=True)


def _calibration_images(calibration: Iterable[np.ndarray] | None, metadata: Metadata) -> np.ndarray:
    """The images that a file is calibrated with, in the range that it takes."""
    images = [] if calibration is None else [np.asarray(image) for image in calibration]
    if not images:
        raise ExportError(
            "A file in int8 is calibrated with images, a hundred or more. Received: "
            f"calibration={calibration}"
        )
    side = metadata.size or images[0].shape[0]
    for image in images:
        if image.shape != (side, side, RGB):
            raise ExportError(
                f"Calibration images are float32 arrays ({side}, {side}, {RGB}). Received: "
                f"{image.dtype} {image.shape}"
            )
    low, high = metadata.input_range
    return (low + (np.stack(images) + 1) * ((high - low) / 2)).astype(np.float32)


def _require_new_onnx_file(path: Path) -> None:
    if path.suffix != ".onnx":
        raise ExportError(f"The name of an ONNX file ends in .onnx; {path} does not.")
    require_new(path, ExportError)
