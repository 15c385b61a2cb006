"""One small network in every file format that programs run."""

import warnings

import numpy as np
import pytest

IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="session")
def weights():
    generator = np.random.default_rng(1)
    return {
        "kernel": generator.normal(size=(3, 3, 3, 4)).astype("float32"),
        "head": generator.normal(size=(4, 5)).astype("float32"),
    }


@pytest.fixture(scope="session")
def expected(weights):
    """The outputs of the network for `IMAGES`, in float64."""
    padded = np.pad(IMAGES.astype("float64"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    maps = np.einsum("nyxchw,hwco->nyxo", windows, weights["kernel"])
    features = np.maximum(maps, 0).mean(axis=(1, 2))
    return {"features": features, "logits": features @ weights["head"]}


@pytest.fixture(scope="session")
def module(weights):
    """The network in TensorFlow, with three signatures of which one takes no images."""
    tf = pytest.importorskip("tensorflow")
    root = tf.Module()
    root.kernel, root.head = tf.Variable(weights["kernel"]), tf.Variable(weights["head"])

    def features_of(images):
        maps = tf.nn.relu(tf.nn.conv2d(images, root.kernel, 1, "SAME"))
        return tf.reduce_mean(maps, axis=(1, 2))

    spec = tf.TensorSpec((None, 8, 8, 3), tf.float32, name="inputs")
    root.serving_default = tf.function(
        lambda inputs: {"logits": features_of(inputs) @ root.head}, input_signature=[spec]
    )
    root.features = tf.function(
        lambda inputs: {"features": features_of(inputs)}, input_signature=[spec]
    )
    root.image_bytes = tf.function(
        lambda image_bytes: {"lengths": tf.strings.length(image_bytes)},
        input_signature=[tf.TensorSpec((None,), tf.string, name="image_bytes")],
    )
    # A number of images that the graph itself insists on.
    root.fixed = tf.function(
        lambda inputs: {
            "logits": tf.reshape(features_of(inputs), (1, 4)) @ root.head,
        },
        input_signature=[tf.TensorSpec((1, 8, 8, 3), tf.float32, name="inputs")],
    )
    return root


@pytest.fixture(scope="session")
def saved_model(module, tmp_path_factory):
    import tensorflow as tf

    path = tmp_path_factory.mktemp("saved_model") / "network"
    names = ("serving_default", "features", "image_bytes")
    tf.saved_model.save(module, path, signatures={name: getattr(module, name) for name in names})
    return path


def converted(converter, path):
    path.write_bytes(converter.convert())
    return path


@pytest.fixture(scope="session")
def tflite(saved_model, tmp_path_factory):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=["serving_default", "features"]
    )
    return converted(converter, tmp_path_factory.mktemp("tflite") / "network.tflite")


@pytest.fixture(scope="session")
def pixels_tflite(saved_model, tmp_path_factory):
    """In int8, with pixels in and integers out."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=["serving_default"]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        ("serving_default", {"inputs": image[None]}) for image in IMAGES
    )
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    with warnings.catch_warnings():
        # The converter calibrates in an interpreter that says it is deprecated.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        return converted(converter, tmp_path_factory.mktemp("tflite") / "pixels.tflite")


@pytest.fixture(scope="session")
def single_tflite(module, tmp_path_factory):
    """For one image at a time, which no resizing changes."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.fixed.get_concrete_function()], module
    )
    return converted(converter, tmp_path_factory.mktemp("tflite") / "single.tflite")


@pytest.fixture(scope="session")
def unsigned_tflite(module, tmp_path_factory):
    """Without signatures, as converters wrote before TensorFlow 2.5."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frozen = convert_variables_to_constants_v2(module.serving_default.get_concrete_function())
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    return converted(converter, tmp_path_factory.mktemp("tflite") / "unsigned.tflite")


def write_onnx(path, weights, batch="batch", element="FLOAT"):
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    kernel = weights["kernel"].transpose(3, 2, 0, 1)
    nodes = [
        helper.make_node("Cast", ["inputs"], ["floats"], to=types.FLOAT),
        helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["rectified"]),
        helper.make_node("ReduceMean", ["rectified", "axes"], ["features"], keepdims=0),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("inputs", getattr(types, element), [batch, 8, 8, 3])],
        [
            helper.make_tensor_value_info("logits", types.FLOAT, [batch, 5]),
            helper.make_tensor_value_info("features", types.FLOAT, [batch, 4]),
        ],
        [
            onnx.numpy_helper.from_array(np.ascontiguousarray(kernel), "kernel"),
            onnx.numpy_helper.from_array(weights["head"], "head"),
            onnx.numpy_helper.from_array(np.array([2, 3]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def onnx_file(weights, tmp_path_factory):
    return write_onnx(tmp_path_factory.mktemp("onnx") / "network.onnx", weights)


@pytest.fixture(scope="session")
def openvino_folder(onnx_file, tmp_path_factory):
    openvino = pytest.importorskip("openvino")
    path = tmp_path_factory.mktemp("openvino") / "network"
    model = openvino.convert_model(onnx_file)
    openvino.save_model(model, path / "model.xml", compress_to_fp16=False)
    return path
