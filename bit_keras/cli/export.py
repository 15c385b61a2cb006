"""`bit-keras export`: an artifact that other programs load."""

import functools
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bit_keras.artifacts.metadata import CALIBRATED, VARIANTS
from bit_keras.artifacts.runtimes.program import LAYOUTS
from bit_keras.atomic import require_new
from bit_keras.cli.manual import Command, option
from bit_keras.cli.parameters import (
    Integers,
    complete_sources,
    complete_weights,
    nonfinite_option,
    trust_option,
)
from bit_keras.cli.printing import megabytes, progress, progress_bar, start_keras
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.exporters.targets import (
    DEFAULT_SIGNATURES,
    OPSET,
    PRECISIONS,
    QUANTIZATIONS,
    require_onnx_options,
)
from bit_keras.registry import checkpoint_of
from bit_keras.sources import Source, resolve

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bit_keras.preprocessing import ClassifierSpec

_CALIBRATION = {"calibrate", "calibration_images", "calibration_split", "seed"}
_ONNX_OPTIONS = {"batch", "opset", "layout", "version"}
_SERVING_OPTIONS = {"version", "batch_sizes", "default_signature", "max_pixels"}

#: The options that only some targets take.
_OPTIONS = {
    "hub": {"input_range", "folded", "class_maps", "max_pixels"},
    "serving": {"input_range", "size", "precision", "class_maps", "layout", *_SERVING_OPTIONS},
    "tflite": {"input_range", "size", "quantize", "class_maps"} | _CALIBRATION,
    "onnx": {"input_range", "size", "quantize", "class_maps"} | _CALIBRATION | _ONNX_OPTIONS,
    "openvino": {"input_range", "size", "quantize", "class_maps"},
    "keras": set(),
}
_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}

#: The value of --layout that is the layout of a folder, not of images.
_TRITON = "triton"

#: Titles of the options that only some targets take, in the help.
_SMALLER, _SERVED, _ONNX = "Smaller files", "Serving", "ONNX"


class _Size(click.ParamType):
    name = "pixels"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if isinstance(value, int) or value == "dynamic":
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of pixels, nor dynamic.", param, ctx)


