"""Metadata that were tampered with: every reader raises the package's own error, or reads them."""

import dataclasses
import json
import os
import random
import shutil

import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.members import METADATA
from bit_keras.artifacts.metadata import Metadata
from bit_keras.collection.manifest import Manifest
from bit_keras.collection.record import Record
from bit_keras.errors import BitKerasError
from bit_keras.preprocessing import ClassifierSpec, spec_of
from bit_keras.sources import read_run
from bit_keras.training import load_run
from tests.checkpoints.mutations import mutated

RECORD = {
    "name": "x",
    "version": 1,
    "model": "bit_tiny.cifar10",
    "target": "hub",
    "variant": "classification",
    "precision": "float32",
    "input_range": [-1, 1],
    "size": None,
    "outputs": 10,
    "signatures": {
        "serving_default": {
            "inputs": {"inputs": {"dtype": "float32", "shape": [None, None, None, 3]}},
            "outputs": {"logits": {"dtype": "float32", "shape": [None, 10]}},
        }
    },
    "bytes": 1,
    "archive": "x.tar.gz",
    "archive_bytes": 1,
    "archive_sha256": "ab",
    "difference": 1e-7,
    "tolerance": 1e-5,
    "weights_sha256": "cd",
    "versions": {"keras": "3"},
}
FIELDS = ("name", "title", "publisher", "publisher_title", "description", "archives")

VALUES = [None, True, -1, 0, 10**400, 1.5, "", "x" * 300, "../../x", [], [[]], {}, {"a": 1}]


def paths_in(document, path=()):
    """Where values are in a document of JSON."""
    items = ()
    if isinstance(document, dict):
        items = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    for key, value in items:
        yield (*path, key)
        yield from paths_in(value, (*path, key))


def with_other_values(document):
    """Each value replaced by each of `VALUES`, and omitted, and the whole document replaced."""
    yield from VALUES
    for path in paths_in(document):
        for value in [*VALUES, "omitted"]:
            changed = json.loads(json.dumps(document))
            *outer, key = path
            inner = changed
            for each in outer:
                inner = inner[each]
            if value == "omitted":
                del inner[key]
            else:
                inner[key] = value
            yield changed


@pytest.fixture
def artifact(tmp_path):
    spec = spec_of("bit_tiny.cifar10").to_json()
    metadata = Metadata(
        "bit_tiny.cifar10", "hub", "classification", "float32", False, (-1.0, 1.0), None, 10, spec,
        1e-5, {"keras": "3"},
    )  # fmt: skip
    (tmp_path / "artifact" / "assets.extra").mkdir(parents=True)
    (tmp_path / "artifact" / METADATA).write_text(metadata.to_json())
    return tmp_path / "artifact"


@pytest.fixture
def readers(artifact, tmp_path):
    """Each file of metadata, and what reads it."""
    run, collection = tmp_path / "run", tmp_path / "collection"
    run.mkdir()
    collection.mkdir()
    spec = json.loads((artifact / METADATA).read_text())["task"]
    document = {"model": "bit_tiny.cifar10", "options": {}, "rule": {}, "data": {}, "task": spec}
    (run / "run.json").write_text(json.dumps(document))
    manifest = {"collection": dict.fromkeys(FIELDS, "x"), "models": [RECORD]}
    (collection / "manifest.json").write_text(json.dumps(manifest))
    (collection / "record.json").write_text(json.dumps(RECORD))
    return {
        "artifact": (artifact / METADATA, lambda: Artifact(artifact).metadata),
        "run": (run / "run.json", lambda: load_run(run)),
        "manifest": (collection / "manifest.json", lambda: Manifest.read(collection)),
        "record": (
            collection / "record.json",
            lambda: Record.read(collection / "record.json"),
        ),
    }


FILES = ["artifact", "run", "manifest", "record"]


@pytest.mark.parametrize("name", FILES)
def test_values_of_other_types_are_refused(readers, name):
    file, read = readers[name]
    document, refused, count = json.loads(file.read_text()), 0, 0
    for changed in with_other_values(document):
        file.write_text(json.dumps(changed))
        count += 1
        try:
            read()
        except BitKerasError as error:
            assert len(str(error)) < 1500
            refused += 1
    assert refused > count * 0.5


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.full)])
def test_damaged_bytes_are_refused_or_read(readers, name, count):
    file, read = readers[name]
    seed = 0 if count < 2000 else random.SystemRandom().randrange(10**9)
    print("seed", seed)
    refused = 0
    for what, content in mutated(file.read_bytes(), count, seed):
        file.write_bytes(content)
        try:
            read()
        except BitKerasError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{what}, seed {seed}") from error
    assert refused > count // 3


def test_sizes_that_no_memory_has_are_refused(artifact):
    document = json.loads((artifact / METADATA).read_text())
    (artifact / METADATA).write_text(json.dumps({**document, "size": 10**9}))
    with pytest.raises(BitKerasError, match="size 1000000000"):
        _ = Artifact(artifact).metadata


def test_pipes_and_large_files_are_not_read(artifact):
    file = artifact / METADATA
    file.write_bytes(b" " * 6_000_000 + file.read_bytes())
    with pytest.raises(BitKerasError, match="4,000,000"):
        _ = Artifact(artifact).metadata
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BitKerasError, match="ordinary file"):
        _ = Artifact(artifact).metadata


def test_damaged_reference_outputs_are_refused(classifier_artifact, tmp_path):
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    shutil.copytree(classifier_artifact / "assets.extra", artifact / "assets.extra")
    file = artifact / "assets.extra" / "golden.npz"
    refused = 0
    for _, content in mutated(file.read_bytes(), 150):
        file.write_bytes(content)
        try:
            Artifact(artifact).read_reference()
        except BitKerasError:
            refused += 1
    assert refused > 75


def test_what_is_written_is_read(readers):
    for file, read in readers.values():
        if file.name != "run.json":
            assert read() is not None
    document = readers["run"][0].parent
    assert ClassifierSpec.from_json(read_run(document)["task"]).activation == "softmax"
    assert dataclasses.asdict(readers["record"][1]())["outputs"] == 10
