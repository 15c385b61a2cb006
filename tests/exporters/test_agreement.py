"""Other programs compute what Keras does, on real images.

The C++ loader that TensorFlow Serving calls, OpenVINO, and TF Hub under tf_keras.
"""

import numpy as np
import pytest

from bit_keras.artifacts.reference import relative_difference
from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.exporters.hub import export_hub
from bit_keras.exporters.serving import export_serving
from bit_keras.models import create_classifier, create_feature_extractor
from bit_keras.preprocessing import spec_of
from bit_keras.preprocessing.decoding import scores_of
from tests.exporters.loader import ask, compiled_loader
from tests.photos import photo_files

# Five artifacts are exported and loaded by programs that start.
pytestmark = pytest.mark.long

pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")

#: The contract of float32.
TOLERANCE = 1e-5


class Case:
    """A network, its artifacts, and the outputs of Keras for the images."""

    def __init__(self, name, folder, build=lambda builder, name: builder(name)):
        classifier, extractor = (
            build(builder, name) for builder in (create_classifier, create_feature_extractor)
        )
        export_hub(classifier, folder / "hub")
        export_hub(classifier, folder / "folded", folded=True)
        export_hub(extractor, folder / "features")
        export_serving(classifier, folder / "serving")
        export_serving(extractor, folder / "serving_features")
        self.folder = folder
        self.spec = spec_of(name)
        self.photos = [path.read_bytes() for path in photo_files()]
        self.images = np.stack([self.spec.transform(photo) for photo in self.photos])
        self.results = {
            "logits": classifier.predict(self.images, batch_size=8, verbose=0),
            "features": extractor.predict(self.images, batch_size=8, verbose=0),
        }
        self.results["probabilities"] = scores_of(self.results["logits"], "softmax")

    def require_equal(self, outputs, rows=slice(None)):
        """Every output of a signature is Keras's."""
        assert outputs
        for name, output in outputs.items():
            assert relative_difference(output, self.results[name][rows]) < TOLERANCE, name


def seeded(builder, name):
    model = builder(name, weights=None)
    fill_with_seeded_values(model)
    return model


@pytest.fixture(
    scope="module",
    params=[
        "bit_tiny.cifar10",
        # The full network; its weights are random, since the published ones are not at hand.
        pytest.param("bit_r50x1.distilled_in1k_224", marks=pytest.mark.full),
    ],
)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreement")
    if request.param == "bit_tiny.cifar10":
        return Case(request.param, folder)
    return Case(request.param, folder, seeded)


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    return compiled_loader(tmp_path_factory.mktemp("loader"))


SIGNATURES = {
    "hub": ["serving_default"],
    "features": ["serving_default"],
    "folded": ["serving_default", "features"],
    "serving/1": ["serving_default", "features"],
    "serving_features/1": ["serving_default", "features"],
}


@pytest.mark.parametrize("artifact", SIGNATURES)
def test_the_cpp_loader_agrees_with_keras(case, loader, artifact, tmp_path):
    requests = [(name, case.images[:4]) for name in SIGNATURES[artifact]]
    for outputs in ask(loader, case.folder / artifact, requests, tmp_path):
        case.require_equal(outputs, slice(4))


@pytest.mark.parametrize("artifact", ["folded", "serving/1"])
def test_the_cpp_loader_classifies_encoded_images(case, loader, artifact, tmp_path):
    batches = [np.array(case.photos[start : start + 8], object) for start in range(0, 64, 8)]
    requests = [("image_bytes", batch) for batch in batches if len(batch)]
    results = ask(loader, case.folder / artifact, requests, tmp_path)
    outputs = {key: np.concatenate([a[key] for a in results]) for key in results[0]}
    expected = case.results["probabilities"]
    best = -np.sort(-expected, axis=1)[:, :5]
    assert relative_difference(outputs["scores"], best) < TOLERANCE
    first = [case.spec.labels.ids[index] for index in expected.argmax(axis=1)]
    assert [id.decode() for id in outputs["class_ids"][:, 0]] == first
    names = dict(zip(case.spec.labels.ids, case.spec.labels.names, strict=True))
    for id, name in zip(outputs["class_ids"].flat, outputs["classes"].flat, strict=True):
        assert names[id.decode()] == name.decode()


def test_an_extractor_takes_encoded_images_too(case, loader, tmp_path):
    requests = [("image_bytes", np.array(case.photos[:4], object))]
    (outputs,) = ask(loader, case.folder / "serving_features" / "1", requests, tmp_path)
    case.require_equal(outputs, slice(4))


def test_a_broken_image_is_named_and_the_next_request_is_served(case, loader, tmp_path):
    good, bad = case.photos[0], case.photos[1][:300]
    requests = [
        ("image_bytes", np.array([good, bad, good, b"no image"], object)),
        ("image_bytes", np.array([good], object)),
        ("serving_default", case.images[:1]),
    ]
    refused, photo, image = ask(loader, case.folder / "serving" / "1", requests, tmp_path)
    assert "cannot be read, counted from 0:] [1 3]" in refused
    assert photo["scores"].shape == (1, 5)
    case.require_equal(image, slice(1))


@pytest.mark.parametrize("artifact", ["hub", "features", "serving/1", "serving_features/1"])
def test_openvino_agrees_with_keras(case, artifact):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.read_model(case.folder / artifact)
    # Elsewhere than in tests it computes in bfloat16 where the processor can.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(case.images[:4])
    outputs = {(key.any_name if key.names else str(key)): value for key, value in results.items()}
    case.require_equal(outputs, slice(4))


# tf_keras and tensorflow_hub use names that NumPy and setuptools are about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("artifact", ["hub", "folded", "features"])
def test_hub_keras_layer_agrees_with_keras(case, artifact):
    hub, tf_keras = pytest.importorskip("tensorflow_hub"), pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([hub.KerasLayer(str(case.folder / artifact))])
    output = "features" if artifact == "features" else "logits"
    case.require_equal({output: model.predict(case.images, batch_size=8, verbose=0)})
