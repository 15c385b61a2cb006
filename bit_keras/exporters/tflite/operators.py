"""What a TFLite model computes with, and whether that is what its quantisation promises."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

import keras
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.artifacts.metadata import CALIBRATED
from bit_keras.errors import ExportError

#: The largest offset in a flatbuffer ([FlatBuffers' format](https://flatbuffers.dev/internals/)).
LIMIT = 2**31 - 1

#: Bytes of one weight, by quantisation.
_BYTES = {"none": 4, "float16": 2, "dynamic": 1, "int8": 1, "int8-pure": 1}

#: The kernels of TFLite for mobile and accelerators stop here.
_MAXIMUM_RANK = 4

#: The operators that have kernels; these are their second inputs.
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")

_FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")

#: Smaller kernels stay in float32 (`minimum_elements_for_weights` in
#: `tensorflow/tensorflow`, `tensorflow/compiler/mlir/lite/quantization/common/quantization_lib/
#: quantization_config.h`).
_SMALLEST_QUANTISED = 1024


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


_OPERATORS = _names(schema.BuiltinOperator)
_TYPES = _names(schema.TensorType)

#: All but float32 and the types of shapes, axes and conditions.
_NOT_FLOAT32 = {*_TYPES.values()} - {"FLOAT32", "INT32", "INT64", "BOOL"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        index: int. Its number in the subgraph.
        name: str.
        type: str. For example `"FLOAT32"`.
        shape: tuple of int. Not known sizes are 1.
        scales: tuple of float. None, one, or one for every channel.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    scales: tuple[float, ...] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator with what it reads and writes.

    Attributes:
        name: str. For example `"CONV_2D"`; what custom operators call themselves.
        builtin: bool. Whether every interpreter has it.
        inputs: tuple of Tensor. Omitted ones are omitted here too.
        outputs: tuple of Tensor.
    """

    name: str
    builtin: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.inputs + self.outputs


