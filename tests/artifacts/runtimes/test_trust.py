"""What runs more than arithmetic is run only where that is requested."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.saved_model_graph import DIGEST, KNOWN_OPERATIONS, operations_of
from bit_keras.errors import ExportError
from bit_keras.inference import load_predictor


class Spy(tf.Module):
    """Returns outputs like a classifier, and writes what it reads elsewhere."""

    def __init__(self, source, target):
        self.weight = tf.Variable(1.0)
        self._source, self._target = str(source), str(target)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), name="inputs")])
    def __call__(self, inputs):
        tf.io.write_file(self._target, tf.io.read_file(self._source))
        return tf.zeros((tf.shape(inputs)[0], 10)) * self.weight

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), name="inputs")])
    def serve(self, inputs):
        return {"logits": self(inputs)}


@pytest.fixture
def spy(classifier_artifact, tmp_path):
    """A SavedModel that says that it is an artifact of this package."""
    (tmp_path / "secret").write_text("password")
    module = Spy(tmp_path / "secret", tmp_path / "stolen")
    tf.saved_model.save(module, str(tmp_path / "spy"), signatures=module.serve)
    shutil.copytree(classifier_artifact / "assets.extra", tmp_path / "spy" / "assets.extra")
    (tmp_path / "spy" / DIGEST).unlink()
    return tmp_path / "spy"


def test_a_saved_model_that_reads_and_writes_files_is_refused(spy):
    for use in (open_program, load_predictor, lambda path: Artifact(path).verify()):
        with pytest.raises(ExportError) as info:
            use(spy)
        for fact in ("spy", "ReadFile", "WriteFile", "--trust", "trust=True"):
            assert fact in str(info.value)
    assert not (spy.parent / "stolen").exists()


def test_it_is_run_where_it_is_trusted(spy):
    open_program(spy, trust=True)(np.zeros((1, 32, 32, 3), "float32"))
    assert (spy.parent / "stolen").read_text() == "password"
    assert not Artifact(spy).verify(trust=True).passed


@pytest.fixture
def tflite_spy(tmp_path):
    """A TFLite file that reads and writes files by operations of TensorFlow."""
    (tmp_path / "secret").write_text("password")
    module = Spy(tmp_path / "secret", tmp_path / "stolen")

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 32, 3), name="inputs")])
    def serve(inputs):
        return module.serve(inputs)

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS,
        tf.lite.OpsSet.SELECT_TF_OPS,
    ]
    path = tmp_path / "spy.tflite"
    path.write_bytes(converter.convert())
    return path


def test_operations_of_tensorflow_in_a_tflite_file_need_trust(tflite_spy):
    images = np.zeros((1, 32, 32, 3), "float32")
    for engine in ("litert", "tf.lite"):
        with pytest.raises(ExportError) as info:
            open_program(tflite_spy, engine=engine)(images)
        for fact in ("FlexReadFile", "FlexWriteFile", "--trust"):
            assert fact in str(info.value)
    assert not (tflite_spy.parent / "stolen").exists()
    # TensorFlow's own wheel has no Flex delegate, and says so.
    with pytest.raises(ExportError, match="Select TensorFlow op"):
        open_program(tflite_spy, engine="tf.lite", trust=True)(images)


def test_the_operations_that_save_are_known_only_where_nothing_else_calls_them(
    classifier_artifact, tmp_path
):
    assert "SaveV2" not in operations_of(classifier_artifact)
    artifact = shutil.copytree(classifier_artifact, tmp_path / "artifact")
    file = artifact / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    functions = model.meta_graphs[0].graph_def.library.function
    names = [function.signature.name for function in functions]
    (saver,) = [name for name in names if "traced_save" in name]
    (signature,) = [each for each in functions if "signature_wrapper" in each.signature.name]
    (call,) = [node for node in signature.node_def if node.op == "StatefulPartitionedCall"]
    call.attr["f"].func.name = saver
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=r"saved_model\.sha256"):
        open_program(artifact)
    (artifact / DIGEST).unlink()
    assert "SaveV2" in operations_of(artifact)
    with pytest.raises(ExportError, match="SaveV2"):
        open_program(artifact)


@pytest.mark.parametrize("artifact", ["classifier", "extractor", "serving"])
def test_what_this_package_exports_needs_no_trust(request, artifact):
    # Loading in all other tests of artifacts shows the same; here the operations are named.
    assert operations_of(request.getfixturevalue(f"{artifact}_artifact")) <= KNOWN_OPERATIONS


def test_ordinary_layers_need_no_trust(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Rescaling(2.0, 1.0),
            layers.Resizing(8, 8),
            layers.Conv2D(4, 3, activation="gelu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same", activation="relu6"),
            layers.GlobalAveragePooling2D(),
            layers.LayerNormalization(),
            layers.Dropout(0.5),
            layers.Dense(4, activation="softmax"),
        ]
    )
    archive = keras.export.ExportArchive()
    archive.track(model)
    images = tf.TensorSpec((None, 16, 16, 3), name="inputs")
    archive.add_endpoint("serving_default", model.call, [images])
    archive.write_out(str(tmp_path / "model"), verbose=False)
    assert operations_of(tmp_path / "model") <= KNOWN_OPERATIONS


def test_commands_take_the_option(spy):
    from click.testing import CliRunner

    from bit_keras.cli import main

    result = CliRunner().invoke(main, ["verify", str(spy)])
    assert result.exit_code == 1
    assert "WriteFile" in result.output
    result = CliRunner().invoke(main, ["verify", str(spy), "--trust", "--json"])
    assert result.exit_code == 1  # Its outputs are others.
    assert '"passed": false' in result.output
