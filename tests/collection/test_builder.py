"""A collection as its publisher builds it: atomic, only what changed, the same bytes."""

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import keras
import pytest
from click.testing import CliRunner

from bit_keras.cli import main
from bit_keras.collection import build_collection, builder, verify_collection
from bit_keras.collection.artifact_builder import Job
from bit_keras.collection.manifest import is_collection
from bit_keras.collection.memory import estimated_memory
from bit_keras.collection.recipe import Item, Recipe
from bit_keras.collection.record import Record
from bit_keras.documents import typed
from bit_keras.errors import DownloadError, ExportError

# They build a collection, with a process for each artifact.
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="The processes that build run on TensorFlow, whatever runs here.",
    ),
]

COLLECTION = """
[collection]
name = "small"
title = "Small"
publisher = "some-body"
publisher_title = "Some Body"
description = "Small networks, naïvely described."
archives = "https://example.com/bit/"
"""
CLASSIFIER = '[[models]]\nname = "tiny_classifier"\nmodel = "bit_tiny.cifar10"\n'
SERVED = (
    '[[models]]\nname = "tiny_served"\nmodel = "bit_tiny.cifar10"\ntarget = "serving"\n'
    'variant = "feature_extraction"\nprecision = "bfloat16"\nsize = 32\n'
)
EXTRACTOR = (
    '[[models]]\nname = "tiny_extractor"\nmodel = "bit_tiny.cifar10"\n'
    'variant = "feature_extraction"\narchive = "extractor-1.tar.gz"\n'
)
LARGE = '[[models]]\nname = "{name}"\nmodel = "{model}"\n'

PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # Whatever the tests were started with.
from bit_keras.cli import main
main()
"""

#: Stands in the environment of a command and of all processes that it starts.
MARK = "BIT_KERAS_TEST_OF_COLLECTIONS"


def write_recipe(folder, models):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(COLLECTION + models, "utf-8")
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), CLASSIFIER + SERVED)


def start(recipe, out, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "collection", str(recipe), "--out", str(out), "--json"],
        env={**os.environ, MARK: str(out), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(recipe, out, **environment):
    """Runs the command to its end: exit status, the printed document, standard error."""
    process = start(recipe, out, **environment)
    output, errors = process.communicate(timeout=300)
    return process.returncode, json.loads(output) if output else None, errors


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    """A collection that was built without a disturbance; nobody changes it."""
    out = tmp_path_factory.mktemp("built") / "collection"
    status, document, errors = run(recipe, out)
    assert status == 0, errors
    assert errors == ""
    assert [outcome["name"] for outcome in document] == ["tiny_classifier", "tiny_served"]
    return out


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "collection")


def tree(folder):
    """Every file of a collection with its bytes, and every folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != ".lock"
    }


