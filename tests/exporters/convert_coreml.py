"""Runs a snippet that converts a SavedModel to Core ML, and the program that it makes.

    python convert_coreml.py SNIPPET.py INPUTS.npy OUTPUTS.npz

It needs coremltools and TensorFlow. On Linux coremltools converts and cannot predict, so each
operation of the program is computed here, as its documentation says, with TensorFlow. The snippet
leaves the converted model in `converted`, and the same with names for the outputs in `named`.
"""

import sys
from pathlib import Path

import coremltools
import numpy as np
import tensorflow as tf


def sides(pad):
    """Padding of NCHW tensors, of the last dimensions or of all."""
    pad = np.reshape(pad, (-1, 2))
    return np.concatenate([np.zeros((4 - len(pad), 2), int), pad])


def conv(x, weight, strides, pad_type, pad, dilations, groups):
    """Channels last, since TensorFlow's convolution on processors takes no others."""
    assert (pad_type, groups, set(dilations)) == ("valid", 1, {1}) and not any(pad)
    x, weight = tf.transpose(x, (0, 2, 3, 1)), tf.transpose(weight, (2, 3, 1, 0))
    return tf.transpose(tf.nn.conv2d(x, weight, list(strides), "VALID"), (0, 3, 1, 2))


def max_pool(x, kernel_sizes, strides, pad_type, pad, ceil_mode):
    assert pad_type == "valid" and not ceil_mode and not any(pad)
    x = tf.transpose(x, (0, 2, 3, 1))
    return tf.transpose(tf.nn.max_pool2d(x, kernel_sizes, strides, "VALID"), (0, 3, 1, 2))


def padded(x, pad, mode, constant_val):
    assert mode == "constant"
    return tf.pad(x, sides(pad), constant_values=constant_val)


OPERATIONS = {
    "add": lambda x, y: x + y,
    "conv": conv,
    "linear": lambda x, weight, bias: x @ tf.transpose(weight) + bias,
    "max_pool": max_pool,
    "mul": lambda x, y: x * y,
    "pad": padded,
    "reduce_mean": lambda x, axes, keep_dims: tf.reduce_mean(x, axes, keep_dims),
    "relu": lambda x: tf.nn.relu(x),
    "reshape": lambda x, shape: tf.reshape(x, shape),
    "rsqrt": lambda x, epsilon: 1 / tf.sqrt(x + epsilon),
    "softmax": lambda x, axis: tf.nn.softmax(x, axis),
    "sub": lambda x, y: x - y,
    "transpose": lambda x, perm: tf.transpose(x, perm),
}


def run(function, images):
    """The outputs of a function of a program, by name, for float32 images."""
    (name,) = function.inputs
    values = {name: images}
    for operation in function.operations:
        if operation.op_type == "const":
            continue
        arguments = {
            key: variable.val if variable.val is not None else values[variable.name]
            for key, variable in operation.inputs.items()
            if variable is not None
        }
        (output,) = operation.outputs
        values[output.name] = OPERATIONS[operation.op_type](**arguments)
    return {output.name: np.asarray(values[output.name]) for output in function.outputs}


def main(snippet, inputs, outputs):
    """Writes the outputs for each image by itself, and which versions made them."""
    names = {}
    exec(Path(snippet).read_text(), names)
    function = names["converted"]._mil_program.functions["main"]
    results = [run(function, image[None]) for image in np.load(inputs)]
    described = names["named"].get_spec().description
    # In the order of the program.
    arrays = {
        output.name: np.concatenate([list(result.values())[index] for result in results])
        for index, output in enumerate(described.output)
    }
    version, input_names = coremltools.__version__, [each.name for each in described.input]
    np.savez(outputs, **arrays, version=version, inputs=input_names)


if __name__ == "__main__":
    main(*sys.argv[1:])
