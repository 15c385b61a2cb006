"""A `.keras` file whose HDF5 the HDF5 library never finishes to read, in every command."""

import json
import shutil
import struct
import subprocess
import sys
import zipfile

import pytest

import bit_keras
from bit_keras.exporters.keras_archive import export_keras
from tests.cifar10 import SAMPLES

WEIGHTS = "model.weights.h5"

#: Seconds. All commands together take a fraction of them; one that loops takes them all.
TIMEOUT = 240

RUN = """
import json, sys
from click.testing import CliRunner
from bit_keras.cli import main
for arguments in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, arguments)
    print(json.dumps([arguments[0], result.exit_code, result.stderr]), flush=True)
"""


def looping_gaps(hdf5):
    """Lists of the gaps between names that lead into themselves; no array depends on them."""
    at = -1
    while (at := hdf5.find(b"HEAP", at + 1)) >= 0:
        gap, address = struct.unpack_from("<16xQQ", hdf5, at)
        struct.pack_into("<Q", hdf5, address + gap, gap)


def looping_header(hdf5):
    """The header of the outermost group continues with itself."""
    (header,) = struct.unpack_from("<Q", hdf5, 64)
    (size,) = struct.unpack_from("<I", hdf5, header + 8)
    (message,) = struct.unpack_from("<H", hdf5, header + 16)
    if message == 0x10:
        struct.pack_into("<QQ", hdf5, header + 24, header + 16, size)
    else:
        struct.pack_into("<HHB3xQQ", hdf5, header + 16, 0x10, 16, 0, header + 16, size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looping")
    export_keras(bit_keras.create_classifier("bit_tiny.cifar10"), folder / "sound.keras")
    (folder / "images" / "cat").mkdir(parents=True)
    shutil.copy(SAMPLES / "cat.jpg", folder / "images" / "cat")
    for change in (looping_gaps, looping_header):
        with (
            zipfile.ZipFile(folder / "sound.keras") as sound,
            zipfile.ZipFile(folder / f"{change.__name__}.keras", "w") as copy,
        ):
            for name in sound.namelist():
                content = bytearray(sound.read(name))
                if name == WEIGHTS:
                    change(content)
                copy.writestr(name, bytes(content))
    return folder


def commands(path, folder, *options):
    """Every command that opens a `.keras` file."""
    return [
        ["predict", path, SAMPLES / "cat.jpg", *options],
        ["evaluate", path, "--data", folder / "images", *options],
        ["export", path, "--to", "keras", "--out", folder / "exported.keras", *options],
        ["verify", path, *options],
        ["convert", path, folder / "converted.keras", "--to", "keras", *options],
        ["convert", path, folder / "converted.npz", "--to", "npz", *options],
    ]


@pytest.mark.parametrize(
    "options",
    [pytest.param((), id="plain"), pytest.param(("--trust",), id="trust", marks=pytest.mark.long)],
)
def test_no_command_follows_what_leads_into_itself(folder, tmp_path, options):
    gaps, header = folder / "looping_gaps.keras", folder / "looping_header.keras"
    (tmp_path / "images").symlink_to(folder / "images", target_is_directory=True)
    refused, harmless = (commands(path, tmp_path, *options) for path in (header, gaps))
    result = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(refused + harmless, default=str)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(outcomes) == len(refused) + len(harmless), result.stderr
    for name, status, errors in outcomes[: len(refused)]:
        assert status == 1, name
        assert str(header) in errors
        assert "leads into itself" in errors
    # No array depends on the gaps, so they are not read.
    for name, status, errors in outcomes[len(refused) :]:
        assert status == 0, (name, errors)