@click.command(
    "export",
    cls=Command,
    short_help="Export a model for other programs",
    examples=(
        (
            "A SavedModel that TF Hub's layers load, for fine-tuning elsewhere",
            "bit-keras export bit_r50x1.in21k --to hub --variant feature_extraction \\\n"
            "    --out r50x1",
        ),
        (
            "A second version for TF Serving, which computes in bfloat16",
            "bit-keras export run --to serving --version 2 --precision bfloat16 \\\n"
            "    --out serving",
        ),
        (
            "A file for phones, in 8-bit integers",
            "bit-keras export run --to tflite --quantize int8 --calibrate flowers/ \\\n"
            "    --out flowers.tflite",
        ),
        (
            "A file of fixed shape with channels first, for OpenCV and browsers",
            "bit-keras export run --to onnx --layout nchw --batch 1 --size 224 \\\n"
            "    --out flowers-nchw.onnx",
        ),
        (
            "A Keras file of weights that were downloaded elsewhere",
            "bit-keras export R50x1_160 --to keras --weights R50x1_160.npz \\\n"
            "    --out r50x1.keras",
        ),
    ),
    see_also=("verify", "benchmark", "predict", "collection"),
)
@click.argument("source", metavar="NAME|RUN", shell_complete=complete_sources)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Choice(tuple(_OPTIONS)),
    help="What the artifact is for, as above.",
)
@click.option(
    "--variant",
    default=VARIANTS[0],
    show_default=True,
    type=click.Choice(VARIANTS),
    help="What it answers: logits of classes, or pooled features.",
)
@click.option(
    "--weights",
    default="pretrained",
    show_default=True,
    metavar="pretrained|random|FILE",
    shell_complete=complete_weights,
    help="What a NAME is filled with: its own weights, reproducible random values for trying "
    "things out, or weights of any format.",
)
@click.option(
    "--input-range",
    type=click.Choice(tuple(_RANGES)),
    help="What callers scale pixels to: BiT's own range -1,1 (the default), or 0,1, the common "
    "one of TF Hub.  [all but keras]",
)
@option(
    "--folded",
    group=_SERVED,
    is_flag=True,
    help="Add the signatures of a server, with kernels standardised on loading.  [hub]",
)
@click.option(
    "--class-maps",
    is_flag=True,
    help="Also give maps of where each class is seen.  [all but keras]",
)
@click.option(
    "--size",
    metavar="PIXELS|dynamic",
    type=_Size(),
    help="Side of the images, where it is another; onnx and openvino take any without it, tflite "
    "with dynamic.  [serving, tflite, onnx, openvino]",
)
@option(
    "--quantize",
    group=_SMALLER,
    type=click.Choice(QUANTIZATIONS["tflite"]),
    help="How weights and arithmetic are made smaller; none by default. onnx has no dynamic and "
    "no int8-pure, openvino float16 alone.  [tflite, onnx, openvino]",
)
@option(
    "--calibrate",
    group=_SMALLER,
    metavar="DATA",
    type=click.Path(),
    help="Images to calibrate int8 and int8-pure with: a folder, a tar, or tfds:NAME.  "
    "[tflite, onnx]",
)
@option(
    "--calibration-images",
    group=_SMALLER,
    metavar="N",
    type=click.IntRange(min=1),
    help="How many of them to take, chosen at random; 200 by default.  [tflite, onnx]",
)
@option(
    "--calibration-split",
    group=_SMALLER,
    metavar="SPLIT",
    help="Which split of them to take, train by default.  [tflite, onnx]",
)
@option(
    "--seed",
    group=_SMALLER,
    metavar="N",
    type=click.IntRange(min=0),
    help="Of that random choice, 0 by default.  [tflite, onnx]",
)
@option(
    "--precision",
    group=_SERVED,
    type=click.Choice(PRECISIONS),
    help="What convolutions compute in; float32 by default.  [serving]",
)
@option(
    "--version",
    group=_SERVED,
    metavar="N",
    type=int,
    help="Number of the version, from 1, which is the default.  [serving, --layout triton]",
)
@option(
    "--batch-sizes",
    group=_SERVED,
    metavar="N,...|none",
    type=Integers(empty=True),
    help="Batch sizes to warm a server up with, 1,2,4,8 by default.  [serving]",
)
@option(
    "--max-pixels",
    group=_SERVED,
    metavar="N",
    type=int,
    help="The most pixels of an image that a server decodes; 25,000,000 by default.  [serving, "
    "hub with --folded]",
)
@option(
    "--default-signature",
    group=_SERVED,
    type=click.Choice(DEFAULT_SIGNATURES),
    help="What serving_default takes: inputs, images as numbers (the default), or image_bytes, "
    "image files, for managed endpoints that call no other signature.  [serving]",
)
@option(
    "--batch",
    group=_ONNX,
    metavar="N",
    type=int,
    help="The only number of images that the file takes at once; any by default.  [onnx]",
)
@option(
    "--opset",
    group=_ONNX,
    metavar="N",
    type=int,
    help=f"Version of the operators; {OPSET} by default.  [onnx]",
)
@option(
    "--layout",
    group=_ONNX,
    type=click.Choice((*LAYOUTS, _TRITON)),
    help="The order of the axes of the images: nhwc, channels last (the default), or nchw, as "
    "OpenCV and most vision code in browsers have them. triton writes a folder of Triton's model "
    "repository, with channels last.  [onnx; triton also serving]",
)
@click.option(
    "--out",
    required=True,
    metavar="OUT",
    type=click.Path(path_type=Path),
    help="Where to write; what exists is not overwritten.",
)
@trust_option
@nonfinite_option
def command(
    source: str,
    target: str,
    variant: str,
    weights: str,
    input_range: str | None,
    out: Path,
    trust: bool,
    allow_nonfinite: bool,
    **options: Any,
) -> None:
    """Export the model NAME, or a fine-tuned one, to OUT.

    RUN is the folder of a fine-tuning run, a .keras file, or a file or a folder of weights of
    any format.

    What OUT is, --to says:

    \b
    - hub: a new folder, a SavedModel that TF Hub's layers load
    - serving: a folder that gets a version, a SavedModel for TF Serving
    - tflite: a file for LiteRT, on phones
    - onnx: a file for ONNX Runtime; its name ends in .onnx
    - openvino: a new folder of OpenVINO IR
    - keras: a file for Keras; its name ends in .keras

    An option that only some of them take names these in brackets.
    """
    # Not `in (None, False)`: zero equals False, and is to be refused in a sentence.
    options = {
        name: value for name, value in options.items() if value is not None and value is not False
    }
    if input_range is not None:
        options["input_range"] = _RANGES[input_range]
    if "class_maps" in options:
        _require_class_maps(target, variant, options)
    _require_fitting(target, options)
    named = resolve(source)
    stored = named.checkpoint is None
    if stored and weights != "pretrained":
        raise click.UsageError(f"{source} has weights of its own; --weights goes with a NAME.")
    name = source if named.checkpoint is None else named.checkpoint.name
    versioned = target == "serving" or options.get("layout") == _TRITON
    written = out / str(options.get("version", 1)) if versioned else out
    require_new(written)  # Before the minutes that a large network takes.

    start = time.perf_counter()
    with progress(f"Building {name}"):
        start_keras()
        from bit_keras.exporters.keras_archive import require_keras_name

        if target == "keras":
            require_keras_name(out)
        if stored:
            model, spec = _load(named, variant, trust, allow_nonfinite)
        else:
            model, spec = _build(name, variant, weights, allow_nonfinite), None
    if "calibrate" in options:
        options["calibration"] = _calibration(model, spec, options)
    with progress(f"Writing {written}"):
        if allow_nonfinite:
            options["allow_nonfinite"] = True
        _write(model, spec, target, out, options)
    files = [out] if out.is_file() else [file for file in written.rglob("*") if file.is_file()]
    click.echo(
        f"Wrote {written}: {model.name}, {variant}, input in [{_range(target, options)}], "
        f"{megabytes(sum(file.stat().st_size for file in files))} "
        f"in {time.perf_counter() - start:.0f} s."
    )
    click.echo(f"Check it with `{shlex.join(['bit-keras', 'verify', str(written)])}`.")


