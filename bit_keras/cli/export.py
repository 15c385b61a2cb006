"""`bit-keras export`: an artifact that other programs load."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bit_keras.artifacts.members import size_of
from bit_keras.artifacts.metadata import CALIBRATED, VARIANTS, Variant
from bit_keras.atomic import require_new
from bit_keras.cli import printing
from bit_keras.cli.manual import documented_command, option, path_option
from bit_keras.cli.parameters import (
    complete_sources,
    complete_weights,
    integers_or_none,
    nonfinite_option,
    trust_option,
)
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.exporters import export
from bit_keras.exporters.targets import (
    INPUT_RANGES,
    NEEDS,
    OPSET,
    TARGETS,
    artifact_path,
    check_options,
    given_options,
    on_command_line,
    require_suffix,
)
from bit_keras.registry import checkpoint_of
from bit_keras.sources import Source, resolve

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bit_keras.preprocessing import ClassifierSpec

#: The options that say which images calibrate a file; they go with --calibrate.
_CALIBRATION = ("calibration_images", "calibration_split", "seed")

_RANGES = {",".join(f"{end:g}" for end in input_range): input_range for input_range in INPUT_RANGES}


def _of_targets(name: str, *flags: str, **attributes: Any) -> Callable:
    """An option that only some targets take; its help ends with their names in brackets.

    Its type is a choice of the values in the table of targets, if these are listed there.
    """
    values = max((target.options.get(name) or () for target in TARGETS.values()), key=len)
    if values:
        attributes.setdefault("type", click.Choice(values))
    attributes["help"] += f"  [{_taken_by('calibration' if name in _CALIBRATION else name)}]"
    return option(*(flags or (on_command_line(name),)), name, **attributes)


def _taken_by(name: str) -> str:
    """The targets that take an option, and what it needs where only one of them needs it."""
    fitting = {target: target for target, known in TARGETS.items() if name in known.options}
    needs = {need.target: need for need in NEEDS if need.option == name}
    for target, need in needs.items():
        if len(needs) == 1 and len(need.values) == 1:
            fitting[target] += f" with {on_command_line(need.other, *need.values)}"
    left = TARGETS.keys() - fitting.keys()
    return f"all but {left.pop()}" if len(left) == 1 else ", ".join(fitting.values())


_HELP = f"""Export the model NAME, or a fine-tuned one, to OUT.

RUN is the folder of a fine-tuning run, a .keras file, or a file or a folder of weights of
any format.

--to chooses what OUT is:

\b
{chr(10).join(f"- {name}: {target.writes}" for name, target in TARGETS.items())}

An option that only some of them take names these in brackets.

Examples:
    A SavedModel that TF Hub's layers load, for fine-tuning elsewhere:
        bit-keras export bit_r50x1.in21k --to hub --variant feature_extraction \\
            --out r50x1
    A second version for TF Serving, which computes in bfloat16:
        bit-keras export run --to serving --version 2 --precision bfloat16 \\
            --out serving
    A file for phones, in 8-bit integers:
        bit-keras export run --to tflite --quantize int8 --calibrate flowers/ \\
            --out flowers.tflite
    A file of fixed shape with channels first, for OpenCV and browsers:
        bit-keras export run --to onnx --layout nchw --batch 1 --size 224 \\
            --out flowers-nchw.onnx
    A Keras file of weights that were downloaded elsewhere:
        bit-keras export R50x1_160 --to keras --weights R50x1_160.npz \\
            --out r50x1.keras
