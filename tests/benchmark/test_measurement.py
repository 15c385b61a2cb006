"""Entries in processes of their own: who finishes, who fails, and that all of them end."""

import dataclasses
import os
import signal
import time

import keras
import pytest

from bit_keras.benchmark import artifact_entry, run_benchmark
from bit_keras.benchmark.entries import Entry, Network
from bit_keras.benchmark.entry_process import start_entry
from bit_keras.benchmark.measurement import PEAK, steps_of
from bit_keras.errors import BitKerasError, CheckpointError, ExportError, ProcessError

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="SavedModels need the TensorFlow backend."
)

TINY = Network("bit_tiny.cifar10", 64, 64, 10)


def is_running(process_id):
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def started(monkeypatch):
    """The processes that a benchmark starts, as they are started."""
    processes = []

    def start(*arguments):
        processes.append(start_entry(*arguments))
        return processes[-1]

    monkeypatch.setattr("bit_keras.benchmark.measurement.start_entry", start)
    return processes


@pytest.mark.long
def test_artifacts_and_failures_are_rows_of_one_run(classifier_artifact, started):
    tiny = artifact_entry(classifier_artifact, "tiny")
    missing = dataclasses.replace(tiny, name="missing", path="nowhere")
    unmade = Entry("unmade", TINY, "TFLite", "int8", failure="It could not be exported.")
    entries = [unmade, tiny, missing]
    steps = []
    benchmark = run_benchmark(entries, (1, 3), 1, rounds=2, advance=steps.append)
    assert len(steps) == steps_of(entries, (1, 3), 2)
    assert [(row.entry.name, row.batch, len(row.seconds)) for row in benchmark.rows] == [
        ("unmade", 1, 0),
        ("tiny", 1, 2),
        ("missing", 1, 0),
        ("unmade", 3, 0),
        ("tiny", 3, 2),
        ("missing", 3, 0),
    ]
    assert benchmark.rows[0].failure == "It could not be exported."
    assert benchmark.rows[1].failure is None
    assert "nowhere" in benchmark.rows[2].failure
    assert benchmark.engines["tiny"].startswith("TensorFlow ")
    assert benchmark.reference(1).entry is tiny
    assert all(benchmark.share(row) > 0 for row in benchmark.rows if row.seconds)
    assert len(started) == 3
    assert not any(is_running(process.id) for process in started)


@pytest.mark.long
def test_who_is_killed_is_a_row_with_the_reason(classifier_artifact, started):
    entries = [artifact_entry(classifier_artifact, name) for name in ("first", "second")]

    def kill_the_second(step):
        if step == "batch 1, round 1 of 3":
            os.kill(started[2].id, signal.SIGKILL)

    benchmark = run_benchmark(entries, (1,), 1, rounds=3, advance=kill_the_second)
    first, second = benchmark.rows
    assert len(first.seconds) == 3
    assert second.seconds == ()
    assert "SIGKILL" in second.failure


@pytest.mark.long
def test_an_interrupted_benchmark_leaves_no_process(classifier_artifact, started):
    def interrupt(step):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark([artifact_entry(classifier_artifact)], (1,), 1, advance=interrupt)
    assert started
    assert not any(is_running(process.id) for process in started)


@pytest.mark.long
def test_a_process_ends_when_its_standard_input_does():
    process = start_entry(PEAK, 1)
    assert process.result(60).startswith("TensorFlow ")
    process._process.stdin.close()
    process._process.wait(20)
    process.stop()


def test_a_stuck_process_is_not_waited_for(classifier_artifact):
    process = start_entry(artifact_entry(classifier_artifact), 1)
    start = time.monotonic()
    with pytest.raises(ProcessError, match="took longer than 0 seconds"):
        process.result(0.01)
    process.stop()
    assert time.monotonic() - start < 20
    assert not is_running(process.id)


@pytest.mark.parametrize("numbers", [{"rounds": 0}, {"threads": 0}, {"batches": (1, 0)}])
def test_numbers_count_from_one(numbers):
    with pytest.raises(BitKerasError, match="must be at least 1"):
        run_benchmark([], **numbers)


def test_names_are_different(classifier_artifact):
    entry = artifact_entry(classifier_artifact)
    with pytest.raises(BitKerasError, match="was given twice"):
        run_benchmark([entry, entry])


def test_an_entry_is_what_the_artifact_says(classifier_artifact, extractor_artifact, tmp_path):
    entry = artifact_entry(classifier_artifact, "tiny")
    assert (entry.network, entry.format) == (TINY, "SavedModel")
    assert Entry.from_json(entry.to_json()) == entry
    extractor = artifact_entry(extractor_artifact)
    assert extractor.network.classes is None
    assert entry.network.multiply_adds - extractor.network.multiply_adds == 1024 * 10
    with pytest.raises(CheckpointError, match="nowhere"):
        artifact_entry(tmp_path / "nowhere")
    with pytest.raises(ExportError, match="was not exported by bit_keras"):
        artifact_entry(tmp_path)
