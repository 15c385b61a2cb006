"""2,000 damaged versions of a file of every format, with a new seed at each run.

None ends the process, takes 10 seconds, or more memory than four times the file and 200 MB; each
is refused, or gives the arrays of the whole file. Few of them, with a seed of their own, are read
in the tests of each reader.
"""

import random

import pytest

import bit_keras
from bit_keras.checkpoints import fill_with_seeded_values
from tests.checkpoints.hostile import outcomes
from tests.checkpoints.mutations import MANY

INDEX, VALUES = "variables/variables.index", "variables/variables.data-00000-of-00001"

READERS = {
    "npz": ("NpzFile", None),
    "safetensors": ("SafetensorsFile", None),
    "torch": ("TorchFile", None),
    "keras": ("KerasFile", None),
    "index": ("SavedModelFile", INDEX),
    "values": ("SavedModelFile", VALUES),
}

#: Formats without checksums: a changed value cannot be seen.
WITHOUT_CHECKSUMS = {"safetensors"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory, classifier_artifact):
    folder = tmp_path_factory.mktemp("files")
    model = bit_keras.create_feature_extractor("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    bit_keras.save_weights(model, folder / "npz")
    bit_keras.save_weights(model, folder / "safetensors", "timm")
    model.save(folder / "model.keras")
    torch = pytest.importorskip("torch", reason="it writes the file")
    weights = {weight.path: torch.tensor(weight.numpy()) for weight in model.weights}
    torch.save(weights, folder / "torch")
    return {
        **{name: folder / name for name in ("npz", "safetensors", "torch")},
        "keras": folder / "model.keras",
        "index": classifier_artifact,
        "values": classifier_artifact,
    }


@pytest.mark.full
@pytest.mark.parametrize("format", READERS)
def test_no_damaged_file_ends_the_process_hangs_or_is_read_wrongly(paths, format):
    seed = random.SystemRandom().randrange(10**9)
    reader, damaged = READERS[format]
    print(f"seed {seed}")
    found = outcomes(reader, paths[format], MANY, seed, damaged)
    print(f"{format}: {found}")
    if format not in WITHOUT_CHECKSUMS:
        assert found["other"] == 0
    assert found["refused"] + found["equal"] + found["other"] == MANY


@pytest.mark.full
@pytest.mark.parametrize("file", [INDEX, VALUES, "saved_model.pb"])
def test_no_damaged_saved_model_ends_the_process_that_runs_it(classifier_artifact, file):
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    # TensorFlow keeps what it has loaded, so many processes share the work.
    found = [outcomes("load", classifier_artifact, 40, seed + n, file) for n in range(MANY // 40)]
    print(file, *found, sep="\n")
    assert not any(each["other"] for each in found)
