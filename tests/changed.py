"""Prints the tests of what changed since the upstream branch: `make check` runs them.

The tests of a file of the package are the deepest folder of `tests/` that mirrors its own, or the
file `tests/test_NAME.py`. `python tests/changed.py ROOM ...` prints the tests of the named rooms
instead, whatever changed.
"""

import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]

#: Tests of files that nothing mirrors, by the folder or the file that they are in.
ELSEWHERE = {
    "bit_keras/rules": "tests/training/test_rules.py tests/training/test_schedule.py",
    "benchmarks": "tests/benchmark",
    "colab": "tests/test_notebooks.py",
    "demo": "tests/test_demo.py",
    "docs": "tests/documentation",
    "export/pages": "tests/collection",
    "export/serving": "tests/exporters/test_serving_files.py",
    "README.md": "tests/documentation",
    "setup.cfg": "tests/test_dependencies.py",
}


def git(*arguments):
    """The lines that git prints, or None where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.splitlines() if done.returncode == 0 else None


def changed_files():
    """Files that differ from the commit shared with the upstream branch, new ones included."""
    base = git("merge-base", "HEAD", "@{upstream}") or ["HEAD"]
    changed = git("diff", "--name-only", *base)
    if changed is None:
        sys.exit('git does not say what changed. Name the rooms: make check ROOMS="layers models"')
    return changed + git("ls-files", "--others", "--exclude-standard")


def tests_of(file):
    """The tests of a file, by its path below the root; an empty list if it has none."""
    path = PurePosixPath(file)
    for place in (path, *path.parents):
        if str(place) in ELSEWHERE:
            return ELSEWHERE[str(place)].split()
    top, *parts = path.parts
    if top == "tests" and path.name.startswith("test_"):
        return existing(file)
    if top not in ("bit_keras", "tests"):
        return []
    if len(parts) == 1:
        return existing(f"tests/test_{path.name}")
    folders = parts[:-1]
    while folders:
        if found := existing(f"tests/{'/'.join(folders)}"):
            return found
        folders.pop()
    return []


def existing(path):
    return [path] if (ROOT / path).exists() else []


def without_nested(tests):
    """The tests without those that are in a folder of others."""
    return sorted(
        test
        for test in set(tests)
        if not any(str(folder) in tests for folder in PurePosixPath(test).parents)
    )


def main(rooms):
    """Prints the tests of some rooms, by default of those that changed, in one line."""
    tests = [f"tests/{room}" for room in rooms] or [
        test for file in changed_files() for test in tests_of(file)
    ]
    print(*without_nested(tests))


if __name__ == "__main__":
    main(sys.argv[1:])
