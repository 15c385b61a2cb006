"""An image gives the same in a batch of any size as on its own, in every form of file."""

import numpy as np
import pytest

from bit_keras.artifacts.runtimes import open_program
from bit_keras.inference import load_predictor
from tests.exporters.tflite.models import FORMS

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is missing")

#: More than any width of the network of 64 pixels, which are 32, 16, 8, 4 and 2.
LARGEST = 40

PURE = "tflite --quantize int8-pure"


def images(size, dtype):
    """Images of coloured squares with very different contrasts."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (LARGEST, 8, 8, 3)).repeat(size // 8, 1).repeat(size // 8, 2)
    pixels = pixels * np.linspace(0.2, 1, LARGEST)[:, None, None, None]
    if dtype == np.uint8:
        return pixels.astype("uint8")
    return (pixels / 127.5 - 1).astype("float32")


class Resized:
    """The interpreter as programs of others use it: the input is resized, and all is run."""

    def __init__(self, path):
        self.interpreter = litert.Interpreter(str(path), num_threads=2)
        (self.input,) = self.interpreter.get_input_details()

    def __call__(self, batch):
        self.interpreter.resize_tensor_input(self.input["index"], batch.shape)
        self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(self.input["index"], batch)
        self.interpreter.invoke()
        details = self.interpreter.get_output_details()
        return [self.interpreter.get_tensor(output["index"]) for output in details]


def require_same_in_every_batch(path, size):
    run = Resized(path)
    batch = images(size, run.input["dtype"])
    single = [
        np.concatenate(outputs) for outputs in zip(*(run(one[None]) for one in batch), strict=True)
    ]
    for count in range(1, LARGEST + 1):
        for found, expected in zip(run(batch[:count]), single, strict=True):
            np.testing.assert_array_equal(found, expected[:count], f"batch of {count}")


# At 32 pixels the last maps are 1 x 1, whose sums the converter takes for a bias.
@pytest.mark.parametrize("form", ["tflite", PURE])
def test_an_image_gives_the_same_in_every_batch_at_32_pixels(form, file_of_form):
    require_same_in_every_batch(file_of_form(form, 32), 32)


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "size"),
    [(form, 64) for form in FORMS]
    + [(form, 32) for form in FORMS if form not in ("tflite", PURE, "tflite --size dynamic")],
)
def test_an_image_gives_the_same_in_every_batch(form, size, file_of_form):
    require_same_in_every_batch(file_of_form(form, size), size)


@pytest.mark.parametrize("form", [PURE])
def test_predictions_do_not_depend_on_the_batch(form, file_of_form):
    """15 and 16 images, the second of which were broadcast along the width of 16."""
    program = open_program(file_of_form(form, 32))
    batch = images(32, np.uint8)
    single = np.concatenate([program(one[None])["logits"] for one in batch])
    for count in (8, 15, 16, 32):
        np.testing.assert_array_equal(program(batch[:count])["logits"], single[:count])


@pytest.mark.long
def test_an_evaluation_does_not_depend_on_the_batch(file_of_form):
    batch = images(64, np.float32)
    found = []
    for count in (16, 32):
        predictor = load_predictor(file_of_form(PURE))
        pieces = [batch[start : start + count] for start in range(0, LARGEST, count)]
        found.append(np.concatenate([predictor.network(piece) for piece in pieces]))
    np.testing.assert_array_equal(*found)
