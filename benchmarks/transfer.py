"""What the trained weights are worth: the same fine-tuning from them and from random ones.

    python benchmarks/transfer.py cifar10.tar [--per-class 50] [--steps 100] [--keep FOLDER]

Cuts a folder of five classes from an archive of CIFAR-10 (class folders below `train`
and `test`, as in the documentation), fine-tunes `bit_tiny.cifar10` on it by the README's
command, once with its own weights and once with random ones, and evaluates both on the
test images of the five classes.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import rich.table

from bit_keras.cli.printing import console

CLASSES = ("airplane", "bird", "cat", "dog", "ship")
TEST_PICTURES = 1000  # Of each class, all there are.


def cut(archive: Path, folder: Path, per_class: int) -> None:
    """Writes `<split>/<class>/<image>` for the five classes, the first images of each."""
    counts = {"train": per_class, "test": TEST_PICTURES}
    with tarfile.open(archive) as tar:
        for member in tar:
            split, _, rest = member.name.partition("/")
            label, _, file = rest.partition("/")
            wanted = member.isfile() and label in CLASSES
            if wanted and int(Path(file).stem) < counts[split]:
                path = folder / split / label / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())


def command(*arguments: object) -> str:
    """Runs `bit-keras` and returns what it prints."""
    line = [sys.executable, "-c", "from bit_keras.cli import main; main()", *map(str, arguments)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def accuracy_after(weights: str, data: Path, run: Path, steps: int) -> float:
    """Top-1 in percent on the test images after fine-tuning."""
    options = ("--weights", weights, "--rule", "code", "--size", 64, "--steps", steps)
    command("finetune", "bit_tiny.cifar10", "--data", data, "--out", run, *options)
    report = json.loads(command("evaluate", run, "--data", data, "--split", "test", "--json"))
    return 100 * report["top1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--keep", type=Path, help="Folder for the images and the two runs.")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        data = folder / "five"
        cut(arguments.archive, data, arguments.per_class)
        table = rich.table.Table("weights", "top-1 on 5,000 test images", box=None)
        for weights in ("pretrained", "random"):
            accuracy = accuracy_after(weights, data, folder / weights, arguments.steps)
            table.add_row(weights, f"{accuracy:.1f} %")
        console().print(table)


if __name__ == "__main__":
    main()
