"""`bit-keras predict --explain`, as a shell sees it."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests.cli.running import fails, run, run_in_a_shell, succeeds

SAMPLES = Path(__file__).parents[2] / "demo" / "images"
CAT, SHIP = SAMPLES / "cat.jpg", SAMPLES / "ship.jpg"
TINY = "bit_tiny.cifar10"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.png"


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_table_is_printed_as_before_and_the_drawing_is_named(out):
    plain = succeeds("predict", TINY, CAT, SHIP, "--top", 3).stdout
    explained = succeeds("predict", TINY, CAT, SHIP, "--top", 3, "--explain", out).stdout
    assert explained == f"{plain}Wrote {out}\n"
    # Two rows of the image, three classes and the colours: panels of 240 pixels.
    height, width, _ = pixels_of(out).shape
    assert (height // 240, width // 240) == (2, 4)
    assert pixels_of(out).std() > 20


def test_json_is_one_document_and_nothing_else(out):
    plain = json.loads(succeeds("predict", TINY, CAT, "--json").stdout)
    explained = json.loads(succeeds("predict", TINY, CAT, "--json", "--explain", out).stdout)
    assert out.is_file()
    for got, want in zip(explained[0]["predictions"], plain[0]["predictions"], strict=True):
        assert got.pop("score") == pytest.approx(want.pop("score"), rel=1e-6)
    assert explained == plain


def test_unreadable_images_are_reported_and_the_others_plotted(out, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(CAT.read_bytes()[:300])
    result = run("predict", TINY, broken, CAT, "--explain", out)
    assert result.exit_code == 1
    assert f"Error: {broken}" in result.stderr
    assert f"Wrote {out}" in result.stdout
    # One row.
    assert len(pixels_of(out)) < 400


def test_nothing_is_written_where_no_image_can_be_read(out, tmp_path):
    result = run("predict", TINY, tmp_path / "gone.jpg", "--explain", out)
    assert result.exit_code == 1
    assert "gone.jpg" in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.bmp", "its suffix must be one of .png, .jpg, .svg, .pdf"),
        ("nowhere/out.png", "does not exist; create it first"),
    ],
)
def test_a_plot_format_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    tmp_path, name, sentence
):
    assert sentence in fails("predict", "no_such_model", CAT, "--explain", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_matplotlib_is_named_before_the_model_is_loaded(out, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = fails("predict", "no_such_model", CAT, "--explain", out)
    assert "matplotlib: pip install 'bit_keras[explain]'" in message


def test_an_artifact_without_class_maps_says_how_to_get_them(classifier_artifact, out):
    message = fails("predict", classifier_artifact, CAT, "--explain", out)
    assert "export the model again with --class-maps" in message
    assert not out.exists()


def test_an_artifact_with_class_maps_is_explained(tiny_npz, tmp_path, out):
    path = tmp_path / "exported"
    options = ("--to", "hub", "--class-maps", "--weights", tiny_npz, "--out", path)
    succeeds("export", TINY, *options)
    assert f"Wrote {out}" in succeeds("predict", path, CAT, "--explain", out).stdout


@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Fine-tuned once.")
def test_a_fine_tuned_model_is_explained(tmp_path, out):
    for path in (CAT, SHIP):
        folder = tmp_path / "photos" / path.stem
        folder.mkdir(parents=True)
        for number in range(4):
            (folder / f"{number}.jpg").write_bytes(path.read_bytes())
    options = ("--weights", "random", "--size", 64, "--batch", 4, "--steps", 2, "--lr", 0.01)
    data = tmp_path / "photos"
    succeeds("finetune", TINY, "--data", data, "--out", tmp_path / "run", *options)
    printed = succeeds("predict", tmp_path / "run", CAT, "--explain", out).stdout
    # As many classes as the head has.
    assert len(printed.splitlines()) == 1 + 2 + 1
    assert out.is_file()


@pytest.mark.long
def test_nothing_of_the_frameworks_is_printed(out):
    process = run_in_a_shell("predict", TINY, CAT, "--explain", out)
    assert process.stderr == ""
    assert process.stdout.splitlines()[-1] == f"Wrote {out}"
