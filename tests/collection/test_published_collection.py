"""The collection that we publish: eight SavedModels by one command, and the committed pages.

At full size it takes ten minutes; of every change, the recipe is built with the small network, and
the records of what it gives are compared with the committed ones.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.collection import Recipe, verify_collection
from tests.cli.running import succeeds

EXPORT = Path(__file__).parents[2] / "export"

#: The weights are random, not published; the size of the file is that of a published one of
#: the same layout (timm's earlier model page), so no array is missing or misnamed.
BYTES = {"bit_r50x1": 102_242_668, "bit_r152x2": 945_476_668}


#: The first two models of the recipe are one of each form; the others differ in their weights.
FORMS = 2


@pytest.mark.long
def test_the_committed_records_are_what_the_recipe_gives_but_for_the_network(tmp_path):
    recipe = Recipe.read("bit-resnet")
    forms = {(item.target, item.variant, item.size, item.precision) for item in recipe.items}
    assert len(forms) == FORMS
    head, *models = re.split(
        r"^(?=\[\[models\]\])", (recipe.folder / "bit-resnet.toml").read_text(), flags=re.M
    )
    small = re.sub(
        r'^model = ".*"', 'model = "bit_tiny.cifar10"', "".join(models[:FORMS]), flags=re.M
    )
    (tmp_path / "small.toml").write_text(head + small)
    succeeds("collection", tmp_path / "small.toml", "--out", tmp_path / "built")
    built = json.loads((tmp_path / "built" / "pages" / "records.json").read_text())
    committed = json.loads((EXPORT / "pages" / "records.json").read_text())
    assert len(committed) == len(recipe.items)
    assert [of_any_network(r) for r in built] == [of_any_network(r) for r in committed[:FORMS]]
    for record in committed:
        matching = built[record["variant"] != "classification"]
        assert of_any_network(record)["signatures"] == of_any_network(matching)["signatures"]


def of_any_network(record):
    """A record without the weights, their size and the width of the output."""
    kept = {
        name: value for name, value in record.items() if name not in ("model", "bytes", "outputs")
    }
    width = record["outputs"]
    return json.loads(re.sub(rf"\b{width}\b", '"width"', json.dumps(kept)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a file for every checkpoint of the recipe."""
    folder = tmp_path_factory.mktemp("weights")
    for item in Recipe.read("bit-resnet").items:
        architecture = item.checkpoint.architecture
        random = folder / f"{architecture.name}.npz"
        if not random.exists():
            write_npz(random, SeededArrays(official_shapes(architecture, 1000)))
            assert random.stat().st_size == BYTES[architecture.name]
        path = folder / Path(item.checkpoint.file).name
        if not path.exists():
            path.symlink_to(random)
    yield folder
    for path in folder.iterdir():  # Two gigabytes.
        path.unlink()


@pytest.mark.full
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
