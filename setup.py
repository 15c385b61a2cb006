"""The metadata is in setup.cfg; this file keeps wheels free of what earlier builds left."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class CleanBuild(build_py):
    """Empties `build/lib` first: setuptools packs whatever is in it, also modules that are gone."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "bit_keras", ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": CleanBuild})
