"""Writes are atomic, also when the process is killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bit_keras.atomic import new_directory, replaced_file, scratch_directory
from bit_keras.errors import BitKerasError, DownloadError

needs_full_device = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="the device /dev/full is Linux's"
)
both = pytest.mark.parametrize("write", [replaced_file, new_directory])


@pytest.fixture
def umask():
    old = os.umask(0o027)
    yield 0o027
    os.umask(old)


def fill(partial):
    """Writes "new" as a file, or as the one file of a folder."""
    (partial / "inside" if partial.is_dir() else partial).write_text("new")


def mode(path):
    return path.stat().st_mode & 0o777


def test_a_file_is_created_or_replaced(tmp_path):
    target = tmp_path / "model.keras"
    for old in (None, "old"):
        with replaced_file(target) as partial:
            assert partial.parent == tmp_path
            assert partial.name.startswith(".")
            assert partial.suffix == ".keras"
            fill(partial)
            assert (target.read_text() if target.exists() else None) == old
        assert target.read_text() == "new"
        target.write_text("old")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("exists", [False, True], ids=["absent", "empty"])
def test_a_directory_is_created(tmp_path, exists):
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    with new_directory(str(target)) as partial:
        fill(partial)
        assert not target.exists() or not list(target.iterdir())
    assert (target / "inside").read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_relative_path_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replaced_file("x.txt") as partial:
        fill(partial)
    with new_directory("y") as partial:
        fill(partial)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.txt", "y"]


def test_permissions_are_those_of_ordinary_files(tmp_path, umask):
    with replaced_file(tmp_path / "x") as partial:
        fill(partial)
        assert mode(partial) == 0o600
    with new_directory(tmp_path / "y") as partial:
        fill(partial)
    assert mode(tmp_path / "x") == 0o640
    assert mode(tmp_path / "y") == 0o750
    assert os.umask(umask) == umask


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, DownloadError])
def test_an_error_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(error, match="mine"), replaced_file(target) as partial:
        fill(partial)
        raise error("mine")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@both
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, DownloadError])
def test_an_error_leaves_nothing_where_nothing_was(tmp_path, write, error):
    with pytest.raises(error, match="mine"), write(tmp_path / "x") as partial:
        fill(partial)
        raise error("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["file", "folder"])
def test_an_existing_target_is_not_replaced_by_a_directory(tmp_path, existing):
    target = tmp_path / "out"
    if existing == "folder":
        target.mkdir()
    content = target / "old" if existing == "folder" else target
    content.write_text("old")
    with pytest.raises(BitKerasError) as raised, new_directory(target):
        pytest.fail("The block must not run.")
    assert str(raised.value) == f"{target} exists already; remove it or choose another path."
    assert content.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_directory_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "out"
    words = "could not be written"
    with pytest.raises(BitKerasError, match=words), new_directory(target) as partial:
        fill(partial)
        target.mkdir()
        (target / "theirs").write_text("theirs")
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    with pytest.raises(BitKerasError) as raised, replaced_file(tmp_path):
        pytest.fail("The block must not run.")
    assert str(raised.value) == f"{tmp_path} is a folder, and a file was to be written there."


@both
def test_a_missing_parent_is_named(tmp_path, write):
    with pytest.raises(BitKerasError) as raised, write(tmp_path / "absent" / "x"):
        pytest.fail("The block must not run.")
    assert str(raised.value) == (
        f"The folder {tmp_path / 'absent'} does not exist; create it first."
    )


@both
def test_a_folder_that_may_not_be_written_is_named(tmp_path, write):
    target = tmp_path / "x"
    tmp_path.chmod(0o500)
    user = os.geteuid()
    try:
        if user == 0:  # Root may write everywhere.
            os.chown(tmp_path, 65534, -1)
            os.seteuid(65534)
        with pytest.raises(BitKerasError) as raised, write(target):
            pytest.fail("The block must not run.")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    # Where the folders above may not be entered either, the reason is the same.
    assert str(raised.value) == (
        f"{target} could not be written (Permission denied); nothing was left behind."
    )


@needs_full_device
@both
def test_a_full_disk_is_named_and_leaves_the_old_state(tmp_path, write):
    target = tmp_path / "x"
    if write is replaced_file:
        target.write_text("old")
    before = list(tmp_path.iterdir())
    with pytest.raises(BitKerasError) as raised, write(target) as partial:
        fill(partial)
        Path("/dev/full").write_text("one byte too many")
    assert str(raised.value) == (
        f"{target} could not be written (No space left on device); nothing was left behind."
    )
    assert list(tmp_path.iterdir()) == before
    if before:
        assert target.read_text() == "old"


KILLED_WRITER = """
import sys
from pathlib import Path
from bit_keras import atomic

