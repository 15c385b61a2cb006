"""What people do with SavedModels: TensorFlow's ways to run them, and converters to other formats.

The converters need other versions of packages than this one, in environments below a folder that
`BIT_KERAS_CLIENTS` names:

    python3.11 -m venv clients/tensorflowjs
    clients/tensorflowjs/bin/pip install tensorflowjs==4.22.0 "ydf<0.12"
    python3.11 -m venv clients/coremltools
    clients/coremltools/bin/pip install coremltools==9.0 "tensorflow==2.19.*"
    python3.11 -m venv clients/tf2onnx
    clients/tf2onnx/bin/pip install tf2onnx==1.17.0 "onnx==1.16.*" "tensorflow==2.15.*"
    npm install --no-save @tensorflow/tfjs
    make clients BIT_KERAS_CLIENTS=clients TESTS=tests/exporters/test_saved_model_clients.py
"""

import concurrent.futures
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.reference import relative_difference
from tests.browser import node_module
from tests.cifar10 import ROOT, SAMPLES
from tests.clients import environments
from tests.documentation.snippets import blocks_of

FORMS = ("hub", "hub --folded", "serving")

#: The contract of float32, for programs that compute sums in another order.
TOLERANCE = 1e-5

HERE = Path(__file__).parent


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def artifact(form, request):
    """A classifier in one of the forms."""
    names = ("classifier_artifact", "folded_artifact", "serving_artifact")
    return request.getfixturevalue(dict(zip(FORMS, names, strict=True))[form])


def difference_to_keras(artifact, outputs):
    """The largest difference of logits and features to the reference outputs."""
    reference = Artifact(artifact).read_reference()
    found = [
        relative_difference(np.asarray(outputs[name]), reference[name])
        for name in ("logits", "features")
        if name in outputs
    ]
    assert found
    assert max(found) < TOLERANCE
    return max(found)


def images_of(artifact):
    return tf.constant(Artifact(artifact).read_reference()["inputs"])


def test_jit_compile_gives_keras_outputs(artifact, form, client_record):
    loaded = tf.saved_model.load(artifact)
    difference = 0.0
    for name in {"serving_default", "features"} & set(loaded.signatures):
        compiled = tf.function(loaded.signatures[name], jit_compile=True)
        outputs = compiled(inputs=images_of(artifact))
        difference = max(difference, difference_to_keras(artifact, outputs))
    client_record("tf.function(jit_compile=True)", tf.__version__, form, difference)


@pytest.mark.long
def test_tfsm_layer_calls_every_signature_and_is_exported_again(
    artifact, form, tmp_path, client_record
):
    loaded, difference = tf.saved_model.load(artifact), 0.0
    for name in loaded.signatures:
        layer = keras.layers.TFSMLayer(artifact, call_endpoint=name)
        if name == "image_bytes":
            encoded = tf.constant([(SAMPLES / "cat.jpg").read_bytes()])
            found, expected = layer(encoded), loaded.signatures[name](image_bytes=encoded)
            for output, value in expected.items():
                assert np.array_equal(found[output], value), output
        else:
            outputs = layer(images_of(artifact))
            difference = max(difference, difference_to_keras(artifact, outputs))
    layer = keras.layers.TFSMLayer(artifact, call_endpoint="serving_default")
    inputs = keras.Input(images_of(artifact).shape[1:])
    keras.Model(inputs, layer(inputs)["logits"]).export(tmp_path / "again", verbose=False)
    again = tf.saved_model.load(tmp_path / "again")
    logits = again.serve(images_of(artifact))
    difference = max(difference, difference_to_keras(artifact, {"logits": logits}))
    client_record("keras.layers.TFSMLayer, exported again", keras.__version__, form, difference)


@pytest.mark.long
def test_threads_share_a_loaded_artifact(artifact):
    loaded = tf.saved_model.load(artifact)

    def logits(_):
        return loaded.signatures["serving_default"](inputs=images_of(artifact))["logits"].numpy()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for output in pool.map(logits, range(32)):
            difference_to_keras(artifact, {"logits": output})


@pytest.mark.long
def test_threads_load_artifacts_at_once(artifact):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        for loaded in pool.map(tf.saved_model.load, [artifact] * 3):
            outputs = loaded.signatures["serving_default"](inputs=images_of(artifact))
            difference_to_keras(artifact, outputs)


@pytest.mark.long
def test_the_converter_to_tflite_reads_it(artifact, form, client_record):
    interpreter = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed"
    )
    converter = tf.lite.TFLiteConverter.from_saved_model(
        os.fspath(artifact), signature_keys=["serving_default"]
    )
    run = interpreter.Interpreter(model_content=converter.convert()).get_signature_runner()
    outputs = [run(inputs=image[None])["logits"] for image in images_of(artifact).numpy()]
    difference = difference_to_keras(artifact, {"logits": np.concatenate(outputs)})
    client_record("tf.lite.TFLiteConverter", tf.__version__, form, difference)


def process(*command, **environment):
    """What a program prints; fails with its messages where it does not succeed."""
    # Without the path of the tests, which other Pythons cannot import.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=inherited | environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.long
