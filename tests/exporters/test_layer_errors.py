"""Errors layer by layer: none where nothing was changed, and a jump where something was."""

import numpy as np
import pytest

from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.errors import ExportError
from bit_keras.exporters.layer_errors import layer_errors
from bit_keras.exporters.onnx import export_onnx
from bit_keras.exporters.tflite.tflite_export import export_tflite
from bit_keras.models import create_classifier, create_feature_extractor
from bit_keras.models.folding import leaf_layers


def convolutions(model):
    return {layer.name for layer in leaf_layers(model) if hasattr(layer, "kernel")}


@pytest.mark.parametrize("fixture", ["onnx_file", "tflite_file"])
def test_a_float32_file_has_the_layers_of_keras(classifier, fixture, request):
    result = layer_errors(request.getfixturevalue(fixture), classifier)
    names = [error.layer for error in result.errors]
    order = [layer.name for layer in leaf_layers(classifier)]
    assert names == sorted(names, key=order.index)
    # Every convolution and the head stand by themselves in every format.
    assert set(names) >= convolutions(classifier)
    assert result.layers == len(order) - 5  # Without the inputs of the network and its blocks.
    assert max(error.error for error in result.errors) < 1e-5
    assert {error.dtype for error in result.errors} == {"float32"}


def test_the_error_starts_at_the_layer_that_was_changed(classifier, onnx_file, tmp_path):
    import onnx

    model = onnx.load(onnx_file)
    (node,) = (node for node in model.graph.node if node.output[0] == "block3_unit01_conv2")
    (kernel,) = (entry for entry in model.graph.initializer if entry.name == node.input[1])
    values = onnx.numpy_helper.to_array(kernel)
    kernel.CopyFrom(onnx.numpy_helper.from_array(1.1 * values, kernel.name))
    onnx.save(model, tmp_path / "changed.onnx")

    errors = layer_errors(tmp_path / "changed.onnx", classifier).errors
    names = [error.layer for error in errors]
    changed = names.index("block3_unit01_conv2")
    assert errors[changed].error == pytest.approx(0.1, rel=1e-3)
    assert max(error.error for error in errors[:changed]) < 1e-5
    # GroupNorm divides by the factor again, but for its epsilon.
    assert errors[names.index("block3_unit01_norm3")].error < 0.01


def test_quantised_weights_are_seen(classifier, tmp_path):
    path = tmp_path / "dynamic.tflite"
    export_tflite(classifier, path, quantize="dynamic")
    errors = {error.layer: error.error for error in layer_errors(path, classifier).errors}
    assert 1e-3 < errors["head"] < 0.2
    assert 1e-4 < errors["stem_conv"] < errors["block4_unit01_conv3"]


def test_a_feature_extractor_is_compared_with_a_classifier_of_the_same_weights(
    classifier, tmp_path
):
    extractor = create_feature_extractor("bit_tiny.cifar10", weights=None)
    weights = classifier.get_weights()
    extractor.set_weights(weights[: len(extractor.weights)])
    export_onnx(extractor, tmp_path / "features.onnx")
    errors = layer_errors(tmp_path / "features.onnx", classifier).errors
    assert errors[-1].layer == "features"
    assert np.max([error.error for error in errors]) < 1e-5


def test_other_weights_are_refused(onnx_file):
    other = create_classifier("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(other, seed=1)
    with pytest.raises(ExportError, match=r"exported from other weights .* name with --against"):
        layer_errors(onnx_file, other)


def test_a_saved_model_has_no_layers_to_look_at(classifier, classifier_artifact):
    with pytest.raises(ExportError, match=r"of the target hub; .* known of tflite and onnx"):
        layer_errors(classifier_artifact, classifier)
