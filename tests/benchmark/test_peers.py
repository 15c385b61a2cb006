"""Peers: the same network in other programs, or the reason why not."""

import keras
import pytest

from bit_keras.benchmark import run_benchmark
from bit_keras.benchmark.entries import Network
from bit_keras.benchmark.peers import peer_entries

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="The peers' file needs the exporters."
)

NAMES = [
    *("timm", "timm, bfloat16", "transformers", "transformers, bfloat16"),
    *("ONNX Runtime", "OpenVINO", "OpenVINO, bfloat16", "OpenVINO, int8"),
]


@pytest.mark.long
def test_peers_are_measured_or_say_why_not(tmp_path):
    pytest.importorskip("onnx", reason="two of the peers run an ONNX file")
    pytest.importorskip("transformers", reason="one of the peers")
    entries = peer_entries([Network("bit_tiny.cifar10", 64, 64, 10)], tmp_path, 1)
    assert [entry.name for entry in entries] == NAMES
    assert all(entry.peer for entry in entries)
    # Half of them: every precision of a program is loaded by the same lines.
    some = [entry for entry in entries if entry.precision != "bfloat16"]
    rows = run_benchmark(some, (2,), 1, rounds=1).rows
    failures = {row.entry.name: row.failure for row in rows if row.failure}
    assert set(failures) <= {"timm", "OpenVINO, int8"}
    # Where it is installed, it has no network as small as this one.
    assert failures["timm"] in (
        "timm is not installed.",
        "timm does not have the network bit_tiny.",
    )
    if "OpenVINO, int8" in failures:
        assert "nncf: pip install 'bit_keras[benchmark]'" in failures["OpenVINO, int8"]