with getattr(atomic, sys.argv[1])(sys.argv[2]) as partial:
    file = partial / "inside" if partial.is_dir() else partial
    file.write_text("half of the new")
    print("half", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def writer_in_the_middle(write, target):
    """Another process that has written half, and waits for the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, write.__name__, target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"half\n"
        yield process


@both
def test_a_killed_process_leaves_the_old_state(tmp_path, write):
    target = tmp_path / "x"
    if write is replaced_file:
        target.write_text("old")
    with writer_in_the_middle(write, target) as process:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    left = [path for path in tmp_path.iterdir() if path != target]
    assert [(path.name[:3], ".partial" in path.name) for path in left] == [(".x.", True)]
    if write is replaced_file:
        assert target.read_text() == "old"
    else:
        assert not target.exists()
    with write(target) as partial:
        fill(partial)
    assert (target / "inside" if target.is_dir() else target).read_text() == "new"
    # What the killed process left is gone too.
    assert list(tmp_path.iterdir()) == [target]


@both
def test_two_writers_do_not_take_each_other_for_dead(tmp_path, write):
    target = tmp_path / "x"
    with writer_in_the_middle(write, target) as process:
        with contextlib.suppress(BitKerasError), write(target) as partial:
            raise BitKerasError("The second writer gives up.")
        assert not partial.exists()
        process.communicate()
    assert process.returncode == 0
    assert (target / "inside" if target.is_dir() else target).read_text() == "half of the new"


@pytest.fixture
def special(tmp_path, request):
    """A target that exists and is not an ordinary file."""
    path = tmp_path / "x"
    if request.param == "pipe":
        os.mkfifo(path)
        yield path
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            yield path
    elif request.param == "link to a device":
        path.symlink_to("/dev/null")
        yield path
    else:
        yield Path("/dev/null")


@pytest.mark.skipif(os.name != "posix", reason="Windows has neither")
@pytest.mark.parametrize("special", ["pipe", "socket", "link to a device", "device"], indirect=True)
def test_a_device_a_pipe_and_a_socket_are_not_replaced(special):
    before = special.lstat()
    for write in (replaced_file, new_directory):
        with pytest.raises(BitKerasError, match=str(special)), write(special):
            pytest.fail("The block must not run.")
    after = special.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_a_scratch_folder_is_deleted(temporary):
    with scratch_directory() as folder:
        assert folder.parent == temporary
        fill(folder)
    assert list(temporary.iterdir()) == []


def test_a_scratch_folder_next_to_a_partial_is_deleted_with_it(tmp_path):
    target = tmp_path / "x"
    with replaced_file(target) as partial, scratch_directory(partial) as folder:
        assert folder.parent == tmp_path
        fill(partial)
        fill(folder)
    assert list(tmp_path.iterdir()) == [target]


KILLED_SCRATCH = """
import sys
from bit_keras.atomic import scratch_directory

with scratch_directory() as folder:
    (folder / "inside").write_text("large")
    print("half", flush=True)
    sys.stdin.read()
"""


def test_the_next_scratch_folder_removes_what_a_killed_process_left(temporary):
    def run():
        return subprocess.Popen(
            [sys.executable, "-c", KILLED_SCRATCH], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    with run() as killed, run() as living:
        for process in (killed, living):
            assert process.stdout.readline() == b"half\n"
        killed.kill()
        killed.wait()
        assert len(list(temporary.iterdir())) == 2
        with scratch_directory() as folder:
            others = set(temporary.iterdir()) - {folder}
            # That of the living process stays.
            assert [(other / "inside").read_text() for other in others] == ["large"]
        living.communicate()
    assert list(temporary.iterdir()) == []


RACE = """
import sys
from pathlib import Path
from bit_keras import atomic
from bit_keras.errors import BitKerasError

write, folder, rounds, number = getattr(atomic, sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
for round in range(int(rounds)):
    target = folder / (f"{round}" if write is atomic.new_directory else "x")
    try:
        with write(target) as partial:
            for name in "abc":
                file = partial / name if partial.is_dir() else partial
                file.write_text(number)
    except BitKerasError as error:
        # One of two gets a new folder; a file is replaced by both.
        if write is atomic.replaced_file or not target.is_dir():
            sys.exit(f"round {round}: {error}")
"""


def run_race(write, folder, rounds, processes=2):
    """Several processes write to the same targets as fast as they can."""
    command = [sys.executable, "-c", RACE, write.__name__, str(folder), str(rounds)]
    racers = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(processes)
    ]
    assert [racer.communicate()[1] for racer in racers] == [""] * processes
    if write is replaced_file:
        assert [path.name for path in folder.iterdir()] == ["x"]
        return
    assert sorted(int(path.name) for path in folder.iterdir()) == list(range(rounds))
    for made in folder.iterdir():
        # Whole, and by one of them.
        assert len({(made / name).read_text() for name in "abc"}) == 1


@both
def test_processes_that_write_one_target_do_not_disturb_each_other(tmp_path, write):
    run_race(write, tmp_path, 300)


@pytest.mark.full
@both
def test_processes_race_for_5000_rounds(tmp_path, write):
    run_race(write, tmp_path, 5000, processes=3)
