"""2,000 damaged versions of a file of every format, with a new seed at each run.

None ends the process, takes 10 seconds, or more memory than four times the file and 200 MB; each
is refused, or gives the arrays of the whole file. Few of them, with a seed of their own, are read
in `test_every_reader.py`.
"""

import random

import pytest

from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.registry import ARCHITECTURES
from tests.checkpoints.formats import FORMS, READERS
from tests.checkpoints.hostile import outcomes
from tests.checkpoints.mutations import MANY

TINY = ARCHITECTURES["bit_tiny"]
SAVED_MODEL = ("saved_model.pb", *FORMS["SavedModel"].files)


@pytest.mark.full
@pytest.mark.parametrize(
    ("form", "file"),
    [
        pytest.param(form, file, id=f"{name} {file}".strip())
        for name, form in FORMS.items()
        for file in form.files
    ],
)
def test_no_damaged_file_ends_the_process_hangs_or_is_read_wrongly(form, file, tmp_path):
    form.write(tmp_path / "x", form.named(SeededArrays(official_shapes(TINY, 10)), TINY))
    opened, seed = form.opened_by_reader(tmp_path / "x"), random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    damaged = file if opened.is_dir() else None
    found = outcomes(READERS[form.file_format].__name__, opened, MANY, seed, damaged)
    print(found)
    # Without checksums a changed value cannot be seen.
    assert found["other"] == 0 or not form.checksums
    assert found["refused"] + found["equal"] + found["other"] == MANY


@pytest.mark.full
@pytest.mark.parametrize("file", SAVED_MODEL)
def test_no_damaged_saved_model_ends_the_process_that_runs_it(classifier_artifact, file):
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    # TensorFlow keeps what it has loaded, so many processes share the work.
    found = [outcomes("load", classifier_artifact, 40, seed + n, file) for n in range(MANY // 40)]
    print(file, *found, sep="\n")
    assert not any(each["other"] for each in found)
