"""The package as users have it: built from clean files, and installed without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: What is in a folder that was worked in and is not in a fresh checkout.
_LEFTOVERS = ("__pycache__", "build", "*.egg-info", ".*")

_SDIST = (
    "import sys; from setuptools.build_meta import build_sdist; print(build_sdist(sys.argv[1]))"
)


def checkout(folder):
    """A copy of this repository without what earlier builds left in it."""
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_LEFTOVERS))


def build_wheel(source, folder):
    """Builds a wheel of a checkout, or of a source archive, with the setuptools that is here."""
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    _run([sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source], folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(source, folder):
    """Builds a source archive of a checkout."""
    output = _run([sys.executable, "-c", _SDIST, folder], source)
    return folder / output.splitlines()[-1]


class Environment:
    """A virtual environment with a wheel, and with the dependencies that the tests run with.

    Args:
        folder: Path. Where to make it.
        wheel: Path.
    """

    def __init__(self, folder, wheel):
        self.folder = folder
        venv.create(folder, symlinks=True)
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.python = folder / scripts / "python"
        self.program = folder / scripts / "bit-keras"
        # A path only: .pth files in there, such as that of an editable install, have no effect.
        site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
        options = ["--no-deps", "--no-index", "--quiet"]
        self.run("-m", "pip", "install", *options, wheel, cwd=folder)

    @property
    def variables(self):
        """Environment variables by which no program finds the checkout, nor a network."""
        hidden = {"PYTHONPATH", "PYTHONHOME"}
        return {
            **{name: value for name, value in os.environ.items() if name not in hidden},
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
        }

    def run(self, *arguments, cwd):
        """Runs Python; returns what it prints."""
        return _run([self.python, *arguments], cwd, self.variables)

    def bit_keras(self, *arguments, cwd):
        """Runs `bit-keras`; returns what it prints."""
        return _run([self.program, *arguments], cwd, self.variables)


def _run(command, cwd, variables=None):
    process = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, f"{command}: {process.stdout}{process.stderr}"
    return process.stdout
