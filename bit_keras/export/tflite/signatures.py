"""Several signatures of a TFLite model over one subgraph.

The converter gives each signature a subgraph of its own. They share the weights in the
file, but not in memory: XNNPACK packs those of every subgraph anew, also of one that
nobody runs. So one function that returns all outputs is converted, and its signature is
taken apart here; a signature may name some of the outputs of a subgraph.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from flatbuffers.table import Table
from tensorflow.lite.python import schema_py_generated as schema

from bit_keras.errors import ExportError
from bit_keras.export.tflite.flatbuffer import (
    SIGNATURE_DEFS,
    SUBGRAPHS,
    NewRoot,
    offset_vector,
    root_table,
    slot,
)
from bit_keras.runtimes.program import CLASS_MAPS

#: The order of the outputs in the subgraph. MediaPipe's ImageClassifier has a head for each,
#: and its users read the first.
OUTPUT_ORDER = ("probabilities", "logits", "features", CLASS_MAPS)

#: The field `outputs` of the table `SubGraph`, and the dtype of its numbers (`schema.fbs`).
_OUTPUTS = 2
_INDEX = "<i4"


def with_signatures(model: bytes, signatures: Mapping[str, Sequence[str]]) -> bytes:
    """A converted model whose only signature became several.

    The subgraph, the weights and the inputs stay; each signature runs the whole
    network. The outputs of the subgraph come in the order of `OUTPUT_ORDER`.

    Args:
        model: bytes. From the converter, with one signature that returns every output
            of the only subgraph, under the names in `OUTPUT_ORDER`.
        signatures: mapping from the name of a signature to the names of its outputs.

    Returns:
        bytes. The same for the same arguments.

    Raises:
        ExportError: The model has no signature, or several.
        KeyError: A signature names an output that the model does not have.

    Example:

    ```python
    import tensorflow as tf
    from tensorflow.lite.python import schema_py_generated as schema

    from bit_keras.export.tflite.signatures import with_signatures

    @tf.function(input_signature=[tf.TensorSpec((1, 2), name="inputs")])
    def everything(inputs):
        return {"logits": inputs * 2.0, "features": inputs + 1.0}

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [everything.get_concrete_function()], tf.Module()
    )
    model = with_signatures(
        converter.convert(), {"serving_default": ("logits",), "features": ("features",)}
    )
    schema.Model.GetRootAs(model).SignatureDefsLength()  # 2
    ```

    Reference:
        `SignatureDef` in TFLite's `schema.fbs`.
    """
    root = schema.Model.GetRootAs(model)
    if root.SignatureDefsLength() != 1:
        # It does so in silence where it could not save the function.
        raise ExportError("The converter lost the signature of the model; it cannot be exported.")
    before = schema.SignatureDefT.InitFromObj(root.SignatureDefs(0))
    outputs = {output.name.decode(): output for output in before.outputs}
    order = [outputs[name].tensorIndex for name in sorted(outputs, key=OUTPUT_ORDER.index)]
    new = [
        _signature(before, name, [outputs[output] for output in signatures[name]])
        for name in signatures
    ]
    return _with_output_order(model, _root_with(model, new), order)


def _signature(
    before: schema.SignatureDefT, name: str, outputs: list[schema.TensorMapT]
) -> schema.SignatureDefT:
    signature = schema.SignatureDefT()
    signature.signatureKey = name
    signature.subgraphIndex = before.subgraphIndex
    signature.inputs = before.inputs
    signature.outputs = outputs
    return signature


def _root_with(model: bytes, signatures: Sequence[schema.SignatureDefT]) -> bytes:
    head = NewRoot(model)
    offsets = [signature.Pack(head.builder) for signature in signatures]
    head.replace(SIGNATURE_DEFS, offset_vector(head.builder, offsets))
    return head.bytes()


def _with_output_order(model: bytes, head: bytes, order: Sequence[int]) -> bytes:
    """A model behind its new root, with the outputs of its subgraph in another order."""
    root = root_table(model)
    subgraph = Table(model, root.Indirect(root.Vector(root.Offset(slot(SUBGRAPHS)))))
    first = subgraph.Vector(subgraph.Offset(slot(_OUTPUTS)))
    end = first + np.dtype(_INDEX).itemsize * len(order)
    # Joined at once: a large model is copied no more often than it must be.
    rest = memoryview(model)
    return b"".join((head, rest[:first], np.array(order, _INDEX).tobytes(), rest[end:]))
