"""ONNX and OpenVINO files that are damaged, or made to do harm: refused, in time and in memory."""

import os
import resource
import shutil
import time

import numpy as np
import pytest

from bit_keras.artifacts import checksums
from bit_keras.artifacts.runtimes import open_program
from bit_keras.artifacts.runtimes.trial import require_runs
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.exporters.openvino_ir import export_openvino
from bit_keras.inference import load_predictor
from tests.checkpoints.mutations import MANY, mutated

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")

from onnx import TensorProto, helper  # noqa: E402

from bit_keras.exporters.onnx import export_onnx, weights  # noqa: E402

#: Which part of which artifact is damaged.
PARTS = ("model.onnx", "ir/model.xml", "ir/model.bin", "ir/assets.extra/bit_keras.json")

IMAGE = np.zeros((1, 64, 64, 3), "float32")


@pytest.fixture(scope="module")
def written(classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    export_onnx(classifier, folder / "model.onnx", size=64)
    export_openvino(classifier, folder / "ir", size=64)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(written, tmp_path / "copy")


def artifact_of(folder, part):
    return folder / part.partition("/")[0]


def output(artifact):
    predictor = load_predictor(artifact)
    return predictor.network(IMAGE)


def damaged_files_are_refused_or_equal(folder, part, count, seed=0):
    """Both ways into every damaged file; returns how many were refused."""
    artifact, file = artifact_of(folder, part), folder / part
    expected, size = output(artifact), file.stat().st_size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for what, content in mutated(file.read_bytes(), count, seed):
        file.write_bytes(content)
        start = time.perf_counter()
        try:
            found = output(artifact)
        except BitKerasError:
            refused += 1
            with pytest.raises(BitKerasError):
                open_program(artifact)(IMAGE)
        else:
            assert np.array_equal(found, expected), what
        assert time.perf_counter() - start < 20, what  # Both ways, 10 seconds each.
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 4 * size + 200e6
    return refused


@pytest.mark.parametrize("part", PARTS)
def test_damaged_files_are_refused(folder, part):
    assert damaged_files_are_refused_or_equal(folder, part, 25) >= 24


@pytest.mark.full
@pytest.mark.parametrize("part", PARTS)
def test_thousands_of_damaged_files_are_refused(folder, part):
    seed = time.time_ns()
    refused = damaged_files_are_refused_or_equal(folder, part, MANY, seed)
    print(f"{part}: seed {seed}, {refused} of {MANY} refused, the others equal")


def test_checksums_are_those_of_the_usual_program(folder):
    import subprocess

    program = shutil.which("sha256sum")
    if program is None:
        pytest.skip("sha256sum is not installed.")
    arguments = [program, "--check", "--strict", checksums.SUMS]
    subprocess.run(arguments, cwd=folder / "ir", check=True, capture_output=True)
    listed = (folder / "ir" / checksums.SUMS).read_text().splitlines()
    assert {line.split("  ")[1] for line in listed} == {
        "assets.extra/bit_keras.json",
        "assets.extra/golden.npz",
        "labels.tsv",
        "model.bin",
        "model.xml",
    }
    (entry,) = (
        entry.value
        for entry in onnx.load(folder / "model.onnx").metadata_props
        if entry.key == "bit_keras.sha256"
    )
    content = (folder / "model.onnx").read_bytes()[:-86]
    hashed = subprocess.run([program], input=content, check=True, capture_output=True).stdout
    assert hashed.decode().split()[0] == entry


def test_weights_next_to_a_file_are_part_of_its_checksum(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "EXTERNAL_DATA_FROM", 1_000_000)
    path, data = tmp_path / "a.onnx", tmp_path / "a.onnx.data"
    export_onnx(classifier, path, size=64)
    output(path)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ExportError, match=r"a\.onnx differs from its checksum"):
        load_predictor(path)
    data.unlink()
    with pytest.raises(ExportError, match=r"a\.onnx differs from its checksum"):
        load_predictor(path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../model.onnx", "sub/../../model.onnx", "fifo", "link"]
)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_elsewhere_are_refused(onnx_file, name, engine, tmp_path):
    model = onnx.load(onnx_file)
    (kernel, *_) = model.graph.initializer
    kernel.data_location = TensorProto.EXTERNAL
    kernel.ClearField("raw_data")
    kernel.external_data.add(key="location", value=name)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="cannot be loaded by onnx"):
        open_program(path, engine=engine)


@pytest.mark.parametrize("name", ["model.bin", "model.xml"])
def test_a_pipe_in_place_of_a_file_is_refused(folder, name):
    (folder / "ir" / name).unlink()
    os.mkfifo(folder / "ir" / name)
    for read in (load_predictor, open_program):
        with pytest.raises(BitKerasError):
            read(folder / "ir")
    (folder / "ir" / checksums.SUMS).unlink()
    with pytest.raises(BitKerasError):
        open_program(folder / "ir")


def constant_of(shape):
    """A graph that returns zeros of a shape, whatever its input."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", ["inputs", "zero"], ["logits"]),
    ]
    images = [1, 8, 8, 3]
    graph = helper.make_graph(
        nodes,
        "bomb",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, images)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, images)],
        [helper.make_tensor("shape", TensorProto.INT64, [len(shape)], shape)],
    )
    operators = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=operators, ir_version=8)


@pytest.mark.parametrize("shape", [[1 << 31], [1 << 60], [1 << 20, 1 << 20, 1 << 20]])
def test_a_small_file_that_takes_gigabytes_is_refused(shape, tmp_path):
    onnx.save(constant_of(shape), tmp_path / "a.onnx")
    start = time.perf_counter()
    # Where there is no such memory, ONNX Runtime says so itself.
    with pytest.raises(ExportError, match=r"a\.onnx|ConstantOfShape"):
        require_runs(
            tmp_path / "a.onnx", "bit_keras.artifacts.runtimes.opening:run_once", 600_000_000
        )
    assert time.perf_counter() - start < 60  # Ten seconds, and what a busy machine adds.


def test_a_library_of_operators_is_not_loaded(tmp_path):
    model = constant_of([1])
    model.graph.node.add(op_type="Evil", domain="evil.so", input=["zero"], output=["evil"])
    model.opset_import.add(domain="evil.so", version=1)
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ExportError, match="Evil"):
        open_program(tmp_path / "a.onnx")


def test_a_file_that_was_changed_on_purpose_is_tried_before_it_is_opened(folder):
    path = folder / "model.onnx"
    expected = output(path)
    model = onnx.load(path)
    model.graph.doc_string = "Mine."
    onnx.save(model, path)
    with pytest.raises(ExportError, match="differs from its checksum"):
        load_predictor(path)
    del model.metadata_props[-1]
    onnx.save(model, path)
    assert np.array_equal(output(path), expected)
