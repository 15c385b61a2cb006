"""`bit-keras benchmark`: what it prints and writes, and what it refuses."""

import json

import keras
import pytest
from PIL import Image

from tests.cli.running import fails, run, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels need the TensorFlow backend."
)

QUICK = ("--threads", 1, "--rounds", 2)


@pytest.mark.long
def test_a_table_for_each_batch_size_and_a_plot(serving_artifact, tmp_path):
    plot = tmp_path / "speed.png"
    result = succeeds("benchmark", serving_artifact, "--batch", "1,2", *QUICK, "--plot", plot)
    lines = result.stdout.splitlines()
    assert "threads: 1, rounds: 2" in lines[0]
    assert [line.partition(",")[0] for line in lines if line.startswith("batch")] == [
        "batch 1",
        "batch 2",
    ]
    rows = [line for line in lines if line.startswith(str(serving_artifact))]
    assert [row.split()[-1] for row in rows] == ["1.00", "1.00"]
    with Image.open(plot) as image:
        image.load()


@pytest.mark.long
def test_json_is_one_document_with_all_times(serving_artifact, classifier_artifact):
    artifacts = (classifier_artifact, serving_artifact)
    result = succeeds("benchmark", *artifacts, "--batch", "1", *QUICK, "--json")
    document = json.loads(result.stdout)
    assert document["threads"] == 1
    assert [row["name"] for row in document["rows"]] == [str(path) for path in artifacts]
    assert all(len(row["seconds"]) == 2 for row in document["rows"])
    assert document["rows"][0]["ratio_to_first"] == 1.0
    assert document["matrix_product"]["batches"][0]["flops"] > 0


def test_bad_input_is_one_sentence(serving_artifact, tmp_path):
    assert "nowhere" in fails("benchmark", tmp_path / "nowhere")
    (tmp_path / "text.tflite").write_text("no artifact")
    assert "was not exported by bit_keras" in fails("benchmark", tmp_path / "text.tflite")
    twice = fails("benchmark", serving_artifact, serving_artifact)
    assert "given twice" in twice
    folder = tmp_path / "missing" / "speed.png"
    assert "does not exist" in fails("benchmark", serving_artifact, "--plot", folder)
    assert "end in .png" in fails("benchmark", serving_artifact, "--plot", tmp_path / "a.svg")
    for options in (
        ("--batch", "one"),
        ("--batch", "1,0"),
        ("--batch", "none"),
        ("--threads", 0),
        ("--rounds", 0),
    ):
        assert run("benchmark", serving_artifact, *options).exit_code == 2, options
    assert run("benchmark").exit_code == 2
