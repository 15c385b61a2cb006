"""The demo: exports a checkpoint as a SavedModel and classifies images with it in tf_keras.

Run it with `make demo`. It writes the SavedModel and a plot of the predictions to
`demo/output/`.
"""

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path

from bit_keras.cli.printing import start_keras

start_keras()
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# tensorflow_hub and tf_keras warn about their own internals, by warnings and by logging.
warnings.filterwarnings("ignore", module="tensorflow_hub|tf_keras|keras")
logging.getLogger("tensorflow").setLevel(logging.ERROR)

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import rich.console  # noqa: E402
import rich.table  # noqa: E402
import tensorflow_hub as hub  # noqa: E402
import tf_keras  # noqa: E402

import bit_keras  # noqa: E402
from bit_keras.artifacts import Artifact  # noqa: E402
from bit_keras.exporters.hub import export_hub  # noqa: E402
from bit_keras.preprocessing import load_image  # noqa: E402

MODEL = "bit_tiny.cifar10"
FOLDER = Path(__file__).parent
SAMPLES = FOLDER / "images"


def main(output: Path) -> None:
    """Runs the demo and writes to the folder `output`, which is emptied first."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)

    checkpoint = bit_keras.model_info(MODEL)
    (accuracy,) = checkpoint.accuracies
    say(f"1. {MODEL}: a BiT with {checkpoint.parameters / 1e6:.1f} M parameters, in the package")
    say(f"   {accuracy.value} % of the 10,000 CIFAR-10 test images ({accuracy.source})")
    model = bit_keras.create_classifier(MODEL)

    say("2. Export as a SavedModel for TF Hub")
    artifact = output / MODEL
    export_hub(model, artifact)
    difference = Artifact(artifact).verify().largest
    say(f"   Reloaded in a fresh process: largest difference from Keras {difference:.1e}")

    say("3. Load it through hub.KerasLayer and classify the sample images")
    transform = bit_keras.eval_transform(MODEL)
    files = sorted(SAMPLES.glob("*.jpg"))
    classifier = tf_keras.Sequential([hub.KerasLayer(str(artifact))])
    logits = classifier.predict(np.stack([transform(file) for file in files]), verbose=0)
    predictions = bit_keras.decode_predictions(logits, MODEL)
    print_table(files, predictions)
    correct = sum(is_correct(file, ranked) for file, ranked in zip(files, predictions, strict=True))
    say(f"   {correct} of {len(files)} are correct: each file is named after its class")

    plot = output / "predictions.png"
    draw(files, predictions, plot)
    say(f"4. Plot of the top 5 classes of each image: {os.path.relpath(plot)}")


def say(text: str) -> None:
    rich.console.Console(highlight=False).print(text)


def is_correct(file: Path, ranked: list) -> bool:
    return ranked[0][1] == file.stem


def print_table(files: list[Path], predictions: list) -> None:
    table = rich.table.Table("image", "", "first", "second", "third", box=None)
    for file, ranked in zip(files, predictions, strict=True):
        cells = [f"{label} {100 * score:.0f} %" for _, label, score in ranked[:3]]
        table.add_row(file.name, "correct" if is_correct(file, ranked) else "wrong", *cells)
    rich.console.Console(highlight=False).print(table)


def draw(files: list[Path], predictions: list, path: Path) -> None:
    """Plots the images in two columns, each with bars for its five best classes."""
    figure, axes = plt.subplots(5, 4, figsize=(10, 10), width_ratios=(1, 1.6, 1, 1.6))
    for file, ranked, (left, right) in zip(files, predictions, axes.reshape(-1, 2), strict=True):
        left.imshow(load_image(file))
        left.set_title(file.stem)
        left.axis("off")
        colors = ["tab:green" if label == file.stem else "tab:grey" for _, label, _ in ranked]
        right.barh(
            [label for _, label, _ in ranked], [score for _, _, score in ranked], color=colors
        )
        right.set_xlim(0, 1)
        right.invert_yaxis()
        right.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{MODEL}: test images and their predictions; the true class is green")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "output")
