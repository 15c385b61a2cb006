"""What stands in a reader's folder, and the small things that stand in for big ones."""

import os
import re
import shutil
import tarfile
from itertools import pairwise
from pathlib import Path

import bit_keras
from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.writing import write_checkpoint
from bit_keras.collection import Recipe
from bit_keras.collection.recipe import list_recipes
from bit_keras.errors import UnknownModelError
from bit_keras.registry import PACKAGED
from bit_keras.sources import resolve
from tests.cifar10 import ROOT, SAMPLES
from tests.cli.running import succeeds

#: The network of every command that takes weights: it is small, and it is in the package.
SMALL = "bit_tiny.cifar10"

#: What commands get in place of a packaged recipe.
SMALL_RECIPE = "small.toml"

#: Options that follow those of the page, of which the last one counts: what a page shows for an
#: hour is tried for a second.
QUICK = {
    "finetune": ("--steps", "2", "--batch", "8", "--size", "32"),
    "benchmark": ("--rounds", "1"),
}

#: Commands that take the names of models for what they are, and need no weights.
OF_THE_REGISTRY = {"list", "info"}

#: Commands that print the same on every machine, where nothing stands in.
PRINT_THE_SAME = {*OF_THE_REGISTRY, "predict"}


def stand_in(word):
    """The small network for a model of the registry, a recipe of it for a packaged one."""
    if word in list_recipes():
        return SMALL_RECIPE
    try:
        bit_keras.model_info(word)
    except UnknownModelError:
        return word
    return SMALL


def arguments_of(words):
    """The arguments of a page's `bit-keras` command as they are executed here."""
    command = next((word for word in words if not word.startswith("-")), None)
    if command in OF_THE_REGISTRY:
        return list(words)
    name, *rest = words
    return [name, *map(stand_in, rest), *QUICK.get(command, ())]


def prints_the_same(words):
    """Whether a command prints on a page what it prints here."""
    return words[0] in PRINT_THE_SAME and arguments_of(words) == words


def _copy_sample(path):
    shutil.copy(SAMPLES / path.with_suffix(".jpg").name, path)


def _photos(path):
    shutil.copytree(SAMPLES, path, ignore=shutil.ignore_patterns("*.md"))


def _flowers(path):
    """Five classes of four images each."""
    images = sorted(SAMPLES.glob("*.jpg"))
    for index, name in enumerate(("daisy", "dandelion", "rose", "sunflower", "tulip")):
        (path / name).mkdir(parents=True)
        for number in range(4):
            shutil.copy(images[(index + 3 * number) % 10], path / name / f"{number}.jpg")


def _cifar10(path):
    """Two images of each class and split, in the layout of the whole archive."""
    with tarfile.open(path, "w") as archive:
        for split in ("train", "test"):
            for image in sorted(SAMPLES.glob("*.jpg")):
                for number in range(2):
                    archive.add(image, f"{split}/{image.stem}/{number:04d}.jpg")


def _recipe(path):
    """A packaged recipe with the small network, and only its first model."""
    text = (Recipe.read("bit-resnet").folder / "bit-resnet.toml").read_text()
    head, *models = re.split(r"^(?=\[\[models\]\])", text, flags=re.MULTILINE)
    path.write_text(re.sub(r'^model = ".*"', f'model = "{SMALL}"', head + models[0], flags=re.M))


def _npz(path):
    shutil.copy(resolve(SMALL).weights(), path)


def _pth(path):
    import torch
    from safetensors.torch import load_file

    with open_checkpoint(resolve(SMALL).weights()) as arrays:
        write_checkpoint(path.with_suffix(".safetensors"), arrays, "timm")
    torch.save(load_file(path.with_suffix(".safetensors")), path)


#: What a page may take for granted, by name, and what writes it.
STANDING = {
    "cat.jpg": _copy_sample,
    "photos": _photos,
    "flowers": _flowers,
    "cifar10.tar": _cifar10,
    "BiT-M-R50x1.npz": _npz,
    "weights.pth": _pth,
    SMALL_RECIPE: _recipe,
}

