"""What follows from given times: medians, shares, ratios, an image and a document."""

import json

import pytest
from PIL import Image

from bit_keras.benchmark import Benchmark, Entry
from bit_keras.benchmark.entries import Network
from bit_keras.benchmark.machine import Machine
from bit_keras.benchmark.plot import write_plot
from bit_keras.benchmark.result import COLUMNS, Row, cells_of, ratio_to
from bit_keras.errors import BitKerasError

NETWORK = Network("bit_r50x1.distilled_in1k_224", 224, 224, 1000)
MACHINE = Machine("A processor", 2, ("avx2",), "Linux", {"python": "3.11"})


def row(name, seconds, batch=1, format="TFLite", failure=None):
    return Row(Entry(name, NETWORK, format, "float32"), batch, tuple(seconds), failure)


def benchmark(*rows, matrix_seconds=None):
    return Benchmark(
        machine=MACHINE,
        threads=2,
        rounds=4,
        seed=0,
        engines={"a": "An engine 1.0"},
        rows=rows,
        matrix_side=1000,
        matrix_seconds={1: (0.02, 0.01, 0.03)} if matrix_seconds is None else matrix_seconds,
    )


def test_a_ratio_is_the_median_of_the_rounds_and_not_of_the_times():
    # The machine was twice as slow in the second and third round, for both.
    assert ratio_to([1.0, 2.0, 2.0, 1.0], [0.5, 1.0, 1.0, 0.5]) == 2.0
    assert ratio_to([1.0, 2.0, 3.0], [3.0, 1.0, 2.0]) == 1.5
    with pytest.raises(ValueError):
        ratio_to([1.0], [1.0, 2.0])


def test_a_row_counts_images_and_operations():
    found = row("a", [0.5, 0.1, 0.2, 0.4, 0.3], batch=8)
    assert found.median == 0.3
    assert found.images_per_second == pytest.approx(8 / 0.3)
    assert found.spread == pytest.approx((0.14, 0.46))
    # R50x1 at 224 is 4.09 billion multiply-adds.
    assert found.flops == pytest.approx(2 * 4.089e9 * 8 / 0.3, rel=1e-3)


def test_the_peak_is_the_fastest_product_and_shares_are_of_it():
    found = benchmark(row("a", [0.1]))
    assert found.peak(1) == pytest.approx(2e9 / 0.01)
    assert found.share(found.rows[0]) == pytest.approx(2 * 4.089e9 / 0.1 / 2e11, rel=1e-3)
    without = benchmark(row("a", [0.1]), matrix_seconds={})
    assert without.peak(1) is None
    assert without.share(without.rows[0]) is None


def test_ratios_are_to_the_first_that_has_times():
    found = benchmark(row("broken", [], failure="It fell."), row("a", [0.2]), row("b", [0.1]))
    assert [found.ratio(row) for row in found.rows[1:]] == [1.0, 2.0]


def test_a_document_contains_every_time():
    found = benchmark(row("a", [0.2, 0.4]), row("b", [], failure="It fell."))
    document = json.loads(json.dumps(found.to_json()))
    assert document["machine"]["processor"] == "A processor"
    assert document["matrix_product"]["batches"][0]["seconds"] == [0.02, 0.01, 0.03]
    first, second = document["rows"]
    assert first["seconds"] == [0.2, 0.4]
    assert first["ratio_to_first"] == 1.0
    assert first["engine"] == "An engine 1.0"
    assert first["model"] == NETWORK.model
    assert second["failure"] == "It fell."
    assert "seconds" not in second


def test_the_cells_of_a_table_fit_its_columns():
    found = benchmark(row("a", [0.0123, 0.0123, 0.0123]))
    cells = dict(zip(COLUMNS, cells_of(found, found.rows[0]), strict=True))
    assert cells["ms"] == "12.3"
    assert cells["images/s"] == "81.3"
    assert cells["to the first"] == "1.00"


def test_a_plot_is_written_atomically_and_replaces_another(tmp_path):
    found = benchmark(row("a", [0.2, 0.4]), row("b", [0.1, 0.1], format="PyTorch"))
    path = tmp_path / "speed.png"
    path.write_text("an old one")
    write_plot(found, path)
    with Image.open(path) as image:
        image.load()
        assert image.width > 600
    assert list(tmp_path.iterdir()) == [path]


def test_a_plot_needs_times(tmp_path):
    with pytest.raises(BitKerasError, match="No entry has times"):
        write_plot(benchmark(row("a", [], failure="It fell.")), tmp_path / "speed.png")
    with pytest.raises(BitKerasError, match=r"end in \.png"):
        write_plot(benchmark(row("a", [0.2])), tmp_path / "speed.jpg")
    assert not list(tmp_path.iterdir())
