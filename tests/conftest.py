"""Fixtures that several folders of tests share."""

import keras
import pytest

from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.registry import ARCHITECTURES
from tests.clients import ClientRecord
from tests.installing import Environment, build_wheel, checkout
from tests.tiers import is_slow


def pytest_addoption(parser):
    parser.addoption(
        "--record-clients",
        action="store_true",
        help="Run only the tests that run other programs, and write docs/clients.json.",
    )


def pytest_collection_modifyitems(config, items):
    for item in items:
        if is_slow(item):
            item.add_marker(pytest.mark.slow)
    if config.getoption("--record-clients"):
        items[:] = [item for item in items if "client_record" in item.fixturenames]


@pytest.fixture(scope="session")
def client_record(request):
    """A function that notes that a program read a form of export: see `ClientRecord`."""
    record = ClientRecord()
    yield record
    if request.config.getoption("--record-clients"):
        record.write()


@pytest.fixture
def dtype_policy():
    """A function that sets the global dtype policy, which the end of the test undoes."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def channels_first():
    """The other image data format, as some users set it for everything they do."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


@pytest.fixture(scope="session")
def tiny_arrays():
    """The arrays in `tiny_npz`, by official name."""
    return SeededArrays(official_shapes(ARCHITECTURES["bit_tiny"], classes=10))


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory, tiny_arrays):
    """An official npz file for `bit_tiny.cifar10`, with a head that is not zero."""
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    write_npz(path, tiny_arrays)
    return path


# Artifacts of the small network, exported once for all tests of a process. What writes them is
# imported on use: it takes TensorFlow, which the tests of other backends have no need of.


@pytest.fixture(scope="session")
def classifier():
    from bit_keras.models import create_classifier

    model = create_classifier("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    return model


@pytest.fixture(scope="session")
def extractor():
    from bit_keras.models import create_feature_extractor

    model = create_feature_extractor("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    return model


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A function from a model, a target and options to its artifact and the metadata of it.

    Nothing is written twice.
    """
    from bit_keras.exporters import export
    from bit_keras.exporters.targets import TARGETS, artifact_path

    known = {}

    def artifact(model, target, calibration=None, **options):
        images = None if calibration is None else calibration.tobytes()
        key = id(model), target, images, repr(sorted(options.items()))
        if key not in known:
            suffix = ".tflite" if target == "tflite" else TARGETS[target].suffix
            path = tmp_path_factory.mktemp(target) / f"tiny{suffix}"
            metadata = export(model, path, target, calibration=calibration, **options)
            # With the model, or another one could get its id.
            known[key] = artifact_path(path, target, options), metadata, model
        return known[key][:2]

    return artifact


@pytest.fixture(scope="session")
def classifier_artifact(classifier, exported):
    return exported(classifier, "hub")[0]


@pytest.fixture(scope="session")
def extractor_artifact(extractor, exported):
    return exported(extractor, "hub")[0]


@pytest.fixture(scope="session")
def folded_artifact(classifier, exported):
    """A classifier for TF Hub with the signatures of a server."""
    return exported(classifier, "hub", folded=True)[0]


@pytest.fixture(scope="session")
def tflite_file(classifier, exported):
    return exported(classifier, "tflite")[0]


@pytest.fixture(scope="session")
def onnx_file(classifier, exported):
    return exported(classifier, "onnx")[0]


@pytest.fixture(scope="session")
def openvino_folder(classifier, exported):
    return exported(classifier, "openvino")[0]


@pytest.fixture(scope="session")
def serving_artifact(classifier, exported):
    """The folder of the only version of a classifier for servers."""
    pytest.importorskip("tensorflow_serving.apis", reason="the warm-up file needs its protos")
    return exported(classifier, "serving")[0]


# The package as users install it, built once for all tests of a process.


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A checkout that nothing was built in."""
    return checkout(tmp_path_factory.mktemp("source") / "bit_keras")


@pytest.fixture(scope="session")
def wheel(source, tmp_path_factory):
    return build_wheel(source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """An environment that the wheel is installed in."""
    return Environment(tmp_path_factory.mktemp("installed"), wheel)