def _range(target: str, options: dict[str, Any]) -> str:
    """What the images of an artifact are scaled to."""
    low, high = options.get("input_range", _RANGES["-1,1"])
    pixels = target == "tflite" and options.get("quantize") in CALIBRATED
    return "0,255" if pixels else f"{low:g},{high:g}"


def _require_fitting(target: str, options: dict[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS[target]:
            fitting = [target for target, names in _OPTIONS.items() if name in names]
            raise click.UsageError(
                f"--{name.replace('_', '-')} goes with --to {' or '.join(fitting)}."
            )
    _require_fitting_layout(target, options)
    quantize = options.get("quantize", "none")
    if quantize not in QUANTIZATIONS.get(target, ("none",)):
        raise click.UsageError(
            f"--to {target} is quantised to {', '.join(QUANTIZATIONS[target])}; got {quantize}."
        )
    if target == "onnx":
        of_onnx = {
            name: options[name]
            for name in ("batch", "opset", "layout")
            if name in options and options[name] != _TRITON
        }
        try:
            require_onnx_options(quantize, **of_onnx)
        except ExportError as error:
            raise click.UsageError(str(error)) from None
    if target == "hub" and "max_pixels" in options and "folded" not in options:
        raise click.UsageError("With --to hub, --max-pixels goes with --folded.")
    if options.get("size") == "dynamic" and target != "tflite":
        raise click.UsageError("--size dynamic goes with --to tflite.")
    given = [name for name in sorted(_CALIBRATION) if name in options]
    if quantize in CALIBRATED and "calibrate" not in options:
        raise click.UsageError(
            f"--quantize {quantize} is calibrated with images; name a folder, a tar or tfds:NAME "
            "with --calibrate."
        )
    if given and quantize not in CALIBRATED:
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} goes with --quantize {' or '.join(CALIBRATED)}."
        )


def _require_fitting_layout(target: str, options: dict[str, Any]) -> None:
    triton = options.get("layout") == _TRITON
    if target == "serving" and "layout" in options and not triton:
        raise click.UsageError(f"--layout {options['layout']} goes with --to onnx.")
    if target == "onnx" and "version" in options and not triton:
        raise click.UsageError("--version goes with --to serving or --layout triton.")
    if triton and "batch_sizes" in options:
        raise click.UsageError(
            "--batch-sizes is for TensorFlow Serving; with --layout triton edit config.pbtxt."
        )


def _require_class_maps(target: str, variant: str, options: dict[str, Any]) -> None:
    if target == "keras":
        raise click.UsageError(
            "A .keras file needs no --class-maps: bit_keras.create_class_maps gives those of the "
            "network in it."
        )
    if variant != "classification":
        raise click.UsageError("--class-maps goes with --variant classification.")
    if target == "tflite" and options.get("quantize") in CALIBRATED:
        floats = [name for name in QUANTIZATIONS[target] if name not in CALIBRATED]
        raise click.UsageError(
            f"With --to tflite, --class-maps goes with --quantize {' or '.join(floats)}."
        )


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
    """The images that the options of a calibration name; takes these out of `options`."""
    from bit_keras.exporters.calibration import COUNT, calibration_images
    from bit_keras.exporters.specs import transform_and_spec

    size = options.get("size")
    transform, _ = transform_and_spec(model, None if size == "dynamic" else size, spec)
    count = options.pop("calibration_images", COUNT)
    with progress_bar("Calibrating", count) as advance:
        return calibration_images(
            options.pop("calibrate"),
            transform,
            count,
            options.pop("calibration_split", None),
            options.pop("seed", 0),
            advance,
        )


def _write(
    model: "keras.Model",
    spec: "ClassifierSpec | None",
    target: str,
    out: Path,
    options: dict[str, Any],
) -> None:
    exporter: Callable[..., Any]
    if options.get("layout") == _TRITON:
        from bit_keras.exporters.triton import export_triton

        exporter = functools.partial(export_triton, target=target)
        options = {name: value for name, value in options.items() if name != "layout"}
    elif target == "hub":
        from bit_keras.exporters.hub import export_hub

        exporter = export_hub
    elif target == "serving":
        from bit_keras.exporters.serving import export_serving

        exporter = export_serving
    elif target == "tflite":
        from bit_keras.exporters.tflite import export_tflite

        exporter = export_tflite
    elif target == "onnx":
        from bit_keras.exporters.onnx import export_onnx

        exporter = export_onnx
    elif target == "openvino":
        from bit_keras.exporters.openvino_ir import export_openvino

        exporter = export_openvino
    else:
        from bit_keras.exporters.keras_archive import export_keras

        exporter = export_keras
    exporter(model, out, spec=spec, **options)
