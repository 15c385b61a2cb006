"""`bit-keras export`: an artifact that other programs load."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bit_keras.cli.parameters import Integers
from bit_keras.cli.printing import megabytes, progress, progress_bar, start_keras
from bit_keras.errors import BitKerasError
from bit_keras.export.artifact import CALIBRATED, PRECISIONS, QUANTIZATIONS, VARIANTS
from bit_keras.registry import model_info

if TYPE_CHECKING:
    import keras
    import numpy as np

    from bit_keras.preprocessing import Task

_CALIBRATION = {"calibrate", "calibration_images", "calibration_split", "seed"}

#: The options that only some targets take.
_OPTIONS = {
    "hub": {"input_range", "folded"},
    "serving": {"input_range", "size", "precision", "version", "batch_sizes"},
    "tflite": {"input_range", "size", "quantize"} | _CALIBRATION,
    "onnx": {"input_range", "size", "quantize"} | _CALIBRATION,
    "openvino": {"input_range", "size", "quantize"},
    "keras": set(),
}
_RANGES = {"-1,1": (-1.0, 1.0), "0,1": (0.0, 1.0)}


class _Size(click.ParamType):
    name = "pixels|dynamic"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if isinstance(value, int) or value == "dynamic":
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of pixels, nor dynamic.", param, ctx)


@click.command("export", short_help="Export a model for other programs.")
@click.argument("source", metavar="NAME|RUN")
@click.option("--to", "target", required=True, type=click.Choice(tuple(_OPTIONS)))
@click.option("--variant", default=VARIANTS[0], show_default=True, type=click.Choice(VARIANTS))
@click.option(
    "--weights",
    default="pretrained",
    show_default=True,
    metavar="pretrained|random|FILE",
    help="random: reproducible values, for trying things out.",
)
@click.option(
    "--input-range",
    type=click.Choice(tuple(_RANGES)),
    help="What callers scale pixels to: BiT's own range -1,1 (the default), or 0,1, the common "
    "one of TF Hub.  [all but keras]",
)
@click.option(
    "--folded",
    is_flag=True,
    help="Add the signatures of a server, with kernels standardised on loading.  [hub]",
)
@click.option(
    "--size",
    type=_Size(),
    help="Side of the images, where it is another; onnx and openvino take any without it, tflite "
    "with dynamic.  [serving, tflite, onnx, openvino]",
)
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZATIONS["tflite"]),
    help="How weights and arithmetic are made smaller; none by default. onnx has no dynamic and "
    "no int8-pure, openvino float16 alone.  [tflite, onnx, openvino]",
)
@click.option(
    "--calibrate",
    metavar="DATA",
    help="Pictures to calibrate int8 and int8-pure with: a folder, a tar, or tfds:NAME.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    help="How many of them, 200 by default, chosen at random.",
)
@click.option("--calibration-split", help="Which split of them, train by default.")
@click.option("--seed", type=click.IntRange(min=0), help="Of that choice, 0 by default.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What convolutions compute in; float32 by default.  [serving]",
)
@click.option("--version", type=int, help="Number of the version, 1 by default.  [serving]")
@click.option(
    "--batch-sizes",
    type=Integers(empty=True),
    help="Batch sizes to warm a server up with, 1,2,4,8 by default, or none.  [serving]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path))
def command(
    source: str,
    target: str,
    variant: str,
    weights: str,
    input_range: str | None,
    out: Path,
    **options: Any,
) -> None:
    """Export the model NAME, or a fine-tuned one, to --out.

    RUN is the folder of a fine-tuning run, a .keras file, or a file or a folder of
    weights of any format.
    --to hub writes a folder that does not exist yet, --to serving the folder of one
    version into --out, --to openvino a folder, --to tflite, onnx and keras a file; the
    names of the last two end in .onnx and .keras.

    \b
    Examples:
      bit-keras export bit_r50x1.in21k --to hub --out r50x1
      bit-keras export run --to keras --out flowers.keras
      bit-keras export R50x1_160 --to serving --weights R50x1_160.npz --out r50x1_160
      bit-keras export run --to serving --version 2 --precision bfloat16 --out flowers
      bit-keras export run --to tflite --quantize int8 --calibrate photos/ --out flowers.tflite
      bit-keras export run --to onnx --out flowers.onnx
    """
    # Not `in (None, False)`: zero equals False, and is to be refused in a sentence.
    options = {name: value for name, value in options.items() if value is not None}
    if not options["folded"]:
        del options["folded"]
    if input_range is not None:
        options["input_range"] = _RANGES[input_range]
    _require_fitting(target, options)
    stored = Path(source).exists()
    if stored and weights != "pretrained":
        raise click.UsageError(f"{source} has weights of its own; --weights goes with a NAME.")
    name = source if stored else model_info(source).name
    written = out / str(options.get("version", 1)) if target == "serving" else out
    if written.exists():  # Before the minutes that a large network takes.
        raise BitKerasError(f"{written} exists already; remove it or choose another path.")

    start = time.perf_counter()
    with progress(f"Building {name}"):
        start_keras()
        from bit_keras.export.keras_file import require_keras_name

        if target == "keras":
            require_keras_name(out)
        model, task = _load(name, variant) if stored else (_build(name, variant, weights), None)
    if "calibrate" in options:
        options["calibration"] = _calibration(model, task, options)
    with progress(f"Writing {written}"):
        _write(model, task, target, out, options)
    files = [out] if out.is_file() else [file for file in written.rglob("*") if file.is_file()]
    click.echo(
        f"Wrote {written}: {model.name}, {variant}, input in [{_range(target, options)}], "
        f"{megabytes(sum(file.stat().st_size for file in files))} "
        f"in {time.perf_counter() - start:.0f} s."
    )
    click.echo(f"Check it with `bit-keras verify {written}`.")


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
    quantize = options.get("quantize", "none")
    if quantize not in QUANTIZATIONS.get(target, ("none",)):
        raise click.UsageError(
            f"--to {target} is quantised to {', '.join(QUANTIZATIONS[target])}; {quantize} came."
        )
    if options.get("size") == "dynamic" and target != "tflite":
        raise click.UsageError("--size dynamic goes with --to tflite.")
    given = [name for name in sorted(_CALIBRATION) if name in options]
    if quantize in CALIBRATED and "calibrate" not in options:
        raise click.UsageError(
            f"--quantize {quantize} is calibrated with pictures; name a folder, a tar or tfds:NAME "
            "with --calibrate."
        )
    if given and quantize not in CALIBRATED:
        raise click.UsageError(
            f"--{given[0].replace('_', '-')} goes with --quantize {' or '.join(CALIBRATED)}."
        )


def _load(source: str, variant: str) -> "tuple[keras.Model, Task | None]":
    import keras

    from bit_keras.inference.sources import load_network

    model, task = load_network(source)
    if variant == "feature_extraction":
        features = model.get_layer("features").output
        return keras.Model(model.input, features, name=model.name), task
    if not any(layer.name == "head" for layer in model.layers):
        raise BitKerasError(f"{source} has no head; export it with --variant feature_extraction.")
    return model, task


def _build(name: str, variant: str, weights: str) -> "keras.Model":
    from bit_keras.checkpoints import fill_with_seeded_values
    from bit_keras.models import create_classifier, create_feature_extractor

    builder = create_classifier if variant == "classification" else create_feature_extractor
    if weights != "random":
        return builder(name, weights=weights)
    model = builder(name, weights=None)
    fill_with_seeded_values(model)
    return model


def _calibration(
    model: "keras.Model", task: "Task | None", options: dict[str, Any]
) -> "np.ndarray":
    """The pictures that the options of a calibration name; takes these out of `options`."""
    from bit_keras.export.calibration import COUNT, calibration_images
    from bit_keras.export.task import transform_and_task

    size = options.get("size")
    transform, _ = transform_and_task(model, None if size == "dynamic" else size, task)
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
    model: "keras.Model", task: "Task | None", target: str, out: Path, options: dict[str, Any]
) -> None:
    exporter: Callable[..., Any]
    if target == "hub":
        from bit_keras.export.hub import export_hub

        exporter = export_hub
    elif target == "serving":
        from bit_keras.export.serving import export_serving

        exporter = export_serving
    elif target == "tflite":
        from bit_keras.export.tflite import export_tflite

        exporter = export_tflite
    elif target == "onnx":
        from bit_keras.export.onnx import export_onnx

        exporter = export_onnx
    elif target == "openvino":
        from bit_keras.export.openvino import export_openvino

        exporter = export_openvino
    else:
        from bit_keras.export.keras_file import export_keras

        exporter = export_keras
    exporter(model, out, task=task, **options)
