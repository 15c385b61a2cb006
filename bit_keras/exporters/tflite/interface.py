"""What a TFLite model states of its inputs, outputs and signatures.

The converter is given an open batch: for one image it omits or rewrites operations
whose effect on a single image is none, and the file then fails, or computes something
else, where a caller resizes the batch. (`[b, H, W, C] - [b, C]` is broadcast along W
where b = W.) Afterwards the file states a batch of one, since accelerators take no open
shapes.

The converter gives each signature a subgraph of its own. They share the weights in the
file, but not in memory: XNNPACK packs those of every subgraph anew, also of one that
nobody runs. So one function that returns all outputs is converted, and its signature gets
a second name here. Each signature names every output of the subgraph: LiteRT's
`CompiledModel` refuses a file with one that names some of them ("Signature has incorrect
number of input/outputs", LiteRT 2.3).
"""

from collections.abc import Sequence

import numpy as np
from flatbuffers.table import Table
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.errors import ExportError
from bit_keras.exporters.outputs import LEVELS
from bit_keras.exporters.tflite.flatbuffer import (
    INTEGER,
    SIGNATURE_DEFS,
    SUBGRAPHS,
    NewRoot,
    integers,
    offset_vector,
    patched,
    root_table,
    tables,
)
from bit_keras.registry import RGB

#: The order of the outputs in the subgraph. MediaPipe's ImageClassifier has a head for each,
#: and its users read the first.
OUTPUT_ORDER = ("probabilities", "logits", "features", *LEVELS)

#: Fields of the tables `SubGraph` and `Tensor` (`schema.fbs`).
_TENSORS, _INPUTS, _OUTPUTS = 0, 1, 2
_SHAPE, _SHAPE_SIGNATURE = 0, 7

#: A side that is not stated.
_OPEN = -1


def with_batch_of_one(model: bytes) -> bytes:
    """A model with an open batch, for one image unless a caller resizes it.

    Args:
        model: bytes. From the converter, with one subgraph; no side is open but the batch.
    """
    patches = {}
    for tensor in tables(_subgraph(model), _TENSORS):
        position, signature = integers(tensor, _SHAPE_SIGNATURE)
        if _OPEN in signature:
            patches[position] = integers(tensor, _SHAPE)[1].tobytes()
    return patched(model, patches)


def with_default_size(model: bytes, size: int) -> bytes:
    """A model for images of any size, which are squares of `size` unless a caller resizes them.

    MediaPipe resizes images to what the input states; the converter states one pixel.

    Args:
        model: bytes. From the converter, with one subgraph and one input.
        size: int.
    """
    subgraph = _subgraph(model)
    [number] = integers(subgraph, _INPUTS)[1]
    position, _ = integers(tables(subgraph, _TENSORS)[number], _SHAPE)
    return patched(model, {position: np.array((1, size, size, RGB), INTEGER).tobytes()})


def with_signatures(model: bytes, names: Sequence[str]) -> bytes:
    """A converted model whose only signature got several names.

    The subgraph, the weights and the inputs stay; each signature runs the whole
    network and returns every output. The outputs of the subgraph, and those of the
    signatures, are in the order of `OUTPUT_ORDER`.

    Args:
        model: bytes. From the converter, with one signature that returns every output
            of the only subgraph, under the names in `OUTPUT_ORDER`.
        names: sequence of str. The names of the signatures.

    Returns:
        bytes. The same for the same arguments.

    Raises:
        ExportError: The model has no signature, or several.

    Example:

    ```python
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as schema

    from bit_keras.exporters.tflite.interface import with_signatures

    @tf.function(input_signature=[tf.TensorSpec((1, 2), name="inputs")])
    def everything(inputs):
        return {"logits": inputs * 2.0, "features": inputs + 1.0}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [everything.get_concrete_function()], tf.Module()
    )
    model = with_signatures(converter.convert(), ("serving_default", "features"))
    schema.Model.GetRootAs(model).SignatureDefsLength()  # 2
    ```

    Reference:
        `SignatureDef` in TFLite's `schema.fbs`.
    """
    root = schema.Model.GetRootAs(model)
    if root.SignatureDefsLength() != 1:
        # It does so in silence where it could not save the function.
        raise ExportError("The converter lost the signature of the model; it cannot be exported.")
    signature = schema.SignatureDefT.InitFromObj(root.SignatureDefs(0))
    signature.outputs.sort(key=lambda output: OUTPUT_ORDER.index(output.name.decode()))
    position, _ = integers(_subgraph(model), _OUTPUTS)
    order = np.array([output.tensorIndex for output in signature.outputs], INTEGER)
    head, offsets = NewRoot(model), []
    for name in names:
        signature.signatureKey = name
        offsets.append(signature.Pack(head.builder))
    head.replace(SIGNATURE_DEFS, offset_vector(head.builder, offsets))
    return head.bytes() + patched(model, {position: order.tobytes()})


def _subgraph(model: bytes) -> Table:
    [subgraph] = tables(root_table(model), SUBGRAPHS)
    return subgraph
