"""Predictions: the same whatever comes along in the batch."""

import dataclasses
import gc
import itertools
import threading
import weakref

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.members import METADATA
from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.errors import BitKerasError, ImageError, UnknownModelError
from bit_keras.exporters.hub import export_hub
from bit_keras.exporters.onnx import export_onnx
from bit_keras.exporters.openvino_ir import export_openvino
from bit_keras.exporters.tflite.tflite_export import export_tflite
from bit_keras.inference import Predictor, load_network, load_predictor
from bit_keras.inference.predictor import BATCH
from bit_keras.models import create_classifier, create_feature_extractor
from bit_keras.preprocessing import spec_of
from tests.onnx_files import without_checksum


def saved(folder, **arguments):
    model = create_classifier("bit_tiny.cifar10", weights=None, **arguments)
    fill_with_seeded_values(model)
    model.save(folder / "model.keras")
    return folder / "model.keras"


@pytest.mark.slow
def test_many_images_are_classified_as_each_by_itself(tmp_path):
    predictor = load_predictor(saved(tmp_path))
    photos = np.random.default_rng(0).integers(0, 256, (37, 40, 50, 3), np.uint8)
    images = [predictor.spec.transform(photo) for photo in photos]
    together = predictor(images, top=10)
    assert len(together) == 37
    for image, ranked in zip(images, together, strict=True):
        (single,) = predictor([image], top=10)
        # Batches sum float32 in another order.
        assert dict_of(ranked) == pytest.approx(dict_of(single), rel=1e-4)


def dict_of(ranked):
    return {class_id: score for class_id, _, score in ranked}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [{"include_preprocessing": True}, {"classifier_activation": "softmax"}]
)
def test_predictions_are_the_same_whatever_the_model_does_around_the_network(tmp_path, arguments):
    photo = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    ranked = []
    for options in ({}, arguments):
        predictor = load_predictor(saved(tmp_path, **options))
        ranked.append(dict_of(predictor([predictor.spec.transform(photo)], top=10)[0]))
    # Rescaling back and forth rounds twice in float32.
    assert ranked[0] == pytest.approx(ranked[1], rel=1e-4)
    assert max(ranked[0].values()) > 2 * min(ranked[0].values())


@pytest.mark.slow
def test_a_fixed_input_shape_decides_the_size_of_the_images(tmp_path):
    predictor = load_predictor(saved(tmp_path, input_shape=(48, 48, 3)))
    assert predictor.spec.transform.size == 48
    assert len(predictor([predictor.spec.transform(np.zeros((60, 50, 3), np.uint8))])[0]) == 5
    with pytest.raises(BitKerasError, match="images of 48x64 pixels"):
        load_predictor(saved(tmp_path, input_shape=(48, 64, 3)))


def test_a_saved_model_of_fixed_size_decides_it_too(tmp_path):
    model = create_classifier("bit_tiny.cifar10", weights=None, input_shape=(40, 40, 3))
    export_hub(model, tmp_path / "fixed")
    assert load_predictor(tmp_path / "fixed").spec.transform.size == 40


def test_no_images_give_no_predictions(tmp_path):
    assert load_predictor(saved(tmp_path))([]) == []


@pytest.mark.slow
def test_a_replaced_head_has_numbered_classes(tmp_path):
    predictor = load_predictor(saved(tmp_path, num_classes=3))
    (ranked,) = predictor([np.zeros((32, 32, 3), "float32")], top=5)
    assert sorted(class_id for class_id, _, _ in ranked) == ["class_0", "class_1", "class_2"]


def test_sources_that_are_not_classifiers_are_named(tmp_path):
    create_feature_extractor("bit_tiny.cifar10", weights=None).save(tmp_path / "features.keras")
    with pytest.raises(BitKerasError, match="returns features, not classes"):
        load_predictor(tmp_path / "features.keras")
    with pytest.raises(UnknownModelError, match="Nor is there a file"):
        load_predictor("bit_r51x1")


def test_a_damaged_keras_file_is_named(tmp_path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(BitKerasError, match=r"model\.keras is damaged"):
        load_predictor(path)


# Many images


class CountingTransform:
    """Makes an array of an image's number, and counts the arrays that are in memory."""

    def __init__(self):
        self.read, self.alive, self.most_alive = 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self, source):
        if source == "broken":
            raise ImageError("broken is not an image.")
        image = np.full((32, 32, 3), source, np.float32)
        with self._lock:
            self.read += 1
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(image, self._forget)
        return image

    def _forget(self):
        with self._lock:
            self.alive -= 1


@pytest.fixture
def transform():
    return CountingTransform()


@pytest.fixture
def counting(transform):
    """A predictor whose best class is the number of the image, modulo 10."""

    def network(images):
        assert len(images) <= BATCH
        return np.eye(10)[images[:, 0, 0, 0].astype(int) % 10]

    spec = dataclasses.replace(spec_of("bit_tiny.cifar10"), transform=transform)
    return Predictor("counting", spec, network)


def best_classes(predictions):
    return [prediction.classes[0][0] for prediction in predictions]


def test_predictions_keep_the_order_of_any_number_of_images(counting):
    ids = counting.spec.labels.ids
    for count in (0, 1, BATCH - 1, BATCH, BATCH + 1, 5 * BATCH + 3):
        predictions = list(counting.predict(iter(range(count)), top=2))
        assert [prediction.source for prediction in predictions] == list(range(count))
        assert best_classes(predictions) == [ids[number % 10] for number in range(count)]
        assert all(len(prediction.classes) == 2 for prediction in predictions)


