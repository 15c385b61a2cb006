"""ReaL accuracy on images that have the names of the validation set."""

import keras
import numpy as np
import pytest
from PIL import Image

from bit_keras.data import open_images
from bit_keras.errors import BitKerasError
from bit_keras.evaluation import evaluate
from bit_keras.preprocessing import ClassifierSpec, EvalTransform, Labels, load_labels
from bit_keras.preprocessing.labels import load_real_labels
from bit_keras.registry import Resizing

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="No network of Keras takes part."
)

TRANSFORM = EvalTransform(32, Resizing("squash", 32, "bilinear", "this test"))
TASK = ClassifierSpec(load_labels("imagenet_1k"), TRANSFORM)


def photos(folder, numbers):
    """Grey images 0, 1, ... called as the images of the validation set, in class folders."""
    for grey, (number, synset) in enumerate(numbers):
        path = folder / synset / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (grey, grey, grey)).save(path, "JPEG", quality=100)
    return open_images(str(folder))


def test_real_accuracy_by_hand(tmp_path):
    # The first entries of the published list: [], [970, 795], [230, 231], [809], [516, 850].
    assert load_real_labels()[:5] == ((), (970, 795), (230, 231), (809,), (516, 850))
    synsets = ("n01751748", "n09193705", "n02105855", "n04263257", "n03125729")
    images = photos(tmp_path, list(enumerate(synsets, start=1)))
    outputs = {"1": 65, "2": 795, "3": 230, "4": 1, "5": 850}

    def network(batch):
        greys = np.round((batch[:, 0, 0, 0] + 1) * 127.5).astype(int)
        return np.eye(1000, dtype=np.float32)[[outputs[str(grey + 1)] for grey in greys]]

    evaluation = evaluate(network, TASK, images, real=True)
    # The classes of the folders are 65, 970, 230, 809 and 516: images 1 and 3 are right.
    assert evaluation.top1 == 2 / 5
    # Of the four with labels, 2, 3 and 5 are right.
    assert (evaluation.real, evaluation.real_images) == (3 / 4, 4)
    assert evaluation.to_json()["real"] == 0.75
    assert evaluate(network, TASK, images).real is None


def test_real_needs_imagenet_classes_and_images(tmp_path):
    images = photos(tmp_path, [(1, "n01751748")])
    with pytest.raises(BitKerasError, match=r"imagenet_1k.*--real.* of pets"):
        pets = Labels("pets", ("n01751748",), ("sea snake",))
        evaluate(lambda x: x, ClassifierSpec(pets, TRANSFORM), images, real=True)
    images = photos(tmp_path, [(50001, "n01751748")])
    with pytest.raises(BitKerasError, match=r"--real.*1 of 2 images .*n01751"):
        evaluate(lambda x: x, TASK, images, real=True)


def test_images_without_any_real_label_have_no_real_accuracy(tmp_path):
    images = photos(tmp_path, [(1, "n01751748")])
    evaluation = evaluate(lambda x: np.eye(1000)[[65]], TASK, images, real=True)
    assert (evaluation.top1, evaluation.real, evaluation.real_images) == (1.0, None, 0)
