"""The commands, as a shell sees them: exit status, standard output, standard error."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.cli import main
from bit_keras.registry import ARCHITECTURES
from tests.cli.running import fails, run, run_in_a_shell

SAMPLES = Path(__file__).parents[2] / "demo" / "images"
CAT = str(SAMPLES / "cat.jpg")


@pytest.fixture(scope="module")
def artifact(tiny_npz, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "tiny"
    result = run("export", "bit_tiny.cifar10", "--to", "hub", "--weights", tiny_npz, "--out", path)
    assert result.exit_code == 0, result.output
    return path


# list and usage


def test_list_counts_the_vtab_networks_and_shows_the_others():
    output = run("list").stdout
    assert "bit_r152x2.teacher_in1k_384" in output
    assert "_run0" not in output
    assert "285 models fine-tuned on VTAB tasks" in output


def test_list_takes_a_pattern():
    assert json.loads(run("list", "*distilled*", "--json").stdout) == [
        "bit_r50x1.distilled_in1k_224",
        "bit_r50x1.distilled_in1k_160",
    ]
    assert len(json.loads(run("list", "--json").stdout)) == 314
    assert "No model matches 'zebra'" in fails("list", "zebra")


def test_wrong_usage_ends_with_2():
    assert run("export", "bit_tiny.cifar10").exit_code == 2
    assert run("export", "bit_tiny.cifar10", "--to", "floppy", "--out", "x").exit_code == 2
    assert run("nonsense").exit_code == 2
    assert run("predict", "bit_tiny.cifar10").exit_code == 2


# predict


def photo(encoding, folder):
    """The cat in another encoding that shows the same image."""
    image = Image.open(CAT).convert("RGB")
    path = folder / f"{encoding}.png"
    if encoding == "webp":
        path = path.with_suffix(".webp")
        image.save(path, lossless=True)
    elif encoding == "alpha":
        image.putalpha(7)
        image.save(path)
    elif encoding == "cmyk":
        path = path.with_suffix(".tiff")
        image.convert("CMYK").save(path)
    elif encoding == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return str(path)


def test_predict_reads_every_encoding_of_an_image(artifact, tmp_path):
    encodings = ("webp", "alpha", "cmyk", "rotated")
    paths = [photo(encoding, tmp_path) for encoding in encodings]
    documents = json.loads(run("predict", artifact, CAT, *paths, "--json").stdout)
    want = documents[0]["predictions"]
    assert len(want) == 5
    assert all(set(entry) == {"id", "label", "score"} for entry in want)
    for encoding, document in zip(encodings, documents[1:], strict=True):
        got = document["predictions"]
        assert [entry["label"] for entry in got] == [entry["label"] for entry in want], encoding
        for entry, expected in zip(got, want, strict=True):
            # Equal pixels; only the batch's order of float32 sums differs.
            assert entry["score"] == pytest.approx(expected["score"], abs=1e-5), encoding


def test_predict_reads_grey_images(artifact, tmp_path):
    Image.open(CAT).convert("L").save(tmp_path / "grey.jpg")
    output = run("predict", artifact, tmp_path / "grey.jpg", "--top", "3")
    assert output.exit_code == 0
    assert len(output.stdout.strip().splitlines()) == 4


@pytest.mark.slow
def test_predict_agrees_whatever_the_network_is_stored_as(artifact, tiny_npz, tmp_path):
    common = tmp_path / "common"
    options = ["--weights", tiny_npz, "--input-range", "0,1", "--out", common]
    assert run("export", "bit_tiny.cifar10", "--to", "hub", *options).exit_code == 0
    # A file that has the name of a checkpoint is known by it.
    named = shutil.copy(tiny_npz, tmp_path / "bit_tiny.cifar10.npz")
    assert run("convert", named, tmp_path / "a.keras", "--to", "keras").exit_code == 0
    outputs = [
        json.loads(run("predict", source, CAT, "--json").stdout)[0]["predictions"]
        for source in (artifact, common, tmp_path / "a.keras", tmp_path / "bit_tiny.cifar10.npz")
    ]
    for output in outputs[1:]:
        assert [entry["id"] for entry in output] == [entry["id"] for entry in outputs[0]]
        for got, want in zip(output, outputs[0], strict=True):
            assert got["score"] == pytest.approx(want["score"], rel=1e-4)


def test_one_broken_image_does_not_lose_the_others(artifact, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(CAT).read_bytes()[:300])
    result = run("predict", artifact, CAT, broken, "--json")
    assert result.exit_code == 1
    assert f"Error: {broken}" in result.stderr
    documents = json.loads(result.stdout)
    assert len(documents[0]["predictions"]) == 5
    assert str(broken) in documents[1]["error"]


def test_predict_names_what_is_wrong_with_its_source(artifact, tiny_npz, tmp_path):
    assert "is a folder without weights" in fails("predict", tmp_path, CAT)
    assert "There is no file" in fails("predict", tmp_path / "gone.keras", CAT)
    assert "Nor is there a file" in fails("predict", "bit_huge", CAT)
    assert "is not a checkpoint of the registry" in fails("predict", tiny_npz, CAT)
    text = tmp_path / "notes.keras"
    text.write_text("not a model")
    assert "is not a checkpoint of a known format" in fails("predict", text, CAT)


@pytest.mark.slow
def test_predict_refuses_feature_extractors(tiny_npz, tmp_path):
    out = tmp_path / "features"
    arguments = ["--variant", "feature_extraction", "--weights", tiny_npz, "--out", out]
    assert run("export", "bit_tiny.cifar10", "--to", "hub", *arguments).exit_code == 0
    assert "--variant classification" in fails("predict", out, CAT)


# export and verify


@pytest.mark.slow
def test_export_says_what_it_wrote(tiny_npz, tmp_path):
    out = tmp_path / "tiny"
    result = run("export", "bit_tiny.cifar10", "--to", "hub", "--weights", tiny_npz, "--out", out)
    assert "bit_tiny.cifar10, classification, input in [-1,1]" in result.stdout
    assert f"bit-keras verify {out}" in result.stdout


@pytest.mark.long
def test_a_model_for_servers_is_exported_verified_and_asked(tiny_npz, tmp_path):
    path = tmp_path / "served"
    options = ["--to", "serving", "--weights", tiny_npz, "--batch-sizes", "none", "--out", path]
    result = run("export", "bit_tiny.cifar10", *options)
    assert result.stdout.startswith(f"Wrote {path / '1'}: bit_tiny.cifar10, classification")
    changed = [*options, "--version", "2", "--size", "48", "--precision", "bfloat16"]
    assert run("export", "bit_tiny.cifar10", *changed).exit_code == 0
    assert "1 exists already" in fails("export", "bit_tiny.cifar10", *options)
    zero = run("export", "bit_tiny.cifar10", *options, "--version", "0")
    assert zero.exit_code == 2
    assert "1 or more. Received: --version 0" in zero.stderr
    # A folder of versions stands for the newest one.
    document = json.loads(run("verify", path, "--json").stdout)
    assert document["differences"].keys() == {"serving_default", "features", "image_bytes"}
    assert document["tolerance"] == 5e-2
    assert run("predict", path / "1", CAT).exit_code == 0


@pytest.mark.long
def test_one_folder_serves_and_is_fine_tuned(tiny_npz, tmp_path):
    options = ["--to", "hub", "--folded", "--weights", tiny_npz, "--out", tmp_path / "both"]
    assert run("export", "bit_tiny.cifar10", *options).exit_code == 0
    differences = json.loads(run("verify", tmp_path / "both", "--json").stdout)["differences"]
    assert {"__call__", "image_bytes"} < differences.keys()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--to", "hub", "--size", "48"], "--size goes with --to serving"),
        (["--to", "keras", "--folded"], "--folded goes with --to hub"),
        (["--to", "keras", "--input-range", "0,1"], "--input-range goes with --to hub or serving"),
        (["--to", "serving", "--batch-sizes", "1;2"], "'1;2' is not a list like 1,2,4,8, nor none"),
        (["--to", "serving", "--precision", "int8"], "'int8' is not one of 'float32', 'bfloat16'"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(options, sentence, tmp_path):
    result = run("export", "bit_tiny.cifar10", *options, "--out", tmp_path / "a")
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.slow
def test_export_with_random_weights_is_reproducible(tmp_path):
    reference = []
    for name in ("a", "b"):
        arguments = ["--to", "hub", "--weights", "random", "--out", tmp_path / name]
        assert run("export", "bit_tiny.cifar10", *arguments).exit_code == 0
        with np.load(tmp_path / name / "assets.extra" / "golden.npz") as arrays:
            reference.append(arrays["logits"])
    assert np.ptp(reference[0]) > 0.1
    assert np.array_equal(*reference)


BAD_WEIGHTS = {
    "truncated": "cut short",
    "flipped": "is damaged",
    "pickled": "could run code",
    "text": "is not a checkpoint of a known format",
    "architecture": "The file is a resnetv2_50 with 10 classes",
    "classes": "Its head has 7 classes and the network's 10",
    "missing": "There is no file",
}


@pytest.fixture(scope="module")
def bad_weights(tiny_npz, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    data = tiny_npz.read_bytes()
    (folder / "truncated.npz").write_bytes(data[: len(data) // 2])
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    (folder / "flipped.npz").write_bytes(flipped)
    np.savez(folder / "pickled.npz", **{"resnet/head": np.array([{}], object)})
    (folder / "text.npz").write_text("These are not the weights you are looking for.")
    tiny, large = ARCHITECTURES["bit_tiny"], ARCHITECTURES["resnetv2_50"]
    write_npz(folder / "classes.npz", SeededArrays(official_shapes(tiny, 7)))
    write_npz(folder / "architecture.npz", SeededArrays(official_shapes(large, 10)))
    return folder


@pytest.mark.parametrize(("case", "sentence"), BAD_WEIGHTS.items())
def test_bad_weights_give_a_sentence_and_nothing_else(bad_weights, tmp_path, case, sentence):
    arguments = ["--weights", bad_weights / f"{case}.npz", "--out", tmp_path / "out"]
    assert sentence in fails("export", "bit_tiny.cifar10", "--to", "hub", *arguments)
    if case not in ("architecture", "classes"):  # Which are whole files of their own.
        source = bad_weights / f"{case}.npz"
        assert sentence in fails("convert", source, tmp_path / "out.npz", "--to", "npz")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tiny_npz, tmp_path):
    out = tmp_path / "no" / "where"
    arguments = ["--weights", tiny_npz, "--out", out]
    assert f"{out.parent} does not exist" in fails(
        "export", "bit_tiny.cifar10", "--to", "hub", *arguments
    )
    assert f"{out.parent} does not exist" in fails("convert", tiny_npz, out, "--to", "npz")


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "{npz}", "{out}.npz", "--to", "npz"],
        ["convert", "{npz}", "{out}.keras", "--to", "keras"],
        ["export", "bit_tiny.cifar10", "--to", "hub", "--weights", "{npz}", "--out", "{out}"],
    ],
    ids=["npz", "keras", "hub"],
)
def test_a_disk_that_fills_up_gives_a_sentence_and_leaves_nothing(tiny_npz, tmp_path, arguments):
    # A limit on the size of files stops the writers in the middle, as a full disk does.
    arguments = [part.format(npz=tiny_npz, out=tmp_path / "out") for part in arguments]
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))"
    process = run_in_a_shell(*arguments, prepare=limit)
    assert process.returncode == 1
    assert process.stderr.startswith("Error: ")
    assert "could not be written" in process.stderr
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_where_it_failed():
    result = CliRunner().invoke(main, ["--debug", "info", "nonsense"])
    assert type(result.exception).__name__ == "UnknownModelError"


@pytest.mark.long
def test_verify_reports_the_difference_and_fails_above_the_tolerance(artifact, tmp_path):
    result = run("verify", artifact)
    assert result.exit_code == 0
    assert "within the tolerance of 1e-05" in result.stdout
    document = json.loads(run("verify", artifact, "--json").stdout)
    assert document["passed"] is True

    copy = shutil.copytree(artifact, tmp_path / "copy")
    with np.load(copy / "assets.extra" / "golden.npz") as arrays:
        reference = dict(arrays)
    np.savez(
        copy / "assets.extra" / "golden.npz", **{**reference, "logits": 1.01 * reference["logits"]}
    )
    result = run("verify", copy)
    assert result.exit_code == 1
    assert "ABOVE the tolerance" in result.stdout


def test_commands_print_nothing_of_the_frameworks(artifact):
    process = run_in_a_shell("predict", artifact, CAT)
    assert process.stderr == ""
    assert process.stdout.splitlines()[0].split() == ["image", "class", "score"]