def test_the_images_of_two_batches_at_most_are_in_memory(counting, transform):
    # Every ninth is broken, so that the batches that are read and classified differ.
    sources = ("broken" if number % 9 == 0 else number for number in range(2000))
    assert sum(prediction.error is None for prediction in counting.predict(sources)) == 1777
    assert transform.most_alive <= 2 * BATCH
    gc.collect()
    assert transform.alive == 0


def test_images_are_read_as_far_as_predictions_are_consumed(counting, transform):
    predictions = counting.predict(itertools.count())
    assert transform.read == 0
    next(predictions)
    assert transform.read == BATCH
    for _ in range(BATCH):
        next(predictions)
    assert transform.read == 2 * BATCH
    predictions.close()


def test_broken_images_are_reported_in_their_place(counting):
    sources = ["broken", *range(BATCH), "broken", "broken", *range(3), "broken"]
    predictions = list(counting.predict(sources))
    assert [prediction.source for prediction in predictions] == sources
    for prediction in predictions:
        assert (prediction.error is not None) == (prediction.source == "broken")
        assert bool(prediction.classes) == (prediction.error is None)


def test_an_error_of_the_source_or_the_network_is_raised(counting):
    def sources():
        yield from range(BATCH)
        raise OSError("the list of images ends here")

    predictions = counting.predict(sources())
    assert len(list(itertools.islice(predictions, BATCH))) == BATCH
    with pytest.raises(OSError, match="ends here"):
        next(predictions)
    failing = dataclasses.replace(counting, network=lambda images: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(failing.predict(range(3)))


@pytest.mark.slow
def test_images_predict_the_same_in_a_stream_and_in_a_list(tmp_path):
    predictor = load_predictor(saved(tmp_path))
    listed = predictor([predictor.spec.transform(photo) for photo in photos(19)], top=10)
    streamed = predictor.predict(photos(19), top=10)
    assert [prediction.classes for prediction in streamed] == listed


# Artifacts that other programs run


@pytest.fixture(scope="module")
def artifacts(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    export_tflite(classifier, folder / "tiny.tflite", input_range=(0, 1))
    export_onnx(classifier, folder / "tiny.onnx")
    export_openvino(classifier, folder / "openvino")
    return {path.name: path for path in folder.iterdir()}


def photos(count):
    return np.random.default_rng(3).integers(0, 256, (count, 70, 90, 3), np.uint8)


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx", "openvino"])
def test_every_format_of_artifact_predicts_what_keras_does(artifacts, classifier, name):
    predictor = load_predictor(artifacts[name])
    assert predictor.spec.labels.name == "cifar10"
    assert predictor.spec.transform.size == 64
    images = np.stack([predictor.spec.transform(photo) for photo in photos(19)])
    logits = classifier.predict_on_batch(images)
    assert predictor.network(images) == pytest.approx(logits, rel=1e-4, abs=1e-4)
    ranked = predictor(list(images), top=1)
    labels = [predictor.spec.labels.ids[index] for index in logits.argmax(axis=1)]
    assert [best[0] for (best,) in ranked] == labels


def in_pixels(source, path):
    """The same network, for 8-bit pixels."""
    import onnx

    model = onnx.load(source)
    helper, graph = onnx.helper, model.graph
    (images,) = graph.input
    for node in graph.node:
        node.input[:] = ["scaled" if name == images.name else name for name in node.input]
    for name, value in (("half", 127.5), ("one", 1.0)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    for node in (
        helper.make_node("Sub", ["ratio", "one"], ["scaled"]),
        helper.make_node("Div", ["floats", "half"], ["ratio"]),
        helper.make_node("Cast", [images.name], ["floats"], to=onnx.TensorProto.FLOAT),
    ):
        graph.node.insert(0, node)
    images.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    metadata = dataclasses.replace(Artifact(source).metadata, input_range=(0.0, 255.0))
    without_checksum(model)
    for entry in model.metadata_props:
        if entry.key == METADATA:
            entry.value = metadata.to_json()
    onnx.save(model, path)
    return path


def test_an_artifact_for_pixels_gets_the_very_pixels(artifacts, tmp_path):
    path = in_pixels(artifacts["tiny.onnx"], tmp_path / "pixels.onnx")
    images = np.stack([load_predictor(path).spec.transform(photo) for photo in photos(3)])
    of_floats = load_predictor(artifacts["tiny.onnx"]).network(images)
    assert load_predictor(path).network(images) == pytest.approx(of_floats, rel=1e-4, abs=1e-4)


def test_features_of_other_artifacts_are_no_classes(extractor, tmp_path):
    export_onnx(extractor, tmp_path / "features.onnx")
    with pytest.raises(BitKerasError, match="returns features, not classes"):
        load_predictor(tmp_path / "features.onnx")


def test_a_file_of_another_program_has_no_labels(artifacts, tmp_path):
    import onnx

    model = onnx.load(artifacts["tiny.onnx"])
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(BitKerasError, match=r"foreign\.onnx was not exported by bit_keras"):
        load_predictor(tmp_path / "foreign.onnx")


def test_a_size_that_an_artifact_does_not_take_is_refused(artifacts):
    with pytest.raises(BitKerasError, match=r"takes only images of 64 pixels.*size=40"):
        load_predictor(artifacts["tiny.tflite"], 40)


@pytest.mark.parametrize("name", ["tiny.tflite", "tiny.onnx", "openvino"])
def test_what_is_changed_for_inference_cannot_be_trained(artifacts, name):
    with pytest.raises(BitKerasError, match="weights are changed for inference; name the model"):
        load_network(artifacts[name])
