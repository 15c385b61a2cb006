"""What folding is worth: a SavedModel for servers next to the one for TF Hub, interleaved.

    python benchmarks/serving.py [--batch 1 8] [--rounds 15] [--model bit_r50x1.distilled_in1k_224]

Exports the network four times with the same reproducible weights, loads each SavedModel
with TensorFlow only, and prints the median time of `serving_default` and the median of
the ratios to `hub`, round by round: machines drift, ratios of neighbours do not. The
last column is `image_bytes` of encoded photographs next to `serving_default`: what
decoding, resizing and cropping cost.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bit_keras.cli.printing import console, progress, start_keras

start_keras()

import numpy as np  # noqa: E402
import rich.table  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

import bit_keras  # noqa: E402
from bit_keras.artifacts.reference import reference_images  # noqa: E402
from bit_keras.checkpoints import fill_with_seeded_values  # noqa: E402
from bit_keras.exporters.hub import export_hub  # noqa: E402
from bit_keras.exporters.serving import export_serving  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--model", default="bit_r50x1.distilled_in1k_224")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        with progress("Exporting four SavedModels"):
            artifacts = exported(arguments.model, Path(folder))
        loaded = {name: tf.saved_model.load(str(path)) for name, path in artifacts.items()}
    table = rich.table.Table(box=None, padding=(0, 2))
    for column in ("batch", *loaded, "image_bytes"):
        table.add_column(column, justify="right")
    size = bit_keras.model_info(arguments.model).size
    for batch in arguments.batch:
        table.add_row(str(batch), *row(loaded, batch, size, arguments.rounds))
    console().print(table)


def exported(name: str, folder: Path) -> dict[str, Path]:
    model = bit_keras.create_classifier(name, weights=None)
    fill_with_seeded_values(model)
    export_hub(model, folder / "hub")
    export_hub(model, folder / "folded", folded=True)
    export_serving(model, folder / "serving", batch_sizes=())
    export_serving(model, folder / "half", precision="bfloat16", batch_sizes=())
    return {
        "hub": folder / "hub",
        "hub, folded": folder / "folded",
        "serving": folder / "serving" / "1",
        "serving, bfloat16": folder / "half" / "1",
    }


def row(loaded: dict, batch: int, size: int, rounds: int) -> list[str]:
    """Median milliseconds and ratios of one batch size."""
    images = tf.constant(reference_images(size, size, (-1.0, 1.0))[np.arange(batch) % 2])
    encoded = tf.constant([photo(size)] * batch)
    calls = {
        name: lambda artifact=artifact: artifact.signatures["serving_default"](inputs=images)
        for name, artifact in loaded.items()
    }
    bytes_signature = loaded["serving"].signatures["image_bytes"]
    calls["image_bytes"] = lambda: bytes_signature(image_bytes=encoded)
    for call in calls.values():
        call()
    times = [{name: seconds(call) for name, call in calls.items()} for _ in range(rounds)]
    cells = []
    for name in calls:
        reference = "serving" if name == "image_bytes" else "hub"
        ratio = statistics.median(each[name] / each[reference] for each in times)
        median = statistics.median(each[name] for each in times)
        cells.append(f"{1e3 * median:.0f} ms ({ratio:.2f})")
    return cells


def photo(size: int) -> bytes:
    """A JPEG of 500 x 375 pixels, the usual size of an ImageNet photograph."""
    pixels = reference_images(375, 500, (0.0, 1.0))[0]
    file = io.BytesIO()
    Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    for output in call().values():
        output.numpy()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
