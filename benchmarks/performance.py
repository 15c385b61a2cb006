"""Every format next to its peers, in one interleaved run; writes docs/performance.md.

    python benchmarks/performance.py [--batch 1 8] [--threads 2] [--rounds 20]
        [--model bit_r50x1.distilled_in1k_224] [--out docs]

Exports the network in every format with the same reproducible weights, in the layout of
the official file, and measures all of them with `bit_keras.benchmark`. The page and its
figure show nothing but what was measured. What cannot be exported is named with the
reason.
"""

import argparse
import concurrent.futures
import multiprocessing
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bit_keras.artifacts.reference import REFERENCE_SIZE, reference_images
from bit_keras.atomic import replaced_file
from bit_keras.benchmark import Benchmark, Entry, artifact_entry, run_benchmark
from bit_keras.benchmark.entries import FORMATS, Network
from bit_keras.benchmark.peers import peer_entries
from bit_keras.benchmark.plot import write_plot
from bit_keras.benchmark.result import COLUMNS, Row, cells_of, ratio_to
from bit_keras.cli.printing import progress, start_keras
from bit_keras.registry import model_info

PAGE, PICTURE = "performance.md", "performance.png"

#: Target and precision of what is exported, by the name that the page calls it.
FORMS = {
    "TFLite": ("tflite", "float32"),
    "TFLite, float16": ("tflite", "float16"),
    "TFLite, dynamic": ("tflite", "dynamic"),
    "TFLite, int8": ("tflite", "int8"),
    "TFLite, int8-pure": ("tflite", "int8-pure"),
    "SavedModel (hub)": ("hub", "float32"),
    "SavedModel (serving)": ("serving", "float32"),
    "SavedModel (serving), bfloat16": ("serving", "bfloat16"),
    "ONNX": ("onnx", "float32"),
    "ONNX, int8": ("onnx", "int8"),
    "OpenVINO IR": ("openvino", "float32"),
}