@dataclasses.dataclass(frozen=True)
class Graph:
    """A subgraph of a model.

    Attributes:
        inputs: tuple of Tensor.
        outputs: tuple of Tensor.
        operators: tuple of Operator, in the order that they run.
        producers: dict from the index of a tensor to the operator that writes it.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    producers: dict[int, Operator] = dataclasses.field(repr=False)


def read_graphs(model: bytes) -> list[Graph]:
    """The subgraphs of a TFLite model.

    Args:
        model: bytes. A flatbuffer that a TensorFlow of today wrote.
    """
    content = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    return [_graph(subgraph, content.operatorCodes) for subgraph in content.subgraphs]


def _graph(subgraph: schema.SubGraphT, codes: list[schema.OperatorCodeT]) -> Graph:
    tensors = [_tensor(index, tensor) for index, tensor in enumerate(subgraph.tensors)]
    operators = []
    for operator in subgraph.operators:
        code = codes[operator.opcodeIndex]
        # Older files have the first 127 only in the older field (`schema.fbs`).
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        builtin = number != schema.BuiltinOperator.CUSTOM
        name = _OPERATORS[number] if builtin else code.customCode.decode()
        # -1 stands for an optional input that is omitted.
        inputs = tuple(tensors[index] for index in operator.inputs if index >= 0)
        outputs = tuple(tensors[index] for index in operator.outputs)
        operators.append(Operator(name, builtin, inputs, outputs))
    return Graph(
        tuple(tensors[index] for index in subgraph.inputs),
        tuple(tensors[index] for index in subgraph.outputs),
        tuple(operators),
        {output.index: operator for operator in operators for output in operator.outputs},
    )


def _tensor(index: int, tensor: schema.TensorT) -> Tensor:
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    scales = None if tensor.quantization is None else tensor.quantization.scale
    scales = () if scales is None else tuple(map(float, scales))
    return Tensor(index, tensor.name.decode(), _TYPES[tensor.type], shape, scales)


def operator_counts(model: bytes) -> dict[str, int]:
    """How often a TFLite model has each operator, by name, in the order of the alphabet.

    Args:
        model: bytes. A TFLite model.

    Example:

    ```python
    from bit_keras.exporters.tflite.operators import operator_counts
    import tensorflow as tf

    doubled = tf.function(lambda x: x * x, input_signature=[tf.TensorSpec((1, 2))])
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [doubled.get_concrete_function()], tf.Module()
    )
    operator_counts(converter.convert())  # {'MUL': 1}
    ```
    """
    counts = Counter(operator.name for graph in read_graphs(model) for operator in graph.operators)
    return dict(sorted(counts.items()))


def require_fits(model: keras.Model, quantize: str) -> None:
    """Refuses a network whose weights are more than a TFLite file can contain.

    Args:
        model: keras.Model.
        quantize: `"none"`, `"float16"`, `"dynamic"`, `"int8"` or `"int8-pure"`.

    Raises:
        ExportError: It has more than 2**31 - 1 bytes of weights.
    """
    weights = model.count_params()
    if weights * _BYTES[quantize] <= LIMIT:
        return
    smaller = [name for name, size in _BYTES.items() if weights * size <= LIMIT]
    alternative = f"--quantize {' or '.join(smaller)}, or " if smaller else ""
    raise ExportError(
        f"{model.name} has {weights * _BYTES[quantize] / 1e9:.1f} GB of weights with --quantize "
        f"{quantize}, and a TFLite file contains {LIMIT / 1e9:.1f} GB; choose "
        f"{alternative}--to onnx, which keeps weights in a second file."
    )


def require_operators(model: bytes, quantize: str) -> None:
    """Refuses a model that does not compute as its quantisation promises.

    Every model has only builtin operators, tensors of at most 4 dimensions, and no
    operator that its interpreter would misread or die of. Then:

    - `"none"`: every tensor is in float32, but for indices and shapes;
    - `"float16"`: kernels of convolutions and dense layers are stored in float16;
    - `"dynamic"`: they are stored in int8, and activations are in float32;
    - `"int8"`: convolutions and dense layers read, multiply and write int8, with a
      scale for every output channel; inputs and outputs are uint8; what stands between
      these layers may be in float;
    - `"int8-pure"`: moreover, no tensor is in float, without DEQUANTIZE, and the
      only QUANTIZE are those that turn a uint8 input of the model into int8 and int8
      into a uint8 output. (They add or take away 128. The converter makes 8-bit
      interfaces of them, since kernels compute only in int8.)

    Kernels of fewer than 1024 values stay in float32 with `"dynamic"`.

    Args:
        model: bytes. A TFLite model.
        quantize: See above.

    Raises:
        ExportError: The first operator, or input or output of the model, that breaks a
            promise, by name.
    """
    for graph in read_graphs(model):
        broken = next(_broken_promises(graph, quantize), None)
        if broken is not None:
            raise ExportError(
                f"The converter did not keep to --quantize {quantize}: {broken}; choose another "
                "quantisation."
            )


def _broken_promises(graph: Graph, quantize: str) -> Iterator[str]:
    for operator in graph.operators:
        reasons = (rule(graph, operator) for rule in (*_ALWAYS, *_PROMISES[quantize]))
        for reason in filter(None, reasons):
            yield f"operator {operator.name}, which writes {operator.outputs[0].name!r}, {reason}"
    if quantize in CALIBRATED:
        for tensor in (*graph.inputs, *graph.outputs):
            if tensor.type != "UINT8":
                yield (
                    f"{tensor.name!r}, an input or output of the model, is {tensor.type} and not "
                    "UINT8"
                )


# The rules. Each says what an operator does that it must not, or nothing.

_Rule = Callable[[Graph, Operator], str | None]


def _is_builtin(graph: Graph, operator: Operator) -> str | None:
    return None if operator.builtin else "is not a builtin one"


def _has_few_dimensions(graph: Graph, operator: Operator) -> str | None:
    for tensor in operator.tensors:
        if len(tensor.shape) > _MAXIMUM_RANK:
            return f"has a tensor of {len(tensor.shape)} dimensions, {tensor.name!r}"
    return None


def _keeps_signs_apart(graph: Graph, operator: Operator) -> str | None:
    """The converter makes a quantised output uint8 in place, whoever else reads it as int8."""
    types = {tensor.type for tensor in operator.tensors}
    if operator.name not in ("QUANTIZE", "CAST") and types >= {"INT8", "UINT8"}:
        return "takes bytes of UINT8 for INT8 as they are"
    return None


def _can_be_prepared(graph: Graph, operator: Operator) -> str | None:
    """Otherwise the interpreter ends the process, not with an error.

    From `tensorflow/lite/kernels/squared_difference.cc`, `Prepare`, which multiplies by
    a number that has to be below 1.
    """
    if operator.name != "SQUARED_DIFFERENCE" or operator.outputs[0].type != "INT8":
        return None
    largest = max(tensor.scales[0] for tensor in operator.inputs)
    if (2 * largest) ** 2 / (2**14 * operator.outputs[0].scales[0]) >= 1:
        return "has scales that its kernel in int8 cannot take"
    return None


def _avoids(types: Collection[str], graph: Graph, operator: Operator) -> str | None:
    for tensor in operator.tensors:
        if tensor.type in types:
            return f"has a tensor in {tensor.type}, {tensor.name!r}"
    return None


def _stores(type: str, graph: Graph, operator: Operator) -> str | None:
    if operator.name not in _WEIGHTED:
        return None
    kernel = _stored_kernel(graph, operator)
    if kernel.type == type or (type == "INT8" and math.prod(kernel.shape) < _SMALLEST_QUANTISED):
        return None
    return f"has a kernel in {kernel.type}, not in {type}"


def _computes_in_float32(graph: Graph, operator: Operator) -> str | None:
    if operator.name in _WEIGHTED and operator.inputs[0].type != "FLOAT32":
        return f"reads {operator.inputs[0].type}, not FLOAT32"
    return None


def _computes_in_int8(graph: Graph, operator: Operator) -> str | None:
    if operator.name not in _WEIGHTED:
        return None
    images, kernel, output = operator.inputs[0], operator.inputs[1], operator.outputs[0]
    for tensor in (images, kernel, output):
        if tensor.type != "INT8":
            return f"computes in {tensor.type}, not in INT8"
    # Output channels come first, but for a depthwise kernel.
    channels = kernel.shape[-1 if operator.name == "DEPTHWISE_CONV_2D" else 0]
    if len(kernel.scales) != channels:
        return f"has {len(kernel.scales)} scales for the {channels} channels of its kernel"
    return None


def _stays_quantised(graph: Graph, operator: Operator) -> str | None:
    if operator.name not in ("QUANTIZE", "DEQUANTIZE"):
        return None
    at_the_edge = operator.inputs[0] in graph.inputs or operator.outputs[0] in graph.outputs
    if operator.name == "QUANTIZE" and at_the_edge:
        return None
    return "stands between the input and the output of the model"


_ALWAYS: tuple[_Rule, ...] = (
    _is_builtin,
    _has_few_dimensions,
    _keeps_signs_apart,
    _can_be_prepared,
)
_PROMISES: Mapping[str, tuple[_Rule, ...]] = {
    "none": (functools.partial(_avoids, _NOT_FLOAT32),),
    "float16": (functools.partial(_stores, "FLOAT16"), _computes_in_float32),
    "dynamic": (functools.partial(_stores, "INT8"), _computes_in_float32),
    "int8": (_computes_in_int8,),
    "int8-pure": (functools.partial(_avoids, _FLOATS), _stays_quantised, _computes_in_int8),
}


def _stored_kernel(graph: Graph, operator: Operator) -> Tensor:
    """The kernel of an operator as it is in the file, before it is unpacked."""
    kernel = operator.inputs[1]
    producer = graph.producers.get(kernel.index)
    return producer.inputs[0] if producer and producer.name == "DEQUANTIZE" else kernel