def identities(folder):
    """What changes when a file is written again, also with the same bytes."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# What is built


def test_the_manifest_says_what_was_built(recipe, built):
    manifest = json.loads((built / "manifest.json").read_text("utf-8"))
    assert manifest["collection"] == {
        "name": "small",
        "title": "Small",
        "publisher": "some-body",
        "publisher_title": "Some Body",
        "description": "Small networks, naïvely described.",
        "archives": "https://example.com/bit/",
    }
    classifier, served = map(Record.from_json, manifest["models"])
    for record in (classifier, served):
        folder = built / "models" / record.name
        assert Record.read(folder / "record.json") == record
        assert {path.name for path in folder.iterdir()} == {"1", record.archive, "record.json"}
        assert sha256(folder / record.archive) == record.archive_sha256
        assert (folder / record.archive).stat().st_size == record.archive_bytes
        files = [path for path in (folder / "1").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) == record.bytes
        assert 0 <= record.difference <= record.tolerance
        assert record.versions["keras"] == keras.__version__
    (signature,) = classifier.signatures.values()
    assert signature.inputs["inputs"].shape == (None, None, None, 3)
    assert signature.outputs["logits"].shape == (None, 10)
    assert classifier.size is None
    assert served.size == 32
    assert served.signatures["serving_default"].inputs["inputs"].shape == (None, 32, 32, 3)
    assert served.signatures["image_bytes"].inputs["image_bytes"].dtype == "string"
    assert not any(name.startswith("__") for name in served.signatures)


def test_nothing_tells_when_or_where_it_was_built(built):
    text = (built / "manifest.json").read_text("utf-8")
    assert str(built) not in text
    assert time.strftime("%Y-") not in text


def test_the_pages_are_written(built):
    assert (built / "pages" / "huggingface" / "tiny_served" / "README.md").is_file()


def test_nothing_hidden_is_left_but_the_lock(built):
    assert {path.name for path in built.rglob(".*")} <= {".lock"}


def test_verify_accepts_it(built):
    assert is_collection(built)
    verified = list(verify_collection(built))
    assert [record.name for record, _ in verified] == ["tiny_classifier", "tiny_served"]
    for record, verification in verified:
        assert verification.passed
        assert verification.largest == record.difference


# A second run


def test_a_second_run_builds_nothing(recipe, copy, built):
    before = identities(copy / "models")
    status, document, errors = run(recipe, copy)
    assert status == 0, errors
    assert [outcome["seconds"] for outcome in document] == [None, None]
    assert identities(copy / "models") == before
    assert tree(copy) == tree(built)


def test_one_that_fails_leaves_the_others_and_the_next_run_continues(built, tmp_path):
    weights, out = tmp_path / "weights", tmp_path / "collection"
    weights.mkdir()
    (weights / "BiT-M-R50x1-CIFAR10.npz").write_bytes(b"PK\x03\x04 and then the line broke")
    broken = LARGE.format(name="broken", model="bit_r50x1.in21k_ft_cifar10")
    absent = LARGE.format(name="absent", model="bit_r50x1.in21k")
    served = SERVED + "version = 2\n"
    recipe = write_recipe(tmp_path / "recipe", broken + served + absent)
    status, document, errors = run(recipe, out, BIT_KERAS_WEIGHTS=str(weights))
    assert status == 1
    assert [outcome["record"] is not None for outcome in document] == [False, True, False]
    assert "Error: broken: " in errors
    assert "BiT-M-R50x1-CIFAR10.npz" in errors
    assert f"Error: absent: BIT_KERAS_WEIGHTS names the folder {weights}" in errors
    assert "2 of 3 artifacts could not be built; the same command tries them again." in errors
    assert "Traceback" not in errors
    assert [path.name for path in (out / "models").iterdir()] == ["tiny_served"]
    assert len(json.loads((out / "manifest.json").read_text("utf-8"))["models"]) == 1
    artifact = out / "models" / "tiny_served"
    assert tree(artifact / "2") == tree(built / "models" / "tiny_served" / "1")

    # Another version takes the place of the first. Another folder, two runs: the same bytes.
    recipe = write_recipe(tmp_path / "recipe", CLASSIFIER + SERVED)
    status, document, errors = run(recipe, out)
    assert status == 0, errors
    assert None not in [outcome["seconds"] for outcome in document]
    assert tree(out) == tree(built)


# What is rebuilt and when, without building it


class WorkerThatOnlyCounts:
    """Takes the place of a child: fails after a moment, and knows how many there were at once."""

    lock = threading.Lock()

    def __init__(self, job):
        self.started.append(job.item.name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()

    def result(self, show):
        show("Reading")
        with self.lock:
            self.running.append(self)
            self.most[0] = max(self.most[0], len(self.running))
        time.sleep(0.3)
        with self.lock:
            self.running.remove(self)
        raise ExportError("It was not built.")

    def stop(self):
        pass


@pytest.fixture
def worker(monkeypatch):
    class Worker(WorkerThatOnlyCounts):
        started, running, most = [], [], [0]

    monkeypatch.setattr(builder, "start_build", Worker)
    return Worker


def started_for(recipe, folder, worker, memory=None):
    outcomes = build_collection(recipe, folder, memory)
    assert [o.item.name for o in outcomes if o.error] == sorted(worker.started)
    return worker.started


def test_what_is_there_and_current_is_kept(recipe, copy, worker):
    assert started_for(Recipe.read(recipe), copy, worker) == []


CHANGES = {
    "archive deleted": lambda folder: (folder / "tiny_classifier.tar.gz").unlink(),
    "archive cut short": lambda folder: os.truncate(folder / "tiny_classifier.tar.gz", 1000),
    "SavedModel cut short": lambda folder: os.truncate(folder / "1" / "saved_model.pb", 1000),
    "SavedModel deleted": lambda folder: shutil.rmtree(folder / "1"),
    "record deleted": lambda folder: (folder / "record.json").unlink(),
    "record of something else": lambda folder: (folder / "record.json").write_text("{}"),
    "no record": lambda folder: (folder / "record.json").write_text("not JSON"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_only_what_is_damaged_is_built_again(recipe, copy, worker, change):
    change(copy / "models" / "tiny_classifier")
    assert started_for(Recipe.read(recipe), copy, worker) == ["tiny_classifier"]
    manifest = json.loads((copy / "manifest.json").read_text())
    assert [record["name"] for record in manifest["models"]] == ["tiny_served"]


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"variant": "classification"},
        {"precision": "float32"},
        {"size": 64},
        {"size": None},
        {"target": "hub", "precision": "float32"},
        {"archive": "other.tar.gz"},
    ],
    ids=str,
)
def test_only_what_the_recipe_changes_is_built_again(recipe, copy, worker, fields):
    recipe = Recipe.read(recipe)
    items = (recipe.items[0], dataclasses.replace(recipe.items[1], **fields))
    recipe = dataclasses.replace(recipe, items=items)
    assert started_for(recipe, copy, worker) == ["tiny_served"]


@pytest.mark.parametrize("field", ["weights_sha256", "versions"])
def test_other_weights_and_other_packages_are_noticed(recipe, copy, worker, field):
    path = copy / "models" / "tiny_served" / "record.json"
    document = json.loads(path.read_text())
    document[field] = {"weights_sha256": "0" * 64, "versions": {"keras": "3.0.0"}}[field]
    path.write_text(json.dumps(document))
    assert started_for(Recipe.read(recipe), copy, worker) == ["tiny_served"]


def test_what_is_there_stays_when_its_weights_cannot_be_had(
    recipe, copy, worker, monkeypatch, caplog
):
    def fail(checkpoint):
        raise DownloadError("no connection")

    monkeypatch.setattr(builder, "_weights_digest", fail)
    with caplog.at_level("INFO", "bit_keras"):
        assert started_for(Recipe.read(recipe), copy, worker) == []
    assert "tiny_served is kept without a look at its weights: no connection" in caplog.text


def test_what_the_recipe_no_longer_names_stays_but_is_not_listed(recipe, copy, worker, caplog):
    recipe = Recipe.read(recipe)
    with caplog.at_level("INFO", "bit_keras"):
        build_collection(dataclasses.replace(recipe, items=recipe.items[:1]), copy)
    assert "tiny_served, which the recipe does not name" in caplog.text
    assert (copy / "models" / "tiny_served" / "record.json").is_file()
    manifest = json.loads((copy / "manifest.json").read_text())
    assert [record["name"] for record in manifest["models"]] == ["tiny_classifier"]
    assert not (copy / "pages" / "huggingface" / "tiny_served").exists()


def test_the_manifest_is_absent_while_something_is_built(recipe, copy, worker, monkeypatch):
    seen = []
    monkeypatch.setattr(
        worker, "__init__", lambda self, *job: seen.append((copy / "manifest.json").exists())
    )
    (copy / "models" / "tiny_served" / "record.json").unlink()
    build_collection(Recipe.read(recipe), copy)
    assert seen == [False]


def test_what_killed_processes_left_is_removed(recipe, copy, worker, built):
    for name in (".tiny.complete", "..tiny.complete.x7.partial", ".tiny.old"):
        (copy / "models" / name / "1").mkdir(parents=True)
    build_collection(Recipe.read(recipe), copy)
    assert tree(copy) == tree(built)


# Memory


def many(recipe, count):
    recipe = Recipe.read(recipe)
    items = [dataclasses.replace(recipe.items[0], name=f"tiny_{n}") for n in range(count)]
    return dataclasses.replace(recipe, items=tuple(items))


def test_as_many_are_built_at_once_as_fit(recipe, worker, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "available_cores", lambda: 3)
    recipe = many(recipe, 6)
    need = estimated_memory(recipe.items[0])
    for memory, most in ((need, 1), (2 * need, 2), (100 * need, 3)):
        worker.most[0] = 0
        outcomes = build_collection(recipe, tmp_path / str(most), memory)
        assert worker.most[0] == most
        assert [outcome.error for outcome in outcomes] == ["It was not built."] * 6


def test_what_does_not_fit_is_refused_before_anything_starts(recipe, worker, tmp_path):
    item = Item("large", "bit_r152x4.in21k_ft_in1k", archive="large.tar.gz")
    recipe = Recipe.read(recipe)
    recipe = dataclasses.replace(recipe, items=(*recipe.items, item))
    with pytest.raises(ExportError, match=r"large needs \d+\.\d GB of memory, and 2\.0 GB may"):
        build_collection(recipe, tmp_path / "collection", 2 * 10**9)
    assert worker.started == []


@pytest.mark.parametrize(
    ("item", "measured"),
    [
        (Item("a", "bit_tiny.cifar10"), 825_384_960),
        (Item("a", "bit_r50x1.distilled_in1k_160"), 1_125_867_520),
        (Item("a", "bit_r50x1.distilled_in1k_224", target="serving"), 1_281_519_616),
        (Item("a", "bit_r152x2.teacher_in1k_384"), 4_696_559_616),
        (Item("a", "bit_r152x2.teacher_in1k_384", target="serving"), 5_818_118_144),
        (Item("a", "bit_r50x3.in21k", target="serving"), 6_040_461_312),
        (Item("a", "bit_r101x3.in21k_ft_in1k"), 6_410_129_408),
    ],
)
def test_the_estimate_is_above_what_was_measured_and_not_far(item, measured):
    assert measured * 1.05 < estimated_memory(item) < measured * 1.35


# What a user can do wrong


def fails(*arguments):
    """Runs a command that must fail; returns its one sentence."""
    result = CliRunner().invoke(main, ["collection", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    return result.stderr


def test_mistakes_give_a_sentence_and_start_nothing(recipe, worker, tmp_path):
    assert "The packaged recipes are" in fails(tmp_path / "absent.toml", "--out", tmp_path / "c")
    text = recipe.read_text("utf-8").replace("bit_tiny.cifar10", "bit_tiny.cifar11")
    (tmp_path / "wrong.toml").write_text(text, "utf-8")
    assert "There is no model 'bit_tiny.cifar11'" in fails(
        tmp_path / "wrong.toml", "--out", tmp_path / "c"
    )
    assert "may be taken; allow more with --memory" in fails(
        recipe, "--out", tmp_path / "c", "--memory", "500MB"
    )
    missing = tmp_path / "no" / "where"
    assert f"{missing.parent} does not exist" in fails(recipe, "--out", missing)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    assert "thesis.txt and is not a collection" in fails(recipe, "--out", tmp_path / "thesis")
    assert "is a file" in fails(recipe, "--out", tmp_path / "wrong.toml")
    assert worker.started == []
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("memory", ["20", "20 giraffes", "GB", "-1GB", "20gb"])
def test_an_amount_of_memory_has_a_unit(recipe, tmp_path, memory):
    arguments = ["collection", str(recipe), "--out", str(tmp_path / "c"), f"--memory={memory}"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "write it like 20GB or 8000MB" in result.stderr


@pytest.mark.parametrize(
    ("memory", "number"),
    [("20GB", 20 * 10**9), ("1.5 GiB", 3 * 2**29), ("8000MB", 8 * 10**9), ("8MiB", 2**23)],
)
def test_memory_is_taken_in_the_units_that_people_write(
    recipe, tmp_path, monkeypatch, memory, number
):
    taken = []
    monkeypatch.setattr(
        "bit_keras.collection.build_collection", lambda *arguments: taken.append(arguments[2]) or []
    )
    arguments = ["collection", str(recipe), "--out", str(tmp_path / "c"), f"--memory={memory}"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert taken == [number]


def test_two_processes_do_not_build_in_one_folder(recipe, copy, worker):
    with filelock.FileLock(copy / ".lock"):
        sentence = fails(recipe, "--out", copy)
    assert f"Another process builds a collection in {copy}" in sentence
    assert fails_not(recipe, copy)


def fails_not(recipe, out):
    result = CliRunner().invoke(main, ["collection", str(recipe), "--out", str(out)])
    return result.exit_code == 0


def test_the_table_shows_each_artifact(recipe, copy, worker):
    (copy / "models" / "tiny_served" / "record.json").unlink()
    result = CliRunner().invoke(main, ["collection", str(recipe), "--out", str(copy)])
    assert result.exit_code == 1
    classifier, served = [line.split() for line in result.stdout.splitlines()[1:]]
    assert classifier[:3] == ["tiny_classifier", "hub", "classification"]
    assert classifier[-1] == "kept"
    assert served == ["tiny_served", "serving", "feature_extraction", "failed"]
    assert "Error: tiny_served: It was not built." in result.stderr


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: flip(c / "models/tiny_classifier/tiny_classifier.tar.gz"), "sha256"),
        (lambda c: flip(c / "models/tiny_classifier/1/saved_model.pb"), "saved_model.pb in"),
        (
            lambda c: (c / "models/tiny_classifier/1/assets/x").write_text("x"),
            "and the manifest says",
        ),
        (lambda c: (c / "models/tiny_classifier/record.json").unlink(), "cannot be read"),
        (lambda c: shutil.rmtree(c / "models" / "tiny_classifier"), "cannot be read"),
        (lambda c: (c / "manifest.json").unlink(), "bit-keras collection"),
        (lambda c: (c / "manifest.json").write_text("[]"), "must be an object"),
        (
            lambda c: (c / "manifest.json").write_text('{"collection": {}, "models": []}'),
            "is not the manifest of a collection",
        ),
        (
            lambda c: (c / "manifest.json").write_text(
                (c / "manifest.json").read_text().replace('"outputs": 10', '"outputs": 11')
            ),
            "is not what .* lists",
        ),
    ],
)
def test_verify_finds_what_is_damaged(copy, change, sentence):
    change(copy)
    with pytest.raises(ExportError, match=sentence):
        list(verify_collection(copy))


def test_other_folders_are_not_collections(tmp_path, classifier_artifact):
    assert not is_collection(tmp_path)
    assert not is_collection(classifier_artifact)


# Interruptions

on_linux = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="Processes are looked for in Linux's /proc."
)


def processes_of(out):
    """The ids of all processes of a command, by what stands in their environment."""
    mark, found = f"{MARK}={out}\0".encode(), set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes() + b"\0":
                found.add(int(path.parent.name))
    return found


def wait_until(condition, seconds):
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)
    return condition()


@on_linux
@pytest.mark.parametrize(
    "has_begun",
    [lambda out: len(processes_of(out)) >= 3, lambda out: any(out.glob("models/.*.partial/.1.*"))],
    ids=["workers start", "a SavedModel is written"],
)
def test_ctrl_c_ends_every_process_and_says_how_to_continue(recipe, tmp_path, has_begun):
    process = start(recipe, tmp_path / "c")
    assert wait_until(lambda: has_begun(tmp_path / "c"), 60)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output == ""
    assert errors == "Interrupted; the same command continues where it stopped.\n"
    assert wait_until(lambda: not processes_of(tmp_path / "c"), 10)
    assert list((tmp_path / "c" / "models").iterdir()) == []


@on_linux
def test_a_worker_that_is_killed_fails_only_its_artifact(recipe, built, tmp_path):
    out = tmp_path / "collection"
    process = start(recipe, out)
    assert wait_until(lambda: list(out.glob("models/*served*/1*/saved_model.pb")), 120)
    pids = [
        pid
        for pid in processes_of(out)
        if pid != process.pid and "build_artifact" in command_of(pid)
    ]
    os.kill(min(pids), signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "SIGKILL" in errors
    assert sorted(outcome["record"] is None for outcome in json.loads(output)) == [False, True]
    assert [path.name for path in out.rglob(".*")] == [".lock"]
    assert run(recipe, out)[0] == 0
    assert tree(out) == tree(built)


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@on_linux
@pytest.mark.parametrize(
    ("times", "models"),
    [
        (2, CLASSIFIER + EXTRACTOR),
        pytest.param(10, CLASSIFIER + SERVED + EXTRACTOR, marks=pytest.mark.full),
    ],
)
def test_killed_at_any_moment_it_shows_complete_artifacts_and_ends_with_the_same(
    tmp_path, times, models
):
    recipe = write_recipe(tmp_path / "recipe", models)
    begin = time.monotonic()
    assert run(recipe, tmp_path / "undisturbed")[0] == 0
    duration, want = time.monotonic() - begin, tree(tmp_path / "undisturbed")

    chance, kills, folders = random.Random(0), 0, 0
    while kills < times:
        out = tmp_path / f"disturbed_{folders}"
        process = start(recipe, out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(chance.uniform(0, duration))
        if process.poll() is None:
            kills += 1
            # Only the command, or with it everything that it has started.
            kill(process, processes_of(out) if chance.random() < 0.5 else ())
            assert wait_until(lambda out=out: not processes_of(out), 10)
            require_whole_artifacts(out, want)
        else:  # It ended before the random moment: another folder is used.
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            assert tree(out) == want
            folders += 1
    out = tmp_path / f"disturbed_{folders}"
    status, _, errors = run(recipe, out)
    assert status == 0, errors
    assert tree(out) == want


def kill(process, others):
    for pid in (process.pid, *others):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def require_whole_artifacts(out, want):
    """Every visible artifact is the undisturbed one; a manifest is there only at the end."""
    if not (out / "models").exists():
        return
    for folder in (out / "models").iterdir():
        if not folder.name.startswith("."):
            prefix = f"models/{folder.name}/"
            expected = {
                name.removeprefix(prefix): content
                for name, content in want.items()
                if name.startswith(prefix)
            }
            assert tree(folder) == expected
    if (out / "manifest.json").exists():
        assert (out / "manifest.json").read_bytes() == want["manifest.json"]


def test_a_job_survives_the_way_to_its_process():
    item = Item("a", "bit_tiny.cifar10", target="serving", size=64, archive="a.tar.gz")
    job = Job(item, "collection/models/a", "0" * 64)
    assert typed(json.loads(json.dumps(dataclasses.asdict(job))), Job) == job