#: Images to calibrate with: random weights have no accuracy to lose.
CALIBRATION_IMAGES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--model", default="bit_r50x1.distilled_in1k_224")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    arguments = parser.parse_args()

    checkpoint = model_info(arguments.model)
    size = checkpoint.size or REFERENCE_SIZE
    network = Network(checkpoint.name, size, size, checkpoint.classes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = [exported(form, network, folder) for form in FORMS]
        with progress("Writing the files of the peers"):
            entries += peer_entries([network], folder, arguments.threads)
        with progress("Loading") as status:
            benchmark = run_benchmark(
                entries,
                arguments.batch,
                arguments.threads,
                arguments.rounds,
                advance=lambda step: status.update(step),
            )
    write_plot(benchmark, arguments.out / PICTURE)
    with replaced_file(arguments.out / PAGE) as partial:
        partial.write_text(page(benchmark, shlex.join(["python", *sys.argv])), "utf-8")


def exported(form: str, network: Network, folder: Path) -> Entry:
    """The artifact of a form, or the reason why there is none.

    A process of its own exports it: what one leaves in memory does not slow the next.
    """
    target, precision = FORMS[form]
    path = folder / f"{target}-{precision}{SUFFIXES.get(target, '')}"
    context = multiprocessing.get_context("spawn")
    with (
        progress(f"Exporting {form}"),
        concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool,
    ):
        try:
            pool.submit(export, target, precision, network, path).result()
            return artifact_entry(path, form)
        # Whatever an exporter raises, or the end of its process, is the reason in its row.
        except Exception as error:
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            return Entry(form, network, FORMATS[target], precision, failure=reason)


SUFFIXES = {"tflite": ".tflite", "onnx": ".onnx"}


def export(target: str, precision: str, network: Network, path: Path) -> None:
    """Writes one artifact of a network with reproducible weights."""
    start_keras()
    import bit_keras
    from bit_keras.checkpoints import fill_with_seeded_values

    model = bit_keras.create_classifier(network.model, weights=None)
    fill_with_seeded_values(model)
    EXPORTERS[target](model, path, precision, network.height)


def export_saved_model(model: object, path: Path, precision: str, size: int) -> None:
    from bit_keras.exporters.serving import export_serving

    export_serving(model, path, size=size, precision=precision, batch_sizes=())


def export_hub(model: object, path: Path, precision: str, size: int) -> None:
    from bit_keras.exporters import hub

    hub.export_hub(model, path)


def export_tflite(model: object, path: Path, precision: str, size: int) -> None:
    from bit_keras.exporters import tflite

    tflite.export_tflite(model, path, size=size, **quantization(precision, size))


def export_onnx(model: object, path: Path, precision: str, size: int) -> None:
    from bit_keras.exporters import onnx

    onnx.export_onnx(model, path, size=size, **quantization(precision, size))


def export_openvino(model: object, path: Path, precision: str, size: int) -> None:
    from bit_keras.exporters import openvino_ir

    openvino_ir.export_openvino(model, path, size=size)


EXPORTERS: dict[str, Callable[[object, Path, str, int], None]] = {
    "tflite": export_tflite,
    "hub": export_hub,
    "serving": export_saved_model,
    "onnx": export_onnx,
    "openvino": export_openvino,
}


def quantization(precision: str, size: int) -> dict:
    """The options of an exporter that make a precision."""
    if precision == "float32":
        return {}
    if not precision.startswith("int8"):
        return {"quantize": precision}
    images = reference_images(size, size, (-1.0, 1.0))[np.arange(CALIBRATION_IMAGES) % 2]
    return {"quantize": precision, "calibration": images}


def page(benchmark: Benchmark, command: str) -> str:
    """The text of docs/performance.md."""
    network = benchmark.rows[0].entry.network
    machine = benchmark.machine
    sections = [
        "# Performance",
        f"How fast {network.model} classifies images of {network.height} x {network.width} pixels "
        f"({network.multiply_adds / 1e9:.2f} billion multiply-adds each), in every format that "
        "`bit-keras export` writes and in other programs. The weights are random: speed does "
        "not depend on them.",
        f"![Images per second]({PICTURE})",
        *(batch_section(benchmark, batch) for batch in benchmark.batches),
        missing_section(benchmark),
        READING.format(
            rounds=benchmark.rounds, seed=benchmark.seed, side=benchmark.matrix_side
        ).strip(),
        "## Where and with what",
        f"{machine.processor}, {machine.cores} cores, {machine.system}; "
        f"{benchmark.threads} threads for every entry."
        + (f" Instructions: {', '.join(machine.instructions)}." if machine.instructions else ""),
        ", ".join(f"{name} {version}" for name, version in machine.versions.items()) + ".",
        f"```sh\n{command}\n```",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


READING = """
## How to read it

Every entry runs in a process of its own, and takes and returns NumPy arrays; networks of PyTorch
take tensors. After warming up there are {rounds} rounds. In each, every entry has one turn, in
a new random order (seed {seed}), while the others sleep: a call that is not timed, then one that
is. `ms` is the median of the timed calls, and the next column the range of the middle eight tenths.

The peak is the fastest product of two float32 matrices of {side} x {side} by TensorFlow (oneDNN) in
the same rounds. A share counts the multiply-adds of the convolutions and the head as two operations
each, and nothing for normalisation. What computes in fewer bits than float32 can be above 100 %.

Ratios are of images per second: the median of the ratios within a round. Machines drift from
minute to minute; times of one round are close together.

ONNX Runtime and OpenVINO, as peers, run an ONNX file of the same network with folded kernels and a
fixed size, as `bit-keras` writes it; OpenVINO compiles it for each batch size, and its int8 is
quantised by NNCF. timm and transformers run in PyTorch's eager mode, bfloat16 by autocast.
"""


def batch_section(benchmark: Benchmark, batch: int) -> str:
    """What was measured at a batch size, and how the formats stand to the peers."""
    rows = [row for row in benchmark.at(batch) if row.seconds]
    peak = benchmark.peak(batch)
    parts = [f"## Batch {batch}"]
    if peak is not None:
        parts.append(f"The machine's peak: {peak / 1e9:.0f} GFLOP/s in float32.")
    parts.append(markdown(COLUMNS, [cells_of(benchmark, row) for row in rows]))
    peers = [row for row in rows if row.entry.peer]
    own = [row for row in rows if not row.entry.peer]
    if peers and own:
        parts.append("How many times as fast as each peer:")
        header = ("", *(peer.entry.name for peer in peers))
        parts.append(markdown(header, [ratios_to_peers(row, peers) for row in own]))
    return "\n\n".join(parts)


def ratios_to_peers(row: Row, peers: list[Row]) -> tuple[str, ...]:
    ratios = (f"{ratio_to(peer.seconds, row.seconds):.2f}" for peer in peers)
    return (row.entry.name, *ratios)


def missing_section(benchmark: Benchmark) -> str:
    """Who could not take part, and why."""
    failures = {f"- {row.entry.name}: {row.failure}": None for row in benchmark.rows if row.failure}
    return "\n".join(["Without times:\n", *failures]) if failures else ""


def markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table whose numbers stand on the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [" | ".join(cells) for cells in (header, rule, *rows)]
    return "\n".join(f"| {line} |" for line in lines)


if __name__ == "__main__":
    main()
