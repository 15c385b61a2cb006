"""Several signatures over one subgraph, which has the weights once: what each returns."""

import numpy as np
import pytest
import tensorflow as tf

from bit_keras.errors import ExportError
from bit_keras.exporters.tflite.interface import with_signatures
from bit_keras.exporters.tflite.operators import read_graphs
from tests.exporters.tflite.models import SIGNATURES, extractor, model_of, photos, results

pytestmark = pytest.mark.filterwarnings(
    # It is one of the two programs that have to run the files.
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)


def interpreters():
    """Interpreters of a model, by name."""
    found = [pytest.param(tf.lite.Interpreter, id="tf.lite")]
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        skip = pytest.mark.skip(reason="ai-edge-litert is not installed")
        return [*found, pytest.param(None, id="ai_edge_litert", marks=skip)]
    return [*found, pytest.param(Interpreter, id="ai_edge_litert")]


@pytest.mark.parametrize("interpreter", interpreters())
def test_each_signature_returns_every_output(interpreter):
    image = photos()[:1] / np.float32(127.5) - 1
    features, probabilities = (result[:1] for result in results())
    opened = interpreter(model_content=model_of("none"))
    # Interpreters sort the names.
    outputs = ["features", "logits", "probabilities"]
    assert opened.get_signature_list() == {
        name: {"inputs": ["inputs"], "outputs": outputs} for name in ("serving_default", "features")
    }
    scores = opened.get_signature_runner("serving_default")(inputs=image)
    assert np.abs(scores["probabilities"] - probabilities).max() < 1e-5
    found = opened.get_signature_runner("features")(inputs=image)
    assert np.abs(found["features"] - features).max() < 1e-5 * np.abs(features).max()


def test_a_feature_extractor_returns_the_same_from_both():
    image = photos()[:1] / np.float32(127.5) - 1
    opened = tf.lite.Interpreter(model_content=extractor())
    one, other = (
        opened.get_signature_runner(name)(inputs=image)["features"]
        for name in ("serving_default", "features")
    )
    np.testing.assert_array_equal(one, other)


def test_there_is_one_subgraph_with_the_scores_first():
    [graph] = read_graphs(model_of("none"))
    assert [tensor.shape for tensor in graph.outputs] == [(1, 10), (1, 10), (1, 1024)]
    opened = tf.lite.Interpreter(model_content=model_of("none"))
    opened.allocate_tensors()
    opened.set_tensor(opened.get_input_details()[0]["index"], photos()[:1] / np.float32(127.5) - 1)
    opened.invoke()
    first = opened.get_tensor(opened.get_output_details()[0]["index"])
    assert first.sum() == pytest.approx(1)


def test_a_model_with_several_signatures_is_refused():
    with pytest.raises(ExportError, match="lost the signature"):
        with_signatures(model_of("none"), SIGNATURES)