"""


def _size(value: str) -> int | str:
    try:
        return value if value == "dynamic" else int(value)
    except ValueError:
        message = f"{value!r} is not a number of pixels, nor dynamic."
        raise click.BadParameter(message) from None


@documented_command(
    "export",
    help=_HELP,
    short_help="Export a model for other programs",
    groups={
        "Serving": (
            "folded",
            "precision",
            "version",
            "batch_sizes",
            "max_pixels",
            "default_signature",
        ),
        "Smaller files": ("quantize", "calibration", *_CALIBRATION),
        "ONNX": ("batch", "opset", "layout"),
    },
    see_also=("verify", "benchmark", "predict", "collection"),
)
@click.argument("source", metavar="NAME|RUN", shell_complete=complete_sources)
@option(
    "--to",
    "target",
    required=True,
    type=click.Choice(tuple(TARGETS)),
    help="What the artifact is for, as above.",
)
@option(
    "--variant",
    default=VARIANTS[0],
    type=click.Choice(VARIANTS),
    help="What it returns: logits of classes, or pooled features.",
)
@option(
    "--weights",
    default="pretrained",
    metavar="pretrained|random|FILE",
    shell_complete=complete_weights,
    help="What a NAME is filled with: its own weights, reproducible random values for trying "
    "things out, or weights of any format.",
)
@_of_targets(
    "input_range",
    type=click.Choice(tuple(_RANGES)),
    callback=lambda ctx, option, value: _RANGES.get(value),
    help="What callers scale pixels to: BiT's own range -1,1 (the default), or 0,1, the common "
    "one of TF Hub.",
)
@_of_targets(
    "folded",
    is_flag=True,
    help="Add the signatures of a server, with kernels standardised on loading.",
)
@_of_targets("class_maps", is_flag=True, help="Add class activation maps to the outputs.")
@_of_targets(
    "size",
    metavar="PIXELS|dynamic",
    type=_size,
    help="Side of the images, unless that of the model; onnx and openvino take any without it, "
    "tflite with dynamic.",
)
@_of_targets(
    "quantize",
    help="How weights and arithmetic are made smaller; none by default. onnx has neither dynamic "
    "nor int8-pure, openvino only float16.",
)
@_of_targets(
    "calibration",
    metavar="DATA",
    type=click.Path(),
    help="Images to calibrate int8 and int8-pure with: a folder, a tar, or tfds:NAME.",
)
@_of_targets(
    "calibration_images",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many of them to take, chosen at random; 200 by default.",
)
@_of_targets(
    "calibration_split",
    metavar="SPLIT",
    help="Which split of them to take, train by default.",
)
@_of_targets(
    "seed",
    metavar="N",
    type=click.IntRange(min=0),
    help="Seed of that random choice, 0 by default.",
)
@_of_targets(
    "precision",
    help="What convolutions compute in; float32 by default.",
)
@_of_targets(
    "version",
    metavar="N",
    type=int,
    help="Number of the version, from 1, which is the default.",
)
@_of_targets(
    "batch_sizes",
    metavar="N,...|none",
    type=integers_or_none,
    help="Batch sizes to warm a server up with, 1,2,4,8 by default.",
)
@_of_targets(
    "max_pixels",
    metavar="N",
    type=int,
    help="The most pixels of an image that a server decodes; 25,000,000 by default.",
)
@_of_targets(
    "default_signature",
    help="What serving_default takes: inputs, images as numbers (the default), or image_bytes, "
    "image files, for managed endpoints that call no other signature.",
)
@_of_targets(
    "batch",
    metavar="N",
    type=int,
    help="The only number of images that the file takes at once; any by default.",
)
@_of_targets(
    "opset",
    metavar="N",
    type=int,
    help=f"Version of the operators; {OPSET} by default.",
)
@_of_targets(
    "layout",
    help="The order of the axes of the images: nhwc, channels last (the default), or nchw, as "
    "OpenCV and most vision code in browsers have them. triton writes a folder of Triton's model "
    "repository, with channels last; serving takes only triton.",
)
@path_option(
    "--out",
    required=True,
    metavar="OUT",
    help="Where to write; what exists is not overwritten.",
)
@trust_option
@nonfinite_option
def command(
    source: str,
    target: str,
    variant: Variant,
    weights: str,
    out: Path,
    trust: bool,
    allow_nonfinite: bool,
    **options: Any,
) -> None:
    options = given_options(options)
    _check_usage(target, variant, options)
    named = resolve(source)
    stored = named.checkpoint is None
    if stored and weights != "pretrained":
        raise click.UsageError(f"{source} has weights of its own; --weights goes with a NAME.")
    name = source if named.checkpoint is None else named.checkpoint.name
    written = artifact_path(out, target, options)
    if written == out:
        require_suffix(target, out)
    require_new(written)  # Before the minutes that a large network takes.

    start = time.perf_counter()
    with printing.progress(f"Building {name}"):
        printing.start_keras()
        if stored:
            model, spec = _load(named, variant, trust, allow_nonfinite)
        else:
            model, spec = _build(name, variant, weights, allow_nonfinite), None
    if "calibration" in options:
        options["calibration"] = _calibration(model, spec, options)
    with printing.progress(f"Writing {written}"):
        metadata = export(model, out, target, spec=spec, allow_nonfinite=allow_nonfinite, **options)
    click.echo(
        f"Wrote {written}: {model.name}, {variant}, "
        f"input in [{','.join(f'{end:g}' for end in metadata.input_range)}], "
        f"{printing.megabytes(size_of(written))} "
        f"in {time.perf_counter() - start:.0f} s."
    )
    click.echo(f"Check it with `{shlex.join(['bit-keras', 'verify', str(written)])}`.")


def _check_usage(target: str, variant: Variant, options: dict[str, Any]) -> None:
    """Checks the command line before the minutes that a large network takes."""
    for name in _CALIBRATION:
        if name in options and "calibration" not in options:
            flags = on_command_line(name), on_command_line("calibration")
            raise click.UsageError(
                f"{flags[0]} goes with {flags[1]} and {on_command_line('quantize', *CALIBRATED)}."
            )
    of_target = {name: value for name, value in options.items() if name not in _CALIBRATION}
    try:
        check_options(target, variant, of_target, on_command_line)
    except ExportError as error:
        raise click.UsageError(str(error)) from None


def _load(
    source: Source, variant: str, trust: bool, allow_nonfinite: bool
) -> "tuple[keras.Model, ClassifierSpec | None]":
    from bit_keras.inference import load_network
    from bit_keras.layers.functional import Functional

    model, spec = load_network(source, trust, allow_nonfinite)
    if variant == "feature_extraction":
        features = model.get_layer("features").output
        checkpoint = checkpoint_of(model)
        return Functional(model.input, features, name=model.name, checkpoint=checkpoint), spec
    if not any(layer.name == "head" for layer in model.layers):
        raise BitKerasError(
            f"{source.name} has no head; export it with --variant feature_extraction."
        )
    return model, spec


def _build(name: str, variant: str, weights: str, allow_nonfinite: bool) -> "keras.Model":
    from bit_keras.checkpoints import fill_with_seeded_values, load_weights
    from bit_keras.models import create_classifier, create_feature_extractor

    builder = create_classifier if variant == "classification" else create_feature_extractor
    if weights != "random" and not allow_nonfinite:
        return builder(name, weights=weights)
    model = builder(name, weights=None)
    if weights == "random":
        fill_with_seeded_values(model)
    else:
        named = resolve(name if weights == "pretrained" else weights)
        load_weights(model, named.weights(), True)
    return model


def _calibration(
    model: "keras.Model", spec: "ClassifierSpec | None", options: dict[str, Any]
) -> "np.ndarray":
    """Reads the images that calibrate a file; removes the options that choose them."""
    from bit_keras.exporters.calibration import COUNT, calibration_images
    from bit_keras.exporters.specs import transform_and_spec

    size = options.get("size")
    transform, _ = transform_and_spec(model, None if size == "dynamic" else size, spec)
    count = options.pop("calibration_images", COUNT)
    with printing.progress_bar("Calibrating", count) as advance:
        return calibration_images(
            options["calibration"],
            transform,
            count,
            options.pop("calibration_split", None),
            options.pop("seed", 0),
            advance,
        )
