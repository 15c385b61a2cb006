"""A training from the outside: what it learns, writes and refuses."""

import csv
import json
import shutil
import signal

import filelock
import keras
import numpy as np
import pytest
from PIL import Image

import bit_keras
from bit_keras.checkpoints import open_checkpoint
from bit_keras.errors import BitKerasError, SizeError, TrainingError
from bit_keras.sources import resolve
from bit_keras.training import Interrupted, finetune, load_run
from tests.training.conftest import kept_log

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="Each of these compiles a network; test_backends.py has one on every backend.",
)

NAME = "bit_tiny.cifar10"
SHORT = {"weights": "random", "size": 32, "batch": 12, "steps": 4, "learning_rate": 0.01}


def weights_of(path):
    with open_checkpoint(path) as arrays:
        return dict(arrays)


def same(one, other):
    one, other = weights_of(one), weights_of(other)
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def stop_at(step, monkeypatch):
    """Presses Ctrl-C while the training shows that it has done `step` steps."""
    from bit_keras.training.records import LiveProgress

    show = LiveProgress.show

    def pressing(self, done, *arguments):
        if done == step:
            signal.raise_signal(signal.SIGINT)
        show(self, done, *arguments)

    monkeypatch.setattr(LiveProgress, "show", pressing)


@pytest.fixture(scope="module")
def trained(colours, tmp_path_factory):
    """A training of 40 steps, and what it returned."""
    path = tmp_path_factory.mktemp("runs") / "colours"
    return path, finetune(NAME, colours, path, **{**SHORT, "steps": 40, "validation": 0.2})


STOPPED = {**SHORT, "steps": 20}


