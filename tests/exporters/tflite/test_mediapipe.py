"""MediaPipe's image tasks take the files as they are, and return what Keras does."""

import dataclasses

import numpy as np
import pytest

from bit_keras.exporters.tflite import export_tflite
from bit_keras.exporters.tflite.mediapipe_metadata import with_metadata
from bit_keras.models import create_classifier
from bit_keras.preprocessing import load_labels
from tests.exporters.tflite.metadata import described
from tests.exporters.tflite.models import NAME, extractor, model_of, photos, results

mediapipe = pytest.importorskip("mediapipe", reason="mediapipe is not installed")


def classify(content, images=None, **options):
    """The heads that ImageClassifier returns, of each image."""
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(BaseOptions(model_asset_buffer=content), **options)
    with vision.ImageClassifier.create_from_options(options) as classifier:
        return [classifier.classify(image).classifications for image in wrapped(images)]


def embed(content):
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageEmbedderOptions(BaseOptions(model_asset_buffer=content))
    with vision.ImageEmbedder.create_from_options(options) as embedder:
        return [embedder.embed(image).embeddings for image in wrapped()]


def wrapped(images=None):
    images = photos() if images is None else images
    return [mediapipe.Image(mediapipe.ImageFormat.SRGB, image) for image in images]


def scores(head):
    """The scores of a head, in the order of the classes."""
    return [entry.score for entry in sorted(head.categories, key=lambda entry: entry.index)]


def file_of(quantize, **changes):
    return with_metadata(model_of(quantize), described(quantize, **changes), {})


# Measured: 1e-6, 4e-4, 5e-3 and 6e-2; the last one is what 8 bits everywhere cost this network.
@pytest.mark.parametrize(
    ("quantize", "tolerance"),
    [("none", 1e-5), ("float16", 2e-3), ("dynamic", 2e-2), ("int8-pure", 0.15)],
)
def test_the_classifier_returns_the_probabilities_of_keras(quantize, tolerance):
    _, expected = results()
    heads = [heads[0] for heads in classify(file_of(quantize))]
    assert [head.head_name for head in heads] == ["probabilities"] * 10
    assert np.abs(np.array([scores(head) for head in heads]) - expected).max() < tolerance


def test_the_classifier_takes_a_calibrated_file(tmp_path):
    calibration = photos() / np.float32(127.5) - 1
    path = tmp_path / "a.tflite"
    export_tflite(create_classifier(NAME), path, quantize="int8", calibration=calibration)
    _, expected = results()
    heads = [heads[0] for heads in classify(path.read_bytes())]
    # Measured: 0.03.
    assert np.abs(np.array([scores(head) for head in heads]) - expected).max() < 0.1
    assert heads[0].categories[0].category_name == "airplane"


def test_a_file_for_any_size_gives_each_image_its_own_class(file_of_form):
    """Its input states the default size: MediaPipe resizes images to it, not to one pixel."""
    content = file_of_form("tflite --size dynamic").read_bytes()
    features, expected = results()
    heads = [heads[0] for heads in classify(content)]
    assert np.abs(np.array([scores(head) for head in heads]) - expected).max() < 1e-5
    names = load_labels("cifar10").names
    best = [names[number] for number in expected.argmax(1)]
    assert [head.categories[0].category_name for head in heads] == best
    assert len(set(best)) > 5
    found = np.stack([heads[2].embedding for heads in embed(content)])
    assert np.abs(found - features).max() < 1e-4 * np.abs(features).max()


def test_labels_come_with_the_scores_best_first():
    names = load_labels("cifar10").names
    _, expected = results()
    for heads, probabilities in zip(
        classify(file_of("none"), max_results=3), expected, strict=True
    ):
        best = np.argsort(-probabilities)[:3]
        assert [entry.category_name for entry in heads[0].categories] == [names[i] for i in best]


def test_images_in_another_range_are_what_the_file_says():
    # The network still takes [-1, 1], so the outputs for [0, 1] differ: the metadata are used.
    _, expected = results()
    other = classify(file_of("none", input_range=(0.0, 1.0)))
    worst = np.abs(np.array([scores(heads[0]) for heads in other]) - expected).max()
    assert worst > 0.05


def test_the_embedder_of_a_feature_extractor_gives_the_features():
    metadata = dataclasses.replace(
        described("none"), variant="feature_extraction", outputs=1024, task=None
    )
    features, _ = results()
    embeddings = embed(with_metadata(extractor(), metadata, {}))
    assert {len(embedding) for embedding in embeddings} == {1}
    found = np.stack([embedding[0].embedding for embedding in embeddings])
    assert embeddings[0][0].head_name == "features"
    assert np.abs(found - features).max() < 1e-4 * np.abs(features).max()


def test_a_classifier_gives_the_embedder_its_features_too():
    features, _ = results()
    embeddings = embed(file_of("none"))
    assert [head.head_name for head in embeddings[0]] == ["probabilities", "logits", "features"]
    found = np.stack([heads[2].embedding for heads in embeddings])
    assert np.abs(found - features).max() < 1e-4 * np.abs(features).max()


def test_without_metadata_the_classifier_refuses_the_model():
    # It raises the error that it has for a missing file.
    with pytest.raises(FileNotFoundError, match="NormalizationOptions"):
        classify(model_of("none"))
