"""Several signatures of a TFLite model over one subgraph.

The converter gives each signature a subgraph of its own. They share the weights in the
file, but not in memory: XNNPACK packs those of every subgraph anew, also of one that
nobody runs. So one function that returns all outputs is converted, and its signature gets
a second name here. Each signature names every output of the subgraph: LiteRT's
`CompiledModel` refuses a file with one that names some of them ("Signature has incorrect
number of input/outputs", LiteRT 2.3).
"""

from collections.abc import Sequence

import numpy as np
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

#: The order of the outputs in the subgraph. MediaPipe's ImageClassifier has a head for each,
#: and its users read the first.
OUTPUT_ORDER = ("probabilities", "logits", "features", *LEVELS)

#: The field `outputs` of the table `SubGraph` (`schema.fbs`).
_OUTPUTS = 2


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

    from bit_keras.exporters.tflite.subgraph_signatures import with_signatures

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
    [subgraph] = tables(root_table(model), SUBGRAPHS)
    position, _ = integers(subgraph, _OUTPUTS)
    order = np.array([output.tensorIndex for output in signature.outputs], INTEGER)
    return _root_with(model, signature, names) + patched(model, {position: order.tobytes()})


def _root_with(model: bytes, signature: schema.SignatureDefT, names: Sequence[str]) -> bytes:
    head, offsets = NewRoot(model), []
    for name in names:
        signature.signatureKey = name
        offsets.append(signature.Pack(head.builder))
    head.replace(SIGNATURE_DEFS, offset_vector(head.builder, offsets))
    return head.bytes()