_INT8 = ("--to", "tflite", "--quantize", "int8", "--calibrate", "flowers/", "--out")

#: What pages take from other pages, and the command there that writes it.
WRITTEN_BY = {
    "run": ("finetune", SMALL, "--data", "flowers/", "--out", "run", *QUICK["finetune"]),
    "collection": ("collection", SMALL_RECIPE, "--out", "collection"),
    "exported": ("export", "run", "--to", "hub", "--out", "exported"),
    "r50x1": ("export", SMALL, "--to", "hub", "--out", "r50x1"),
    "serving": ("export", SMALL, "--to", "serving", "--out", "serving"),
    "r50x1.onnx": ("export", SMALL, "--to", "onnx", "--out", "r50x1.onnx"),
    "r50x1.tflite": ("export", SMALL, "--to", "tflite", "--out", "r50x1.tflite"),
    "r50x1-int8.tflite": ("export", SMALL, *_INT8, "r50x1-int8.tflite"),
    "flowers-int8.tflite": ("export", "run", *_INT8, "flowers-int8.tflite"),
}

#: Commands that train or build: pages that repeat one get what it wrote for the first of them.
RUN_ONCE = {"collection", "finetune"}


def _in_this_process(*arguments):
    return succeeds(*arguments).stdout


class Pantry:
    """Has the standing things, and what the slow commands wrote.

    Args:
        folder: Path of an empty folder.
        program: callable. Runs `bit-keras` with arguments, and returns what it prints; by default
            in this process.
    """

    def __init__(self, folder, program=_in_this_process):
        self.folder = folder
        self._program = program
        self._done = {}

    def provide(self, words):
        """Puts what words name into the current folder, unless the page has written it itself."""
        for name in (word.partition("/")[0] for word in words):
            if os.path.lexists(name):
                continue
            if name in STANDING:
                STANDING[name](Path(name))
            elif name in WRITTEN_BY:
                self.run(WRITTEN_BY[name])

    def run(self, arguments):
        """Runs `bit-keras` in the current folder; returns what it prints."""
        self.provide(inputs_of(["bit-keras", *arguments]))
        if arguments[0] not in RUN_ONCE:
            return self._program(*arguments)
        written, key = Path(arguments[arguments.index("--out") + 1]), tuple(arguments)
        if key in self._done and not written.exists():
            kept, output = self._done[key]
            shutil.copytree(kept, written)
            return output
        kept = self.folder / str(len(self._done))
        output = self._program(*arguments)
        shutil.copytree(written, kept)
        self._done[key] = kept, output
        return output

    def provide_weights(self, python):
        """Values for the published files that Python code loads, which no test fetches."""
        for name in re.findall(r"\bcreate_\w+\(\s*[\"']([^\"']+)[\"']", python):
            checkpoint = bit_keras.model_info(name)
            path = self.weights / Path(checkpoint.file).name
            if not checkpoint.url.startswith(PACKAGED) and not path.exists():
                shapes = official_shapes(checkpoint.architecture, checkpoint.classes)
                path.parent.mkdir(exist_ok=True)
                write_npz(path, SeededArrays(shapes))

    @property
    def weights(self):
        """The folder for `BIT_KERAS_WEIGHTS`."""
        return self.folder / "weights"


def inputs_of(words):
    """The words of a command that may name what it reads."""
    if words[:2] == ["bit-keras", "convert"]:
        return words[2:3]
    names_no_input = {"bit-keras", "--out", "--to"}
    return [word for before, word in pairwise(["", *words]) if before not in names_no_input]


def checkout(folder):
    """What is in a checkout next to the package, and is named by pages."""
    for name in ("demo/images", "export"):
        shutil.copytree(ROOT / name, folder / name)
