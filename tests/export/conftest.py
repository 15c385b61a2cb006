"""Artifacts of the small network, exported once for all tests of the exporter."""

import pytest

from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.export.hub import export_hub
from bit_keras.export.serving import export_serving
from bit_keras.models import create_classifier, create_feature_extractor


@pytest.fixture(scope="session")
def classifier():
    model = create_classifier("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    return model


@pytest.fixture(scope="session")
def extractor():
    model = create_feature_extractor("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    return model


@pytest.fixture(scope="session")
def classifier_artifact(classifier, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "classifier"
    export_hub(classifier, path)
    return path


@pytest.fixture(scope="session")
def extractor_artifact(extractor, tmp_path_factory):
    path = tmp_path_factory.mktemp("hub") / "extractor"
    export_hub(extractor, path)
    return path


@pytest.fixture(scope="session")
def serving_artifact(classifier, tmp_path_factory):
    """The folder of the only version of a classifier for servers."""
    pytest.importorskip("tensorflow_serving.apis", reason="the warm-up file needs its protos")
    path = tmp_path_factory.mktemp("serving") / "classifier"
    export_serving(classifier, path)
    return path / "1"
