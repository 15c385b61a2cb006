"""The check of what a TFLite model computes with: each promise, and each way to break one."""

import math

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.errors import ExportError
from bit_keras.exporters.tflite.operators import (
    operator_counts,
    read_graphs,
    require_fits,
    require_operators,
)
from bit_keras.models import create_classifier
from tests.exporters.tflite.models import converted, model_of

QUANTIZATIONS = ("none", "float16", "dynamic", "int8-pure")

pytestmark = pytest.mark.filterwarnings(
    # It is one of the two programs that have to run the files.
    r"ignore:\s*Warning. tf.lite.Interpreter is deprecated:UserWarning"
)


def changed(model, change):
    """A model of which `change` got the object."""
    import flatbuffers

    unpacked = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    change(unpacked)
    builder = flatbuffers.Builder()
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operators_named(unpacked, name):
    code = getattr(schema.BuiltinOperator, name)
    codes = [index for index, one in enumerate(unpacked.operatorCodes) if one.builtinCode == code]
    return [one for one in unpacked.subgraphs[0].operators if one.opcodeIndex in codes]


# What the converter makes of the network.


@pytest.mark.parametrize("quantize", QUANTIZATIONS)
def test_what_the_converter_makes_keeps_its_promise(quantize):
    require_operators(model_of(quantize), quantize)


@pytest.mark.parametrize(
    ("model", "quantize", "what"),
    [
        ("float16", "none", r"has a tensor in FLOAT16"),
        ("dynamic", "none", r"CONV_2D.* has a tensor in INT8"),
        ("none", "float16", r"CONV_2D.* has a kernel in FLOAT32, not in FLOAT16"),
        ("dynamic", "float16", r"CONV_2D.* has a kernel in INT8, not in FLOAT16"),
        ("none", "dynamic", r"CONV_2D.* has a kernel in FLOAT32, not in INT8"),
        ("float16", "dynamic", r"CONV_2D.* has a kernel in FLOAT16, not in INT8"),
        ("int8-pure", "dynamic", r"CONV_2D.* reads INT8, not FLOAT32"),
        ("none", "int8", r"CONV_2D.* computes in FLOAT32, not in INT8"),
        ("dynamic", "int8", r"CONV_2D.* computes in FLOAT32, not in INT8"),
        ("none", "int8-pure", r"has a tensor in FLOAT32"),
    ],
)
def test_one_quantisation_is_not_taken_for_another(model, quantize, what):
    with pytest.raises(ExportError, match=f"did not keep to --quantize {quantize}: .*{what}"):
        require_operators(model_of(model), quantize)


def test_a_pure_model_is_also_one_in_int8():
    require_operators(model_of("int8-pure"), "int8")


def test_the_operators_of_a_pure_model_are_counted():
    counts = operator_counts(model_of("int8-pure"))
    assert counts["CONV_2D"] == 23
    # One input and three outputs, which are uint8 while the kernels compute in int8.
    assert counts["QUANTIZE"] == 4
    assert "DEQUANTIZE" not in counts
    assert list(counts) == sorted(counts)


# What breaks every promise.


def test_an_operator_of_tensorflow_is_named():
    def errors(inputs):
        return {"errors": tf.math.erf(inputs)}

    with pytest.raises(ExportError, match=r"operator FlexErf, .*, is not a builtin one"):
        require_operators(converted(errors, "flex"), "none")


def test_a_tensor_of_five_dimensions_is_named():
    def folded(inputs):
        groups = tf.reshape(inputs, (1, 8, 8, 2, 3))
        return {"sums": tf.reduce_sum(tf.math.sin(groups), axis=-1)}

    with pytest.raises(ExportError, match=r"has a tensor of 5 dimensions, '"):
        require_operators(converted(folded, "none", (1, 8, 8, 6)), "none")


def test_bytes_that_are_read_with_another_sign_are_found():
    # As the converter does where a quantised output of the model is read by another operator.
    def confuse(unpacked):
        reshape = operators_named(unpacked, "RESHAPE")[0]
        unpacked.subgraphs[0].tensors[reshape.inputs[0]].type = schema.TensorType.UINT8

    with pytest.raises(ExportError, match=r"takes bytes of UINT8 for INT8 as they are"):
        require_operators(changed(model_of("int8-pure"), confuse), "int8")


def test_a_model_that_would_end_the_process_is_refused():
    def squares(inputs):
        return {"squares": tf.math.squared_difference(inputs, 0.5)}

    def narrow(unpacked):
        output = operators_named(unpacked, "SQUARED_DIFFERENCE")[0].outputs[0]
        unpacked.subgraphs[0].tensors[output].quantization.scale = [1e-9]

    model = converted(squares, "int8-pure")
    require_operators(model, "int8-pure")
    with pytest.raises(ExportError, match=r"SQUARED_DIFFERENCE, .* kernel in int8 cannot take"):
        require_operators(changed(model, narrow), "int8-pure")


