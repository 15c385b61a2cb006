"""Damaged TFLite files are refused: no crash, no hang, no memory, and nothing else computed."""

import random

import keras
import numpy as np
import pytest

from bit_keras.artifacts.runtimes import open_program
from bit_keras.errors import ExportError
from bit_keras.processes import run_in_process
from tests.checkpoints.mutations import FEW, MANY

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TFLite files are made by TensorFlow."
)


@pytest.fixture(scope="module")
def artifact(classifier, tmp_path_factory):
    from bit_keras.exporters.tflite import export_tflite

    path = tmp_path_factory.mktemp("artifact") / "a.tflite"
    export_tflite(classifier, path, quantize="dynamic")
    return path


@pytest.fixture(scope="module")
def foreign(artifact, tmp_path_factory):
    """The same model as others write it: without the archive, and so without its digest."""
    import zipfile

    with zipfile.ZipFile(artifact) as archive:
        end = min(member.header_offset for member in archive.infolist())
    path = tmp_path_factory.mktemp("foreign") / "a.tflite"
    path.write_bytes(artifact.read_bytes()[:end])
    return path


def outcomes(path, count, seed, way):
    """Fails where the process ends, which is what damaged files must not bring about."""
    function = "tests.artifacts.runtimes.hostile_tflite:outcomes"
    return run_in_process(function, [str(path), count, seed, way], timeout=7200)


def require_harmless(found, path, seed):
    size = path.stat().st_size
    assert found["slowest"] < 10, seed
    assert found["memory"] < 4 * size + 200e6, seed


def require_refused(artifact, count, seed):
    found = outcomes(artifact, count, seed, "predict")
    require_harmless(found, artifact, seed)
    assert found["counts"].keys() <= {"refused", "same"}, (seed, found["worth_a_look"])
    # What changes no number: the time of a member, say.
    assert found["counts"]["refused"] > 0.7 * count


def test_damaged_files_are_refused(artifact):
    require_refused(artifact, FEW, 0)


def test_a_file_that_crashes_the_interpreter_is_refused(pixels_tflite, tmp_path):
    """LiteRT 2.3 reads beyond its tables where a zero point is not an int8: SIGSEGV."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(pixels_tflite.read_bytes()))
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT8 and len(tensor.quantization.zeroPoint) == 1:
            tensor.quantization.zeroPoint = np.array([-129])
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    (tmp_path / "a.tflite").write_bytes(builder.Output())
    with pytest.raises(ExportError, match=r"the process that tried, it crashed \(SIGSEGV\)"):
        open_program(tmp_path / "a.tflite")


@pytest.mark.full
def test_many_damaged_files_are_refused(artifact):
    require_refused(artifact, MANY, random.SystemRandom().randrange(2**32))


@pytest.mark.full
def test_damaged_files_of_others_end_no_process(foreign):
    """Weights may be others: nothing says what they were. Each takes a second or two."""
    seed = random.SystemRandom().randrange(2**32)
    found = outcomes(foreign, 400, seed, "program")
    require_harmless(found, foreign, seed)
    assert found["counts"].keys() <= {"refused", "same", "other"}, (seed, found["worth_a_look"])
