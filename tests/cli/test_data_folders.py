"""`finetune` and `evaluate` on folders as people have them: from a download, a phone, a camera."""

import csv
import html
import json
import os
import shlex
import shutil

import keras
import pytest
from click.testing import CliRunner

from bit_keras.cli import main
from tests.cifar10 import SAMPLES
from tests.cli.running import fails, run, run_in_a_shell, succeeds

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The commands are tested once."
)

TINY = "bit_tiny.cifar10"
SHORT = ("--weights", "random", "--size", 32, "--batch", 4, "--steps", 2, "--lr", 0.01)
HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 20


def put(folder, name, *files):
    """Copies of a real image."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(SAMPLES / f"{name}.jpg", folder / file)


def pets(folder, count=2):
    for name in ("cat", "dog"):
        put(folder / name, name, *(f"{number}.jpg" for number in range(count)))
    return folder


def trains(data, out, *options):
    return succeeds("finetune", TINY, "--data", data, "--out", out, *SHORT, *options)


def document(out):
    return json.loads((out / "run.json").read_text())["data"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder with everything in it that is not an image of its class, and a run on it."""
    folder = tmp_path_factory.mktemp("odd")
    data = folder / "my data"
    pets(data / "Training")
    pets(data / "Testing", 1)
    put(data / "docs", "ship", "figure.jpg")
    train = data / "Training"
    (train / "cat" / "1.jpg").rename(train / "cat" / "IMG_1")
    (train / "cat" / "up").symlink_to("../..")
    (train / "dog" / "gone.jpg").symlink_to("/nowhere.jpg")
    (train / "dog" / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(train / "dog" / "pipe.jpg")
    (train / "owl").mkdir()
    for number in range(3):
        (train / "owl" / f"{number}.heic").write_bytes(HEIC)
    (data / "__MACOSX" / "cat").mkdir(parents=True)
    refused = fails("finetune", TINY, "--data", data, "--out", folder / "run", *SHORT)
    arguments = ("--skip-unreadable-classes", "--validation", 0)
    return data, folder / "run", refused, trains(data, folder / "run", *arguments)


def test_a_lost_class_stops_and_names_folder_reason_and_count(odd):
    _, _, refused, _ = odd
    assert "split Training: 1 class has no image that can be read: 'owl' (3 files" in refused
    assert "such as Training/owl/0.heic: " in refused
    assert "--skip-unreadable-classes" in refused


def test_splits_are_no_classes_and_skipped_files_are_counted(odd):
    _, out, _, result = odd
    assert document(out)["classes"] == ["cat", "dog"]
    assert document(out)["train"] == [2, 2]
    assert "4 images of 2 classes: cat (2), dog (2)" in result.stderr
    for reason in (
        "Training/cat/up/: a link to a parent folder",
        "Training/dog/gone.jpg: a broken link",
        "Training/dog/zero.jpg: a device",
        "Training/dog/pipe.jpg: a named pipe",
        "docs/figure.jpg: in a folder next to the splits",
    ):
        assert reason in result.stderr


def test_without_validation_the_last_weights_are_the_best(odd):
    data, out, _, result = odd
    assert "Without validation" in result.stderr
    assert "the last weights are the best" in result.stderr
    assert result.stdout.count("not measured") == 2
    assert (out / "best.npz").read_bytes() == (out / "last.npz").read_bytes()
    assert document(out)["validation"] == [0, 0]
    with (out / "history.csv").open() as file:
        assert [row["validation_accuracy"] for row in csv.DictReader(file)] == ["", ""]
    # Finished, by the same command: the data are the same.
    assert "is finished" in trains(data, out, "--skip-unreadable-classes", "--validation", 0).stderr
    patient = ("--validation", 0, "--patience", 1)
    arguments = (TINY, "--data", data / "Testing", "--out", out.with_name("other"), *SHORT)
    assert "`patience` needs validation" in fails("finetune", *arguments, *patient)


def test_the_next_commands_can_be_pasted(odd):
    _, _, _, result = odd
    lines = result.stdout.partition("Next: ")[2].splitlines()
    evaluate, predict = (shlex.split(line) for line in lines)
    result = succeeds(*evaluate[1:], "--json")
    assert json.loads(result.stdout)["data"].endswith("my data, split Testing")
    assert "split Testing: 2 images of 2 classes: cat (1), dog (1)" in result.stderr
    succeeds(*predict[1:-1], SAMPLES / "cat.jpg")


def test_unlabelled_test_images_of_a_competition(tmp_path):
    pets(tmp_path / "train")
    put(tmp_path / "test", "cat", "1.jpg", "2.jpg")
    result = run("evaluate", TINY, "--data", tmp_path)
    assert result.exit_code == 0
    assert "split train: 4 images of 2 classes: cat (2), dog (2)" in result.stderr
    assert "2 files are skipped, such as test/1.jpg" in result.stderr
    assert "has the splits train" in fails("evaluate", TINY, "--data", tmp_path, "--split", "test")


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
@pytest.mark.parametrize(
    ("folders", "facts"),
    [
        (("north", "south"), ("north", "south", "splits or classes")),
        (("train", "test", "extra"), ("train and test", "extra")),
    ],
)
def test_folders_that_may_be_splits_are_refused(tmp_path, command, folders, facts):
    for folder in folders:
        pets(tmp_path / "data" / folder)
    options = (*SHORT, "--out", tmp_path / "run") if command == "finetune" else ()
    error = fails(command, TINY, "--data", tmp_path / "data", *options)
    assert all(fact in error for fact in facts)
    assert not (tmp_path / "run").exists()


#: The same name in the two spellings of Unicode.
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"

NAMES = ("$1_to_$5", "[red]", ":cat: & <script>", "猫", COMPOSED)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A run on one image of each class, and on names that are markup elsewhere."""
    folder = tmp_path_factory.mktemp("few")
    for name, sample in zip(NAMES, ("cat", "dog", "ship", "frog", "deer"), strict=True):
        put(folder / "data" / name, sample, "only.jpg")
    return folder / "data", folder / "run", trains(folder / "data", folder / "run")


def test_one_image_per_class_is_enough(few):
    data, out, result = few
    assert "a single image per class leaves none to hold out" in result.stderr
    assert document(out)["train"] == [1] * 5
    (prediction,) = json.loads(succeeds("predict", out, SAMPLES / "cat.jpg", "--json").stdout)
    assert {entry["label"] for entry in prediction["predictions"]} == set(NAMES)
    error = fails(
        "finetune", TINY, "--data", data, "--out", out / "no", *SHORT, "--validation", 0.5
    )
    assert "5 images of 5 classes" in error
    assert "--validation 0" in error


def test_names_are_text_in_tables_plots_and_pages(few, tmp_path):
    data, out, _ = few
    result = succeeds("evaluate", out, "--data", data, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    for name in NAMES:
        assert f"{name} (1)" in result.stderr
        assert any(name in line for line in result.stdout.splitlines())
        assert f"<td>{html.escape(name)}" in page
    assert "<script>" not in page
    assert "Confusion" in page
    drawing = tmp_path / "maps.svg"
    succeeds("predict", out, data / NAMES[0] / "only.jpg", "--explain", drawing)
    assert drawing.stat().st_size > 0


def test_results_outlive_a_report_that_cannot_be_plotted(few, tmp_path, monkeypatch):
    data, out, _ = few

    def broken(*_):
        raise ValueError("no such colour")

    monkeypatch.setattr("bit_keras.evaluation.report._confusion_plot", broken)
    result = succeeds("evaluate", out, "--data", data, "--out", tmp_path / "report")
    assert "(no such colour)" in result.stderr
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["images"] == 5

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bit_keras.evaluation.report.json.dumps", full)
    result = run("evaluate", out, "--data", data, "--out", tmp_path / "other")
    assert result.exit_code == 1
    assert "top-1" in result.stdout
    assert "No space left" in result.stderr


def test_class_names_are_compared_as_people_read_them(few, tmp_path):
    data, out, _ = few
    other = shutil.copytree(data, tmp_path / "data")
    (other / COMPOSED).rename(other / DECOMPOSED)
    result = succeeds("evaluate", out, "--data", other, "--json")
    assert {each["label"] for each in json.loads(result.stdout)["classes"]} == set(NAMES)


def test_unusable_paths_end_with_one_sentence(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone").symlink_to("/nowhere")
    latin = tmp_path / "latin" / os.fsdecode(b"caf\xe9")
    put(latin, "cat", "a.jpg")
    put(tmp_path / "latin" / "bar", "dog", "a.jpg")
    for name, fact in (
        ("pipe", "neither a folder nor an ordinary file"),
        ("gone", "There is no folder or archive"),
        ("latin", r"caf\xe9 in "),
    ):
        result = CliRunner().invoke(main, ["evaluate", TINY, "--data", str(tmp_path / name)])
        assert result.exit_code == 1
        assert fact in result.stderr
        assert "unexpected" not in result.stderr


@pytest.mark.long
def test_a_path_that_is_not_utf8_is_printed(tmp_path):
    data = pets(tmp_path / os.fsdecode(b"caf\xe9"), 1)
    result = run_in_a_shell("evaluate", TINY, "--data", data)
    assert result.returncode == 0, result.stderr
    assert r"caf\xe9, all of it" in result.stdout
    result = run_in_a_shell("evaluate", data / "none.npz", "--data", data)
    assert result.returncode == 1
    assert "none.npz" in result.stderr
    assert "Traceback" not in result.stderr
