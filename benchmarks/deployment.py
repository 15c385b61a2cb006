"""What every format costs in bytes and in accuracy; prints the tables of docs/deploy.md.

    python benchmarks/deployment.py cifar10.tar photos/

Exports `bit_tiny.cifar10` in every format, calibrated with 200 of the training images
of the first argument, and asks each file for the classes of all its test images. Then
the same for an R50x1 with reproducible weights and the images of the second argument:
half of them calibrate, all are classified. Everything is compared with Keras in float32.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bit_keras.cli.printing import progress, progress_bar, start_keras

start_keras(data=True)

import keras  # noqa: E402
import numpy as np  # noqa: E402

import bit_keras  # noqa: E402
from bit_keras.artifacts.reference import relative_difference  # noqa: E402
from bit_keras.checkpoints import fill_with_seeded_values  # noqa: E402
from bit_keras.data import open_images  # noqa: E402
from bit_keras.exporters.calibration import calibration_images  # noqa: E402
from bit_keras.exporters.onnx import export_onnx  # noqa: E402
from bit_keras.exporters.openvino_ir import export_openvino  # noqa: E402
from bit_keras.exporters.serving import export_serving  # noqa: E402
from bit_keras.exporters.targets import TARGETS  # noqa: E402
from bit_keras.exporters.tflite import export_tflite  # noqa: E402
from bit_keras.inference import load_predictor  # noqa: E402

SMALL, LARGE = "bit_tiny.cifar10", "bit_r50x1.distilled_in1k_224"

#: Images that go through a network at once.
BATCH = 50

Export = Callable[[keras.Model, Path, np.ndarray], object]


def tflite(quantize: str) -> Export:
    return lambda model, path, images: export_tflite(
        model, path.with_suffix(".tflite"), quantize=quantize, calibration=images
    )


def onnx(quantize: str) -> Export:
    return lambda model, path, images: export_onnx(
        model,
        path.with_suffix(".onnx"),
        quantize=quantize,
        calibration=images if quantize == "int8" else None,
    )


def openvino(quantize: str) -> Export:
    return lambda model, path, images: export_openvino(model, path, quantize=quantize)


def serving(precision: str) -> Export:
    return lambda model, path, images: export_serving(
        model, path, precision=precision, batch_sizes=()
    )


FORMATS: dict[str, Export] = {
    "serving": serving("float32"),
    "serving, bfloat16": serving("bfloat16"),
    **{
        "tflite" if quantize == "none" else f"tflite, {quantize}": tflite(quantize)
        for quantize in TARGETS["tflite"].options["quantize"]
    },
    "onnx": onnx("none"),
    "onnx, float16": onnx("float16"),
    "onnx, int8": onnx("int8"),
    "openvino": openvino("none"),
    "openvino, float16": openvino("float16"),
}


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The outputs of a format for the images, and its size."""

    name: str
    bytes: int
    logits: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("photos", type=Path)
    arguments = parser.parse_args()

    test = open_images(arguments.cifar10, "test")
    transform = bit_keras.eval_transform(SMALL)
    with progress("Reading the test images"):
        images = np.stack([transform(test[index]) for index in range(len(test))])
        calibration = calibration_images(arguments.cifar10, transform)
    model = bit_keras.create_classifier(SMALL)
    print(f"{SMALL}, {len(images):,} images\n")
    print(table(outputs_of(model, images, calibration), test.targets))

    transform = bit_keras.eval_transform(LARGE)
    photos = sorted(path for path in arguments.photos.iterdir() if path.suffix == ".JPEG")
    images = np.stack([transform(path) for path in photos])
    model = bit_keras.create_classifier(LARGE, weights=None)
    fill_with_seeded_values(model)
    print(f"\n{LARGE}, random weights, {len(images)} images\n")
    print(table(outputs_of(model, images, images[::2]), None))


def outputs_of(
    model: keras.Model, images: np.ndarray, calibration: np.ndarray
) -> Iterator[Outputs]:
    """Keras first, then every format."""
    with progress("Asking Keras"):
        logits = model.predict(images, batch_size=BATCH, verbose=0)
    yield Outputs("Keras", 4 * model.count_params(), logits)
    for name, export in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            with progress(f"Exporting {name}"):
                export(model, Path(folder) / "model", calibration)
            (path,) = Path(folder).iterdir()
            network = load_predictor(path).network
            parts = []
            with progress_bar(f"Asking {name}", len(images)) as advance:
                for start in range(0, len(images), BATCH):
                    parts.append(network(images[start : start + BATCH]))
                    advance(len(parts[-1]))
            yield Outputs(name, size_of(path), np.concatenate(parts))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def table(outputs: Iterator[Outputs], targets: np.ndarray | None) -> str:
    """A table in Markdown, with the accuracy where classes are known."""
    keras_outputs = next(outputs)
    header = ["", "MB", "top-1", "same class as Keras", "largest difference", "correlation"]
    rows = [row(output, keras_outputs.logits, targets) for output in (keras_outputs, *outputs)]
    if targets is None:
        header.remove("top-1")
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def row(output: Outputs, expected: np.ndarray, targets: np.ndarray | None) -> list[str]:
    classes = output.logits.argmax(-1)
    same = int((classes == expected.argmax(-1)).sum())
    accuracy = [] if targets is None else [f"{100 * (classes == targets).mean():.2f} %"]
    correlation = np.corrcoef(output.logits.ravel(), expected.ravel())[0, 1]
    return [
        output.name,
        f"{output.bytes / 1e6:.1f}",
        *accuracy,
        f"{same:,} of {len(classes):,}",
        f"{relative_difference(output.logits, expected):.1e}",
        f"{correlation:.6f}",
    ]


if __name__ == "__main__":
    main()
