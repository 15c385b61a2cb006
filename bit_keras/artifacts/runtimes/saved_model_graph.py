"""What a SavedModel is made of, seen without loading it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

#: The SHA-256 of the graph, which has no checksum of its own, in artifacts of this package.
DIGEST = "assets.extra/saved_model.sha256"

_GRAPH = "saved_model.pb"

#: Protocol buffers take no more.
_MOST_BYTES = (1 << 31) - 1

#: What only computes: everything that the artifacts of this package are made of, and ordinary
#: layers of Keras on top. Data sets and tables are those in memory.
_KNOWN = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin Assert AssignVariableOp AvgPool BatchDatasetV2
    BatchMatMulV2 BiasAdd BitwiseAnd BitwiseOr BroadcastTo Cast Ceil ClipByValue ConcatV2
    ConcatenateDataset Const Conv2D Cumsum DatasetToSingleElement DecodeBmp DecodeGif
    DecodeImage DecodeJpeg DecodePng DecodeRaw DecodeWebP DenseToDenseSetOperation
    DepthwiseConv2dNative DisableCopyOnRead DivNoNan Einsum Elu EnsureShape Equal Erf Erfc Exp
    ExpandDims ExtractJpegShape Fill Floor FloorDiv FloorMod FusedBatchNormV3 GatherNd GatherV2
    Greater GreaterEqual HashTableV2 Identity IdentityN If IgnoreErrorsDataset IsFinite
    LeakyRelu LeftShift Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr
    LookupTableFindV2 LookupTableImportV2 MatMul Max MaxPool Maximum Mean Min Minimum Mul
    MutableDenseHashTableV2 Neg NoOp NotEqual OneHot Pack Pad PadV2 ParallelMapDatasetV2
    PartitionedCall Placeholder Pow PreventGradient Prod Range Rank ReadVariableOp RealDiv
    Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
    RightShift Round Rsqrt ScaleAndTranslate Select SelectV2 Selu Shape Sigmoid Sign Size Slice
    Softmax Softplus Softsign Split SplitV Sqrt Square SquaredDifference Squeeze
    StatefulPartitionedCall StatelessIf StatelessWhile StaticRegexFullMatch StopGradient
    StridedSlice StringJoin StringLength Sub Substr Sum Tanh TensorDataset TensorListFromTensor
    TensorListGetItem TensorListReserve TensorListSetItem TensorListStack TensorSliceDataset
    Tile TopKV2 Transpose Unpack VarHandleOp VarIsInitializedOp Where While ZerosLike
"""
KNOWN_OPERATIONS = frozenset(_KNOWN.split())

#: What saves and restores the variables: any path can be given to these.
_OF_THE_SAVER = frozenset({"MergeV2Checkpoints", "RestoreV2", "SaveV2", "ShardedFilename"})


def digest_of_graph(saved_model: Path) -> str:
    """The SHA-256 of the graph of a SavedModel, in hexadecimal digits."""
    with (saved_model / _GRAPH).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_same_graph(saved_model: Path) -> None:
    """Raises where the graph of a SavedModel is not the one that it was written with.

    What others wrote has no digest, and is not compared.

    Raises:
        ValueError: It differs; with the reason.
        OSError: A file cannot be read.
    """
    path = saved_model / DIGEST
    if path.is_file():
        with path.open("rb") as file:
            stated = file.read(2 * hashlib.sha256().digest_size)
        if stated != digest_of_graph(saved_model).encode():
            raise ValueError(f"{_GRAPH} is not the one that {DIGEST} was written for")


def operations_of(saved_model: Path) -> set[str]:
    """The operations in a SavedModel that loading or calling it can run.

    Those of its saver are omitted where nothing but the saver can call them.

    Args:
        saved_model: Path of the folder.

    Raises:
        ValueError: The file is damaged, or made by another program than TensorFlow 2.
        OSError: It cannot be read.
    """
    path = saved_model / _GRAPH
    if path.exists() and not path.is_file():  # A pipe would be waited for.
        raise ValueError(f"{_GRAPH} is not an ordinary file")
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{_GRAPH} has more than 2 GB")
    try:
        graphs = saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs
    except DecodeError as error:
        raise ValueError(f"{_GRAPH} is damaged: {error}") from None
    if len(graphs) != 1 or not graphs[0].object_graph_def.nodes:
        raise ValueError("it was not saved by TensorFlow 2")
    return _operations(graphs[0])


def _operations(meta_graph: Any) -> set[str]:
    functions = {
        function.signature.name: function for function in meta_graph.graph_def.library.function
    }
    saver = _functions_of_the_saver(meta_graph, functions)
    operations = {node.op for node in meta_graph.graph_def.node}
    for name, function in functions.items():
        found = {node.op for node in function.node_def}
        operations |= found - _OF_THE_SAVER if name in saver else found
    # A function can stand as an operation.
    return operations - functions.keys()


def _functions_of_the_saver(meta_graph: Any, functions: dict[str, Any]) -> set[str]:
    """The functions that nothing but the two operations of the saver call."""
    saver = {
        meta_graph.saver_def.save_tensor_name.partition(":")[0],
        meta_graph.saver_def.restore_op_name.partition(":")[0],
    }
    by_saver, by_others = set(), set(meta_graph.object_graph_def.concrete_functions)
    for node in meta_graph.graph_def.node:
        if node.name in saver:
            by_saver |= _called(node)
        else:
            by_others |= _called(node)
            inputs = {name.lstrip("^").partition(":")[0] for name in node.input}
            if inputs & saver:
                return set()
    for function in functions.values():
        for node in function.node_def:
            by_others |= _called(node)
    for gradient in meta_graph.graph_def.library.gradient:
        by_others |= {gradient.function_name, gradient.gradient_func}
    # By such an attribute TensorFlow exchanges functions.
    exchanged = {
        name
        for name, function in functions.items()
        if any(attribute.startswith("api_") for attribute in function.attr)
    }
    return by_saver - by_others - exchanged


def _called(node: Any) -> set[str]:
    return {node.op, *_named_in(node)}


def _named_in(node: Any) -> Iterator[str]:
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func.name
        elif attribute.HasField("list"):
            yield from (function.name for function in attribute.list.func)