@pytest.fixture(scope="module")
def stopped_once(colours, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(1, patch)
        with pytest.raises(Interrupted):
            finetune(NAME, colours, path, **STOPPED)
    return path


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A training of 20 steps that was stopped after the first."""
    return shutil.copytree(stopped_once, tmp_path / "run")


# What a training gives


def test_a_training_learns(trained, colours):
    path, result = trained
    assert resolve(path).format == "run"
    # Three classes that differ by colour; chance is 0.33. 12 images are held out.
    assert result.best_accuracy >= 0.9
    model, spec = load_run(path)
    images = np.stack([spec.transform(image) for image in colours[0]])
    predictions = bit_keras.decode_predictions(model.predict(images, verbose=0), spec.labels, 1)
    right = [row[0][1] == label for row, label in zip(predictions, colours[1], strict=True)]
    assert np.mean(right) >= 0.9


def test_the_folder_of_a_run_contains_its_files(trained):
    path, result = trained
    assert {file.name for file in path.iterdir() if not file.name.startswith(".")} == {
        *("run.json", "best.npz", "last.npz", "checkpoint.npz", "history.csv", "curve.png", "logs")
    }
    with (path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    assert float(rows[-1]["validation_accuracy"]) == result.last_accuracy
    assert max(float(row["validation_accuracy"]) for row in rows) == result.best_accuracy
    with Image.open(path / "curve.png") as image:
        assert image.size == (700, 700)


def test_tensorboard_reads_the_logs(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    path, _ = trained
    events = EventAccumulator(str(path / "logs")).Reload()
    tags = events.Tags()["tensors"]
    assert {"loss", "accuracy", "validation/accuracy", "learning_rate"} <= set(tags)
    assert [event.step for event in events.Tensors("loss")] == list(range(4, 41, 4))


def test_run_json_says_how_to_repeat_it(trained):
    path, result = trained
    document = json.loads((path / "run.json").read_text())
    assert document["model"] == NAME
    assert document["options"]["learning_rate"] == 0.01
    assert document["options"]["seed"] == 0
    assert document["options"]["backend"] == "tensorflow"
    assert document["rule"]["steps"] == 40
    assert document["data"]["classes"] == ["blue", "green", "red"]
    assert document["data"]["train"] == [16, 16, 16]
    assert document["data"]["validation"] == [4, 4, 4]
    assert document["environment"]["keras"] == keras.__version__
    assert document["results"]["best_accuracy"] == result.best_accuracy


def test_the_weights_are_official_and_float32(trained):
    path, _ = trained
    model = bit_keras.create_classifier(NAME, weights=path / "best.npz", num_classes=3)
    assert model.output_shape == (None, 3)
    assert {array.dtype.name for array in weights_of(path / "last.npz").values()} == {"float32"}


@pytest.fixture(scope="module")
def logged(colours, tmp_path_factory):
    """A training of 4 steps: its folder, and the lines that it logged."""
    path = tmp_path_factory.mktemp("runs") / "logged"
    with kept_log() as lines:
        finetune(NAME, colours, path, **SHORT)
    return path, lines


@pytest.mark.long
def test_the_rule_and_every_validation_are_logged(logged):
    _, log_lines = logged
    text = "\n".join(log_lines)
    assert "4 steps of 12 images" in text
    assert "54 images of 3 classes: blue (18), green (18), red (18)" in text
    assert "10% (6 of 60)" in text
    assert "6 images of 3 classes" in text
    assert "test split" in text
    lines = [line for line in log_lines if line.startswith("step ")]
    assert len(lines) == 4
    assert lines[-1].startswith("step 4/4: loss ")
    assert "validation accuracy" in lines[-1]
    assert "images/s" in lines[-1]


@pytest.mark.long
def test_the_head_is_new_even_where_the_classes_are_as_many(tiny_npz, colours, tmp_path):
    pixels, _ = colours
    ten = (pixels, [f"class {index % 10}" for index in range(60)])
    # The learning rate of step 0 is 0, so one step leaves the weights as they were.
    options = {**SHORT, "steps": 1, "rule": "code", "weights": tiny_npz}
    finetune(NAME, ten, tmp_path / "run", **options)
    before, after = weights_of(tiny_npz), weights_of(tmp_path / "run" / "last.npz")
    head = "resnet/head/conv2d/kernel"
    assert np.abs(before[head]).max() > 0
    stem = "resnet/root_block/standardized_conv2d/kernel"
    # A training of one step has 0 steps of warm-up: the head has moved, from zero, by one update.
    assert not np.array_equal(before[head], after[head])
    assert np.abs(after[head]).max() < 0.1
    # The head was zero, so no gradient has come through it.
    assert np.array_equal(before[stem], after[stem])


@pytest.mark.long
def test_frozen_parts_do_not_learn(colours, tmp_path, tiny_npz):
    options = {**SHORT, "weights": tiny_npz, "rule": "code", "freeze": ("stem", "block1", "block2")}
    finetune(NAME, colours, tmp_path / "run", **options)
    before, after = weights_of(tiny_npz), weights_of(tmp_path / "run" / "last.npz")
    for name in before:
        if "head" in name:
            continue
        frozen = any(part in name for part in ("root_block", "block1/", "block2/"))
        assert np.array_equal(before[name], after[name]) == frozen, name


@pytest.mark.long
def test_bfloat16_learns_and_keeps_the_policy(colours, tmp_path):
    options = {**SHORT, "steps": 40, "precision": "bfloat16", "validation": 0.2}
    result = finetune(NAME, colours, tmp_path / "run", **options)
    assert result.best_accuracy >= 0.9
    assert keras.config.dtype_policy().name == "float32"
    model, _ = load_run(tmp_path / "run")
    assert model.dtype_policy.name == "float32"


# Validation


@pytest.mark.long
def test_a_validation_split_is_used_and_a_test_split_is_not(coloured, tmp_path):
    for split, count in (("train", 24), ("val", 6)):
        for index, (image, label) in enumerate(zip(*coloured(count), strict=True)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index}.png")
    for label in ("blue", "green", "red"):
        (tmp_path / "data" / "test" / label).mkdir(parents=True)
        (tmp_path / "data" / "test" / label / "broken.png").write_bytes(b"never read")
    result = finetune(NAME, tmp_path / "data", tmp_path / "run", **SHORT)
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert document["data"]["validation_from"] == "the split val"
    assert document["data"]["validation"] == [2, 2, 2]
    assert document["data"]["train"] == [8, 8, 8]
    assert result.unreadable == {}


@pytest.mark.long
def test_without_validation_a_stopped_training_ends_in_the_same_weights(
    coloured, tmp_path, monkeypatch
):
    few = coloured(3)
    whole = finetune(NAME, few, tmp_path / "whole", **SHORT, validation=0)
    assert (whole.best_step, whole.best_accuracy, whole.last_accuracy) == (4, None, None)
    assert same(tmp_path / "whole" / "best.npz", tmp_path / "whole" / "last.npz")
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        with pytest.raises(Interrupted):
            finetune(NAME, few, tmp_path / "parts", **SHORT, validation=0)
    finetune(NAME, few, tmp_path / "parts", **SHORT, validation=0)
    assert same(tmp_path / "whole" / "last.npz", tmp_path / "parts" / "best.npz")


@pytest.mark.long
def test_patience_ends_a_training_that_does_not_get_better(tmp_path):
    pixels = np.zeros((40, 32, 32, 3), "uint8")  # Nothing to learn.
    options = {**SHORT, "steps": 50, "patience": 2, "learning_rate": 1e-6}
    result = finetune(NAME, (pixels, [0, 1] * 20), tmp_path / "run", **options)
    assert result.last_step < 50
    with (tmp_path / "run" / "history.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert [step for step in steps if step > result.best_step] == steps[-2:]


@pytest.mark.long
def test_unreadable_images_are_named_and_not_fatal(colour_folder, tmp_path):
    data = shutil.copytree(colour_folder, tmp_path / "data")
    for image in sorted(data.rglob("*.png"))[::20]:
        image.write_bytes(image.read_bytes()[:200])
    result = finetune(NAME, data, tmp_path / "run", **SHORT)
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert 0 < len(result.unreadable) <= 3
    assert document["results"]["unreadable"] == result.unreadable


# Stopping and going on


@pytest.mark.long
def test_ctrl_c_saves_and_the_same_call_gives_the_same_weights(
    colours, tmp_path, monkeypatch, log_lines
):
    # 54 images in batches of 12: each stop is in the middle of an epoch.
    options = {**SHORT, "steps": 12, "mixup": 0.2}
    whole = finetune(NAME, colours, tmp_path / "whole", **options)
    for step in (3, 8):
        with monkeypatch.context() as patch:
            stop_at(step, patch)
            with pytest.raises(Interrupted, match=f"after step {step} of 12, and saved"):
                finetune(NAME, colours, tmp_path / "parts", **options)
    parts = finetune(NAME, colours, tmp_path / "parts", **options)
    assert "Resuming after step 8." in log_lines
    for file in ("best.npz", "last.npz"):
        assert same(tmp_path / "whole" / file, tmp_path / "parts" / file)
    assert (whole.best_step, whole.best_accuracy) == (parts.best_step, parts.best_accuracy)


@pytest.mark.long
def test_another_seed_gives_other_weights(logged, colours, tmp_path):
    path, _ = logged
    finetune(NAME, colours, tmp_path / "run", **SHORT, seed=1)
    assert not same(path / "last.npz", tmp_path / "run" / "last.npz")


def test_a_finished_training_is_not_repeated(trained, colours, log_lines):
    path, result = trained
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    again = finetune(NAME, colours, path, **{**SHORT, "steps": 40, "validation": 0.2})
    assert again == result
    assert any("is finished" in line for line in log_lines)
    assert {file: file.stat().st_mtime_ns for file in path.iterdir() if file.name != ".lock"} == {
        file: time for file, time in before.items() if file.name != ".lock"
    }


def test_other_options_or_data_are_refused_and_nothing_changes(trained, colours):
    path, _ = trained
    before = {file.name: file.read_bytes() for file in path.glob("*.*") if file.is_file()}
    options = {**SHORT, "steps": 40, "validation": 0.2}
    with pytest.raises(TrainingError, match=r"options learning_rate was 0\.01 and is 0\.02"):
        finetune(NAME, colours, path, **{**options, "learning_rate": 0.02})
    other = colours[0].copy()
    other[0, 0, 0, 0] ^= 1
    with pytest.raises(TrainingError, match="data train_fingerprint was"):
        finetune(NAME, (other, colours[1]), path, **options)
    assert before == {f.name: f.read_bytes() for f in path.glob("*.*") if f.is_file()}


@pytest.mark.parametrize("name", ["thesis.txt", ".thesis.txt"])
def test_a_folder_of_something_else_is_refused(colours, tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("years of work")
    with pytest.raises(TrainingError, match="is not a run of `bit-keras finetune`"):
        finetune(NAME, colours, tmp_path / "run", **SHORT)
    assert [file.name for file in (tmp_path / "run").iterdir()] == [name]


def test_two_processes_do_not_train_in_one_folder(colours, stopped):
    with (
        filelock.FileLock(stopped / ".lock"),
        pytest.raises(TrainingError, match="Another process is training in"),
    ):
        finetune(NAME, colours, stopped, **STOPPED)


# What goes wrong


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(colours, tmp_path):
    options = {**SHORT, "steps": 40, "learning_rate": 1e20}
    with pytest.raises(TrainingError, match=r"--lr below 1e.20 .*--out") as error:
        finetune(NAME, colours, tmp_path / "run", **options)
    assert "not finite" in str(error.value) or "The loss is" in str(error.value)
    state = tmp_path / "run" / "checkpoint.npz"
    if state.exists():
        with np.load(state) as arrays:
            assert all(np.isfinite(arrays[name]).all() for name in arrays.files)


@pytest.mark.long
def test_a_full_disk_gets_a_sentence_and_loses_nothing(colours, stopped):
    resource = pytest.importorskip("resource", reason="This system has no file size limits.")
    state = (stopped / "checkpoint.npz").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(state) // 2, limits[1]))
    try:
        with pytest.raises(BitKerasError, match="could not be written"):
            finetune(NAME, colours, stopped, **STOPPED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (stopped / "checkpoint.npz").read_bytes() == state
    assert finetune(NAME, colours, stopped, **STOPPED).last_step == 20


def test_a_damaged_checkpoint_gets_a_sentence(colours, stopped):
    state = stopped / "checkpoint.npz"
    whole = state.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (bytes(flipped), whole[: len(whole) // 2]):
        state.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"checkpoint\.npz is damaged"):
            finetune(NAME, colours, stopped, **STOPPED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze": ("block7",)}, "`freeze`.*stem, block1.*block7"),
        ({"accumulate": 5}, "accumulate=5, batch=12"),
        ({"precision": "float16"}, "float32, bfloat16.*precision='float16'"),
        ({"rule": "thumb"}, "code, paper, big_vision, scratch.*rule='thumb'"),
        ({"batch": 0}, "`batch` must be at least 1"),
        ({"patience": 0}, "`patience` must be at least 1"),
        ({"learning_rate": -1.0}, "positive.*learning_rate=-1.0"),
        ({"mixup": -1.0}, "mixup=-1.0"),
        ({"seed": -1}, "seed=-1"),
        ({"weights": "nowhere.npz"}, "`weights`.*nowhere.npz"),
        ({"validation": 1.5}, "between 0 and 1"),
        ({"validation": "holiday"}, "holiday"),
    ],
)
def test_invalid_options_are_an_error_before_anything_is_written(
    colours, tmp_path, options, message
):
    with pytest.raises(BitKerasError, match=message):
        finetune(NAME, colours, tmp_path / "run", **{**SHORT, **options})
    assert not (tmp_path / "run").exists()


def test_a_size_that_the_network_cannot_take_is_refused(colours, tmp_path):
    with pytest.raises(SizeError):
        finetune(NAME, colours, tmp_path / "run", **{**SHORT, "size": 16})
    assert not (tmp_path / "run").exists()


def test_a_single_class_is_an_error(colours, tmp_path):
    with pytest.raises(TrainingError, match=r"two classes.*'blue'"):
        finetune(NAME, (colours[0], ["blue"] * 60), tmp_path / "run", **SHORT)


def test_folders_of_unfinished_runs_are_refused(tmp_path):
    assert resolve(tmp_path).format != "run"
    with pytest.raises(TrainingError, match="is not a run"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(TrainingError, match="was not written by"):
        load_run(tmp_path)


def test_a_run_without_weights_yet_is_an_error(stopped):
    with pytest.raises(TrainingError, match=r"best\.npz.*bit-keras finetune"):
        load_run(stopped)


# Memory


def gradients_step(parts, remat=False):
    """The weights after three steps of 8 images in a number of parts."""
    from bit_keras.rules.rules import scratch_rule
    from bit_keras.training.loop import compile_for, recompute_blocks

    keras.utils.set_random_seed(0)
    model = bit_keras.create_classifier(NAME, weights=None, input_shape=(32, 32, 3))
    if remat:
        recompute_blocks(model)
    rule = scratch_rule(80, size=32, batch=8, epochs=1)
    compile_for(model, rule, parts)
    images = np.random.default_rng(0).uniform(-1, 1, (24, 32, 32, 3)).astype("float32")
    targets = np.eye(10, dtype="float32")[np.arange(24) % 10]
    for start in range(0, 24, 8 // parts):
        part = slice(start, start + 8 // parts)
        model.train_on_batch(images[part], targets[part])
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.fixture(scope="module")
def of_whole_batches():
    return gradients_step(1)


@pytest.mark.long
def test_accumulated_gradients_are_those_of_the_full_batch(of_whole_batches):
    for whole, parts in zip(of_whole_batches, gradients_step(2), strict=True):
        # float32 sums in another order, over three dependent steps.
        np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=2e-5)


@pytest.mark.long
def test_rematerialised_gradients_are_the_same(of_whole_batches):
    for kept, again in zip(of_whole_batches, gradients_step(1, remat=True), strict=True):
        # float32 sums in another order, as above.
        np.testing.assert_allclose(again, kept, rtol=1e-3, atol=2e-5)
