"""The ONNX graph of a network, written layer by layer.

Names are those of the network: a node and what it computes are called like the layer,
its weights like `stem_conv/kernel`. Convolutions have the kernels that
`bit_keras.fold_weight_standardization` gives them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper

import bit_keras
from bit_keras.artifacts.runtimes.program import Layout
from bit_keras.exporters.onnx.weights import Weights
from bit_keras.exporters.targets import OPSET
from bit_keras.layers import GroupNorm, StdConv2D
from bit_keras.preprocessing.classifier_spec import Activation
from bit_keras.registry import RGB, STRIDE

#: The name of the images, by their layout: images in the other layout, whose shape can be the
#: same, meet an unknown name.
INPUTS: dict[Layout, str] = {"nhwc": "inputs", "nchw": "inputs_nchw"}

_ACTIVATIONS: dict[Activation, str] = {"softmax": "Softmax", "sigmoid": "Sigmoid"}


@dataclasses.dataclass(frozen=True)
class _Value:
    """A tensor of the graph, and zeros around it that no node has written yet."""

    name: str
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))


def onnx_model(
    model: keras.Model,
    weights: Weights,
    *,
    size: int | None,
    input_range: tuple[float, float],
    activation: Activation | None,
    pool_border: float,
    half: bool,
    levels: Sequence[str] = (),
    opset: int = OPSET,
    layout: Layout = "nhwc",
) -> onnx.ModelProto:
    """The ONNX model of a network from a builder.

    Args:
        model: keras.Model from `create_classifier` or `create_feature_extractor`.
        weights: Weights. Takes the arrays.
        size: int or None. Side of the images; None leaves height and width open.
        input_range: tuple of 2 floats. Of the images.
        activation: `"softmax"` or `"sigmoid"`: from logits to probabilities.
            None for a network without a head.
        pool_border: float. What the stem's max-pool sees beyond the edge.
        half: bool. Compute in float16, but for the statistics and the head.
        levels: sequence of str. The further outputs of a classifier, maps of its classes.
        opset: int. Version of the operators.
        layout: `"nhwc"` or `"nchw"`. Of the images.

    Returns:
        onnx.ModelProto. Its input is that of `INPUTS`, its outputs are `features` and, of a
        classifier, `logits`, `probabilities` and the further levels: all float32.
    """
    graph = _Graph(weights, pool_border, half)
    graph.write(model, input_range, layout)
    widths = {"features": model.get_layer("features").output.shape[-1]}
    if activation is not None:
        graph.node(_ACTIVATIONS[activation], ["logits"], "probabilities")
        widths = dict.fromkeys(("logits", "probabilities"), model.output_shape[-1]) | widths
    outputs = [_float32(name, "batch", width) for name, width in widths.items()]
    positions = (-(-size // STRIDE),) * 2 if size else ("map_height", "map_width")
    for name in levels:
        graph.write_maps(name)
        outputs.append(_float32(name, "batch", *positions, model.output_shape[-1]))
    graph.end_with(*(value.name for value in outputs))
    sides = (size, size) if size else ("height", "width")
    image = (RGB, *sides) if layout == "nchw" else (*sides, RGB)
    images = _float32(INPUTS[layout], "batch", *image)
    operators = helper.make_opsetid("", opset)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            model.name,
            [images],
            outputs,
            weights.tensors,
        ),
        opset_imports=[operators],
        # The version of the file format that was released with the operators.
        ir_version=helper.find_min_ir_version_for([operators]),
        producer_name="bit_keras",
        producer_version=bit_keras.__version__,
    )


def _float32(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


class _Graph:
    """The nodes of a network, in the order of its layers."""

    def __init__(self, weights: Weights, pool_border: float, half: bool) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._weights = weights
        self._pool_border = pool_border
        self._half = half

    def write(self, model: keras.Model, input_range: tuple[float, float], layout: Layout) -> None:
        """Writes a network from its images to its last layer."""
        value = _Value(self._images(input_range, layout))
        # Outside of the blocks the network is a chain.
        for operation in model.operations:
            if isinstance(operation, keras.Model):
                value = self._block(operation, value)
            elif not isinstance(operation, keras.layers.InputLayer):
                value = self._layer(operation, [value])

    def write_maps(self, name: str) -> None:
        """Writes the head of a network over every position of what its features are the mean of."""
        nodes = {node.name: node for node in self.nodes}
        (images,) = nodes["features/pooled"].input
        _, kernel, bias = nodes["logits"].input
        positions = self.node("Transpose", [images], f"{name}/positions", perm=[0, 2, 3, 1])
        products = self.node("MatMul", [positions, kernel], f"{name}/products")
        self.node("Add", [products, bias], name)

    def end_with(self, *outputs: str) -> None:
        """Gives an output that other nodes take a copy for these nodes, which runtimes remove.

        What converts a file to float16 and keeps the types of the outputs casts an output in the
        end, and takes the cast one for what the other nodes get (`microsoft/onnxconverter-common`,
        `float16.py`).
        """
        taken = {name for node in self.nodes for name in node.input}
        for output in sorted(taken.intersection(outputs)):
            value = f"{output}/value"
            for node in self.nodes:
                for names in (node.input, node.output):
                    names[:] = [value if name == output else name for name in names]
            # Nodes that are called like a layer keep their names.
            self.nodes.append(helper.make_node("Identity", [value], [output], name=value))

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node that is called like its output, and returns that name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _images(self, input_range: tuple[float, float], layout: Layout) -> str:
        """Images of the network: channels first, in [-1, 1]."""
        images, (low, high) = INPUTS[layout], input_range
        if input_range != (-1.0, 1.0):
            scale = self._constant("inputs/scale", 2.0 / (high - low))
            offset = self._constant("inputs/offset", -1.0 - 2.0 * low / (high - low))
            images = self.node("Mul", [images, scale], "inputs/scaled")
            images = self.node("Add", [images, offset], "inputs/rescaled")
        if layout == "nhwc":
            images = self.node("Transpose", [images], "inputs/channels_first", perm=[0, 3, 1, 2])
        return self._in_half(images)

    def _block(self, block: keras.Model, value: _Value) -> _Value:
        values = {id(block.inputs[0]): value}
        for operation in block.operations:
            if not isinstance(operation, keras.layers.InputLayer):
                inputs = [values[id(tensor)] for tensor in keras.tree.flatten(operation.input)]
                values[id(operation.output)] = self._layer(operation, inputs)
        return values[id(block.outputs[0])]

    def _layer(self, layer: keras.Operation, inputs: list[_Value]) -> _Value:
        (value, *_) = inputs
        if isinstance(layer, keras.layers.ZeroPadding2D):
            return _Value(value.name, layer.padding)
        if type(layer) not in _LAYERS:
            # `keras.ops.pad` with the border of the max-pool, which the pool itself writes.
            assert type(layer).__name__ == "Pad", layer
            return _Value(value.name, layer.pad_width[1:3])
        if isinstance(layer, keras.layers.Conv2D | keras.layers.MaxPooling2D):
            return _Value(_LAYERS[type(layer)](self, layer, value))
        return _Value(_LAYERS[type(layer)](self, layer, *(value.name for value in inputs)))

    def _convolution(self, layer: keras.layers.Conv2D, value: _Value) -> str:
        if isinstance(layer, StdConv2D):
            kernel = keras.ops.convert_to_numpy(layer.standardized_kernel())
        else:
            kernel = layer.kernel.numpy()
        assert layer.padding == "valid"
        assert not layer.use_bias
        return self.node(
            "Conv",
            [value.name, self._array(f"{layer.name}/kernel", kernel.transpose(3, 2, 0, 1))],
            layer.name,
            kernel_shape=layer.kernel_size,
            strides=layer.strides,
            pads=_pads(value),
        )

    def _max_pool(self, layer: keras.layers.MaxPooling2D, value: _Value) -> str:
        images, pads = value.name, _pads(value)
        if self._pool_border != float("-inf"):  # What ONNX's own padding is.
            dtype = np.float16 if self._half else np.float32
            # Not quite zero: ONNX Runtime merges a border of zeros into the max-pool, whose own
            # padding is minus infinity (`microsoft/onnxruntime`, `pad_fusion.cc`).
            constant = np.array(self._pool_border or np.finfo(dtype).tiny, dtype)
            border = self._weights.add(f"{layer.name}/border", constant)
            widths = self._integers(f"{layer.name}/pads", 0, 0, *pads[:2], 0, 0, *pads[2:])
            images = self.node("Pad", [images, widths, border], f"{layer.name}/padded")
            pads = [0] * 4
        return self.node(
            "MaxPool",
            [images],
            layer.name,
            kernel_shape=layer.pool_size,
            strides=layer.strides,
            pads=pads,
        )

    def _group_norm(self, layer: GroupNorm, images: str) -> str:
        """The statistics by InstanceNormalization, on groups as if they were channels.

        Of the ways to write it this is the fastest in ONNX Runtime 1.31 and in OpenVINO
        2026.4, an R50x1 at 224 pixels on one thread: 46 and 50 ms, where moments by
        channel take 49 and 54, and the operator GroupNormalization 53 and 51. Both take
        the variance of centred values, which does not cancel.
        """
        name, groups = layer.name, layer.groups
        images = self._in_float32(images, f"{name}/float32")
        shape = self.node("Shape", [images], f"{name}/shape")
        grouped_shape = self._integers(f"{name}/grouped_shape", 0, groups, -1)
        grouped = self.node("Reshape", [images, grouped_shape], f"{name}/grouped")
        ones = self._weights.add(f"{name}/ones", np.ones(groups, np.float32))
        zeros = self._weights.add(f"{name}/zeros", np.zeros(groups, np.float32))
        normalized = self.node(
            "InstanceNormalization",
            [grouped, ones, zeros],
            f"{name}/normalized",
            epsilon=layer.epsilon,
        )
        normalized = self.node("Reshape", [normalized, shape], f"{name}/ungrouped")
        return self._scale_and_shift(
            name, self._in_half(normalized), layer.gamma.numpy(), layer.beta.numpy()
        )

    def _batch_norm(self, layer: keras.layers.BatchNormalization, images: str) -> str:
        variance = layer.moving_variance.numpy() + np.float32(layer.epsilon)
        scale = layer.gamma.numpy() / np.sqrt(variance)
        shift = layer.beta.numpy() - layer.moving_mean.numpy() * scale
        return self._scale_and_shift(layer.name, images, scale, shift)

    def _scale_and_shift(self, name: str, images: str, scale: np.ndarray, shift: np.ndarray) -> str:
        """By BatchNormalization: ONNX Runtime computes it and the ReLU after it in one pass."""
        parameters = {
            "scale": scale,
            "shift": shift,
            "mean": np.zeros_like(shift),
            "variance": np.ones_like(scale),
        }
        arrays = [self._array(f"{name}/{key}", value) for key, value in parameters.items()]
        return self.node("BatchNormalization", [images, *arrays], name, epsilon=0.0)

    def _relu(self, layer: keras.layers.ReLU, images: str) -> str:
        return self.node("Relu", [images], layer.name)

    def _add(self, layer: keras.layers.Add, images: str, others: str) -> str:
        return self.node("Add", [images, others], layer.name)

    def _features(self, layer: keras.layers.GlobalAveragePooling2D, images: str) -> str:
        images = self._in_float32(images, f"{layer.name}/float32")
        pooled = self.node("GlobalAveragePool", [images], f"{layer.name}/pooled")
        return self.node("Flatten", [pooled], layer.name)

    def _head(self, layer: keras.layers.Dense, features: str) -> str:
        kernel = self._array("head/kernel", layer.kernel.numpy())
        bias = self._weights.add("head/bias", layer.bias.numpy())
        # Half the bytes, and sums in float32 as in Keras.
        kernel = self._in_float32(kernel, "head/kernel_float32")
        return self.node("Gemm", [features, kernel, bias], "logits")

    def _in_float32(self, tensor: str, name: str) -> str:
        return self.node("Cast", [tensor], name, to=TensorProto.FLOAT) if self._half else tensor

    def _in_half(self, tensor: str) -> str:
        if not self._half:
            return tensor
        return self.node("Cast", [tensor], f"{tensor}/float16", to=TensorProto.FLOAT16)

    def _array(self, name: str, array: np.ndarray) -> str:
        if self._half:
            # What is too large becomes infinite, and shows in the outputs.
            with np.errstate(over="ignore"):
                array = array.astype(np.float16)
        return self._weights.add(name, array)

    def _constant(self, name: str, value: float) -> str:
        return self._weights.add(name, np.array(value, np.float32))

    def _integers(self, name: str, *values: int) -> str:
        return self._weights.add(name, np.array(values, np.int64))


def _pads(value: _Value) -> list[int]:
    """Padding in the order of ONNX: top, left, bottom, right."""
    return [sides[end] for end in (0, 1) for sides in value.padding]


#: What writes a layer, by its class.
_LAYERS: dict[type, Callable[..., str]] = {
    StdConv2D: _Graph._convolution,
    keras.layers.Conv2D: _Graph._convolution,
    keras.layers.MaxPooling2D: _Graph._max_pool,
    GroupNorm: _Graph._group_norm,
    keras.layers.BatchNormalization: _Graph._batch_norm,
    keras.layers.ReLU: _Graph._relu,
    keras.layers.Add: _Graph._add,
    keras.layers.GlobalAveragePooling2D: _Graph._features,
    keras.layers.Dense: _Graph._head,
}
