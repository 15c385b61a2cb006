"""The collection that we publish: eight SavedModels at full size, by one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bit_keras.checkpoints import SeededArrays, official_shapes, write_npz
from bit_keras.collection import Recipe, verify_collection

pytestmark = pytest.mark.long

EXPORT = Path(__file__).parents[2] / "export"

#: The weights are drawn, not published; the size of the file is that of a published one of
#: the same layout (timm's earlier model page), so no array is missing or misnamed.
BYTES = {"bit_r50x1": 102_242_668, "bit_r152x2": 945_476_668}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a file for every checkpoint of the recipe."""
    folder = tmp_path_factory.mktemp("weights")
    for item in Recipe.read("bit-resnet").items:
        architecture = item.checkpoint.architecture
        drawn = folder / f"{architecture.name}.npz"
        if not drawn.exists():
            write_npz(drawn, SeededArrays(official_shapes(architecture, 1000)))
            assert drawn.stat().st_size == BYTES[architecture.name]
        path = folder / Path(item.checkpoint.file).name
        if not path.exists():
            path.symlink_to(drawn)
    yield folder
    for path in folder.iterdir():  # Two gigabytes.
        path.unlink()


def test_one_command_builds_all_of_it_and_the_pages_are_those_in_the_repository(weights, tmp_path):
    command = ["collection", "bit-resnet", "--out", tmp_path / "built", "--json"]
    process = subprocess.run(
        [sys.executable, "-c", "from bit_keras.cli import main; main()", *command],
        env={**os.environ, "BIT_KERAS_WEIGHTS": str(weights)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert [model["error"] for model in json.loads(process.stdout)] == [None] * 8

    pages, committed = (
        {
            path.relative_to(folder): path.read_text("utf-8")
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in (tmp_path / "built" / "pages", EXPORT / "pages")
    )
    assert pages.keys() == committed.keys()
    for path, text in pages.items():
        assert text == committed[path], f"{path} is stale; build the collection, copy its pages"

    for record, verification in verify_collection(tmp_path / "built"):
        assert verification.passed, verification.differences
        folder = tmp_path / "built" / "models" / record.name
        for path in (folder / record.archive, *folder.rglob("variables.data-*")):
            path.unlink()  # Up to a gigabyte each.