# What breaks the promise of one.


def test_a_float_island_in_a_pure_model_is_found():
    kernel = tf.constant(np.ones((3, 3, 3, 8), "float32"))

    def island(inputs):
        # CEIL has no kernel in int8.
        return {"maps": tf.nn.conv2d(inputs, kernel, 1, "SAME"), "ceiling": tf.math.ceil(inputs)}

    model = converted(island, "int8-and-float")
    with pytest.raises(ExportError, match=r"operator DEQUANTIZE, .*, has a tensor in FLOAT32"):
        require_operators(model, "int8-pure")


def test_a_quantize_inside_a_pure_model_is_found():
    def shorten(unpacked):
        # Then what was the last operator writes no output of the model.
        last = operators_named(unpacked, "QUANTIZE")[-1]
        unpacked.subgraphs[0].outputs = np.array([last.inputs[0]], np.int32)

    model = changed(model_of("int8-pure"), shorten)
    with pytest.raises(ExportError, match=r"QUANTIZE, .*, stands between the input and the output"):
        require_operators(model, "int8-pure")


def test_one_scale_for_a_whole_kernel_is_too_few():
    def share(unpacked):
        kernel = operators_named(unpacked, "CONV_2D")[0].inputs[1]
        quantization = unpacked.subgraphs[0].tensors[kernel].quantization
        quantization.scale, quantization.zeroPoint = [0.1], [0]

    with pytest.raises(ExportError, match=r"CONV_2D, .*, has 1 scales for the 32 channels"):
        require_operators(changed(model_of("int8-pure"), share), "int8")


def test_an_interface_in_int8_is_refused():
    # MediaPipe takes only uint8 and float32.
    def strip(unpacked):
        graph = unpacked.subgraphs[0]
        first = operators_named(unpacked, "QUANTIZE")[0]
        graph.inputs = first.outputs
        graph.operators.remove(first)

    with pytest.raises(ExportError, match=r"an input or output of .*, is INT8 and not UINT8"):
        require_operators(changed(model_of("int8-pure"), strip), "int8-pure")


def test_small_kernels_of_a_dynamic_model_stay_in_float():
    kernel = tf.constant(np.ones((3, 3, 3, 8), "float32"))

    def small(inputs):
        return {"maps": tf.nn.conv2d(inputs, kernel, 1, "SAME")}

    require_operators(converted(small, "dynamic"), "dynamic")
    with pytest.raises(ExportError, match="has a kernel in FLOAT32"):
        require_operators(converted(small, "none"), "float16")


# What it reads.


def test_shapes_types_and_scales_are_those_that_the_interpreter_sees():
    [graph] = read_graphs(model_of("int8-pure"))
    interpreter = tf.lite.Interpreter(model_content=model_of("int8-pure"))
    for tensor, seen in (
        (graph.inputs[0], interpreter.get_input_details()[0]),
        (graph.outputs[0], interpreter.get_output_details()[0]),
    ):
        assert (tensor.index, tensor.name, tensor.shape) == (
            seen["index"],
            seen["name"],
            tuple(seen["shape"]),
        )
        assert tensor.type == np.dtype(seen["dtype"]).name.upper()
        assert tensor.scales == pytest.approx(seen["quantization_parameters"]["scales"])


# The limit of the format.


class Large:
    """As much of a network as its number of weights."""

    name = "bit_r152x4.in21k"

    def __init__(self, weights):
        self.weights = weights

    def count_params(self):
        return self.weights


@pytest.mark.parametrize(
    ("weights", "quantize", "sentence"),
    [
        (
            937e6,
            "none",
            r"has 3\.7 GB of weights .* --quantize float16 or dynamic or int8 or",
        ),
        (
            1.1e9,
            "float16",
            r"has 2\.2 GB .* --quantize dynamic or int8 or int8-pure, or --to onnx",
        ),
        (
            2.2e9,
            "int8",
            r"has 2\.2 GB .* 2\.1 GB; choose --to onnx, which keeps weights in",
        ),
    ],
)
def test_a_network_over_the_limit_is_refused_with_the_alternative(weights, quantize, sentence):
    with pytest.raises(ExportError, match=sentence):
        require_fits(Large(int(weights)), quantize)


def test_the_limit_is_that_of_signed_offsets():
    require_fits(Large(math.floor((2**31 - 1) / 4)), "none")
    with pytest.raises(ExportError, match=r"TFLite file contains 2\.1 GB"):
        require_fits(Large(2**29), "none")
    require_fits(create_classifier("bit_tiny.cifar10", weights=None), "none")
