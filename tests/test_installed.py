"""What a user gets who installs the package: a wheel, outside the checkout it was built from."""

import json
import re
import shutil
import tarfile
import zipfile

import keras
import pytest

from bit_keras.cli import main
from tests.documentation.shell import commands_of, words_of
from tests.documentation.snippets import Block
from tests.documentation.standing import Pantry, arguments_of
from tests.installing import ROOT, build_sdist, build_wheel

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="What is installed chooses no backend; networks are tested on every backend elsewhere.",
)

#: What a source archive has next to the package.
BESIDE = {
    "CHANGELOG.md",
    "LICENSE",
    "MANIFEST.in",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
}


def package_files(root):
    """Every file of the package, by its path below `root`."""
    files = (path.relative_to(root) for path in (root / "bit_keras").rglob("*") if path.is_file())
    return {path.as_posix() for path in files if "__pycache__" not in path.parts}


def members_of(archive):
    """Contents of the files of a wheel or of a source archive, by name, without its metadata."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            files = {name: opened.read(name) for name in opened.namelist()}
        return {name: files[name] for name in files if ".dist-info/" not in name}
    with tarfile.open(archive) as opened:
        files = {
            m.name.partition("/")[2]: opened.extractfile(m).read() for m in opened if m.isfile()
        }
    return {name: files[name] for name in files if ".egg-info/" not in name}


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    return build_sdist(source, tmp_path_factory.mktemp("sdist"))


def test_a_wheel_is_the_package_and_nothing_else(wheel):
    built = members_of(wheel)
    assert built.keys() == package_files(ROOT)
    assert all(built[name] == (ROOT / name).read_bytes() for name in built)


def test_a_source_archive_is_what_the_same_wheel_is_built_from(sdist, wheel, tmp_path):
    archived = members_of(sdist)
    assert archived.keys() == package_files(ROOT) | BESIDE
    assert members_of(build_wheel(sdist, tmp_path)) == members_of(wheel)


def test_what_an_earlier_build_left_does_not_reach_a_wheel(source, wheel, tmp_path):
    copy = shutil.copytree(source, tmp_path / "copy")
    gone = copy / "build" / "lib" / "bit_keras" / "layers" / "gone.py"
    gone.parent.mkdir(parents=True, exist_ok=True)
    gone.write_text("a module of last year")
    assert members_of(build_wheel(copy, tmp_path)) == members_of(wheel)


# What reads every packaged file: class lists, weights, recipes, templates.
_FIRST_STEPS = """
import json
import numpy as np
import bit_keras
from bit_keras.collection import Recipe
from bit_keras.collection.recipe import list_recipes
from bit_keras.preprocessing.labels import LISTS

names = {name: len(bit_keras.preprocessing.load_labels(name).names) for name in LISTS}
recipes = {name: len(Recipe.read(name).items) for name in list_recipes()}
best = bit_keras.decode_predictions(np.eye(1, 1000, 281), "bit_r50x1.distilled_in1k_224", top=1)
print(json.dumps([bit_keras.__file__, names, recipes, best[0][0][1]]))
"""


def test_the_installed_package_is_imported_and_has_its_data(installed, tmp_path):
    output = installed.run("-c", _FIRST_STEPS, cwd=tmp_path)
    file, lists, recipes, label = json.loads(output.splitlines()[-1])
    assert file.startswith(str(installed.folder))
    assert lists == {"cifar10": 10, "imagenet_1k": 1000, "imagenet_21k": 21843}
    assert recipes.keys() == {"bit-all", "bit-resnet"}
    assert label == "tabby, tabby cat"


def test_the_installed_command_classifies_with_the_packaged_network(installed, tmp_path):
    shutil.copy(ROOT / "demo" / "images" / "cat.jpg", tmp_path)
    output = installed.bit_keras("predict", "bit_tiny.cifar10", "cat.jpg", "--json", cwd=tmp_path)
    assert re.search(r'"(name|label|class)": "cat"', output)


@pytest.mark.full
def test_the_first_example_of_every_command_works_outside_the_checkout(
    installed, tmp_path, monkeypatch
):
    stage, pantry_folder = tmp_path / "stage", tmp_path / "pantry"
    stage.mkdir()
    pantry_folder.mkdir()
    monkeypatch.chdir(stage)

    def program(*arguments):
        return installed.bit_keras(*arguments, cwd=stage)

    pantry = Pantry(pantry_folder, program)
    for name in main.list_commands(None):
        example = next(iter(main.get_command(None, name).examples.values()))
        command = next(commands_of(Block(ROOT / name, 0, "sh", example)))
        _, (_, *arguments), _ = words_of(command)
        pantry.run(arguments_of(arguments))
