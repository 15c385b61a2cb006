"""`bit-keras predict` on many images and on exported files, as a shell sees it."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from bit_keras.cli import main
from bit_keras.cli.predict import _ROWS
from bit_keras.inference import Prediction
from tests.cli.running import run

HEAVY = {
    *{"h5py", "jax", "keras", "tensorflow", "tf_keras", "torch"},
    # What takes less time, and is as needless.
    *{"bit_keras.checkpoints.files", "pillow_heif", "requests"},
}

#: Prints which of these packages are imported when a command ends.
REPORT = f"""
import atexit, sys
atexit.register(lambda: print("imported:", *sorted(set(sys.modules) & {HEAVY!r})))
from bit_keras.cli import main
main()
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """More than two batches of images of one colour each."""
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{'long_name_' * (number > 20)}{number}.png" for number in range(37)]
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 50), (7 * number, 255 - 7 * number, 128)).save(path)
    return paths


@pytest.fixture
def broken(tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"nothing")
    return path


@pytest.mark.parametrize("fixture", ["tflite_file", "onnx_file"])
def test_exported_files_predict_without_a_framework(images, fixture, request):
    artifact = request.getfixturevalue(fixture)
    for options in ([], ["--json-lines", "--top", "3"]):
        result = subprocess.run(
            [sys.executable, "-c", REPORT, "predict", artifact, *images[:2], *options],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert result.returncode == 0, result.stderr
        assert images[1].name in result.stdout
        assert result.stdout.splitlines()[-1] == "imported:"


def test_json_lines_are_the_objects_of_the_json_document(tflite_file, images, broken):
    sources = [*images[:3], broken, *images[3:]]
    arguments = ["predict", tflite_file, *sources]
    lines, document = run(*arguments, "--json-lines"), run(*arguments, "--json")
    objects = [json.loads(line) for line in lines.stdout.splitlines()]
    assert objects == json.loads(document.stdout)
    assert [each["image"] for each in objects] == [str(source) for source in sources]
    assert [each["image"] for each in objects if "error" in each] == [str(broken)]
    for result in (lines, document):
        assert result.exit_code == 1
        assert f"Error: {broken}" in result.stderr


def test_json_and_json_lines_cannot_be_used_together(tflite_file, images):
    result = run("predict", tflite_file, images[0], "--json", "--json-lines")
    assert result.exit_code == 2
    assert "--json-lines" in result.stderr


def test_the_rows_of_all_batches_are_in_the_same_columns(tflite_file, images, broken):
    assert len(images) > 2 * _ROWS
    result = run("predict", tflite_file, *images[:5], broken, *images[5:])
    assert result.exit_code == 1
    header, *rows = result.stdout.splitlines()
    assert header.split() == ["image", "class", "score"]
    named = [row for row in rows if not row.startswith(" ")]
    assert [row.split()[0] for row in named] == [str(path) for path in images]
    assert len(rows) == 5 * len(images)
    assert {row.index(row.split()[1]) for row in named} == {header.index("class")}


def test_each_line_is_printed_before_the_next_image_is_read(tflite_file, monkeypatch, capsys):
    printed = []

    class Lazy:
        def predict(self, sources, top):
            for source in sources:
                printed.append(capsys.readouterr().out)
                yield Prediction(source, [("cat", "cat", 0.5)])

    monkeypatch.setattr("bit_keras.inference.load_predictor", lambda *_, **__: Lazy())
    arguments = ["predict", str(tflite_file), "a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--json-lines"])
    assert printed[0] == ""
    assert [json.loads(line)["image"] for line in printed[1:]] == ["a.jpg", "b.jpg"]