def test_saved_model_cli_runs_it(artifact, form, tmp_path, client_record):
    np.save(tmp_path / "images.npy", images_of(artifact))
    process(
        *(sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "run"),
        *("--dir", artifact, "--tag_set", "serve", "--signature_def", "serving_default"),
        *("--inputs", f"inputs={tmp_path / 'images.npy'}", "--outdir", tmp_path),
    )
    difference = difference_to_keras(artifact, {"logits": np.load(tmp_path / "logits.npy")})
    client_record("saved_model_cli", tf.__version__, form, difference)


#: Loads an artifact for two processors and prints the logits of both.
MIRRORED = """
import sys
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
images = tf.constant(np.load(sys.argv[2]))
with strategy.scope():
    loaded = tf.saved_model.load(sys.argv[1])
run = tf.function(lambda: strategy.run(
    lambda: loaded.signatures["serving_default"](inputs=images)["logits"]))
np.save(sys.argv[3], [each.numpy() for each in strategy.experimental_local_results(run())])
"""


@pytest.mark.long
def test_a_distribution_strategy_loads_what_fills_no_kernels(
    artifact, form, tmp_path, client_record
):
    np.save(tmp_path / "images.npy", images_of(artifact))
    arguments = (artifact, tmp_path / "images.npy", tmp_path / "logits.npy")
    command = (sys.executable, "-c", MIRRORED, *arguments)
    if form == "hub --folded":
        # TensorFlow runs the functions that fill variables outside of all replicas, where
        # variables of a strategy cannot be read. docs/serving.md says so.
        with pytest.raises(AssertionError, match="placeholder that is not supposed"):
            process(*command)
        client_record("tf.distribute scope", tf.__version__, form, note="does not load")
        return
    process(*command)
    replicas = np.load(tmp_path / "logits.npy")
    assert len(replicas) == 2
    found = max(difference_to_keras(artifact, {"logits": logits}) for logits in replicas)
    client_record("tf.distribute scope", tf.__version__, form, found)


def version_in(python, package):
    return process(
        python, "-c", f"from importlib.metadata import version; print(version('{package}'))"
    ).strip()


@pytest.mark.full
def test_tf2onnx_converts_it(artifact, form, tmp_path, client_record):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "model.onnx"
    for python in environments("tf2onnx"):
        process(
            *(python, "-m", "tf2onnx.convert", "--saved-model", artifact, "--output", path),
            *("--signature_def", "serving_default", "--opset", 17),
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (logits,) = session.run(["logits"], {"inputs": images_of(artifact).numpy()})
        difference = difference_to_keras(artifact, {"logits": logits})
        client_record("tf2onnx", version_in(python, "tf2onnx"), form, difference)


@pytest.mark.full
def test_tensorflow_js_runs_it(artifact, form, tmp_path, client_record):
    modules = node_module("@tensorflow/tfjs").parents[1]
    (tmp_path / "inputs.bin").write_bytes(images_of(artifact).numpy().tobytes())
    for python in environments("tensorflowjs"):
        converter = (
            *(python.with_name("tensorflowjs_converter"), "--input_format", "tf_saved_model"),
            *("--signature_name", "serving_default", "--use_structured_outputs_names", "True"),
            *(artifact, tmp_path / "web"),
        )
        if form == "hub --folded":
            # It takes what fills variables for tables, and looks for them in the signature.
            with pytest.raises(AssertionError, match="is not in graph"):
                process(*converter)
            assert not (tmp_path / "web" / "model.json").exists()
            version = version_in(python, "tensorflowjs")
            client_record("TensorFlow.js", version, form, note="is not converted")
            continue
        process(*converter)
        side = images_of(artifact).shape[1]
        script = HERE / "run_tensorflowjs.js"
        printed = process(
            *("node", script, tmp_path / "web", tmp_path / "inputs.bin", side),
            NODE_PATH=os.fspath(modules),
        )
        output = json.loads(printed.splitlines()[-1])
        difference = difference_to_keras(artifact, output["values"])
        client_record("TensorFlow.js", output["version"], form, difference)


@pytest.mark.full
def test_core_ml_programs_compute_what_keras_does(serving_artifact, tmp_path, client_record):
    """coremltools predicts on macOS only: its program is computed by `convert_coreml.py`."""
    page = ROOT / "docs" / "deploy.md"
    (snippet,) = (
        block.source
        for block in blocks_of(page.read_text("utf-8"), page)
        if "import coremltools" in block.source
    )
    # It names folders of the page.
    snippet = snippet.replace("tiny-serving/1", os.fspath(serving_artifact))
    snippet = snippet.replace("tiny.mlpackage", os.fspath(tmp_path / "tiny.mlpackage"))
    (tmp_path / "snippet.py").write_text(snippet)
    np.save(tmp_path / "inputs.npy", images_of(serving_artifact))
    for python in environments("coremltools"):
        process(
            *(python, HERE / "convert_coreml.py", tmp_path / "snippet.py"),
            *(tmp_path / "inputs.npy", tmp_path / "outputs.npz"),
        )
        outputs = dict(np.load(tmp_path / "outputs.npz"))
        assert outputs["inputs"].tolist() == ["inputs"]
        assert {"logits", "probabilities"} < outputs.keys()
        difference = difference_to_keras(serving_artifact, outputs)
        assert (tmp_path / "tiny.mlpackage").is_dir()
        note = "(its program, computed by the test)"
        client_record("Core ML", str(outputs["version"]), "serving", difference, note)
