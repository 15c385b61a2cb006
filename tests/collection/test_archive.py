"""Archives of SavedModels: the same bytes for the same files, and what TF Hub downloads."""

import contextlib
import gzip
import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading

import numpy as np
import pytest

from bit_keras.artifacts import Artifact
from bit_keras.artifacts.metadata import OUTPUTS
from bit_keras.artifacts.reference import relative_difference
from bit_keras.collection.archive import require_archive_of, write_archive
from bit_keras.errors import ExportError


@pytest.fixture(scope="module")
def archive(classifier_artifact, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "classifier.tar.gz"
    write_archive(classifier_artifact, path)
    return path


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_unpacks_to_the_same_files(classifier_artifact, archive, tmp_path):
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path, filter="data")
    assert files_of(tmp_path) == files_of(classifier_artifact)


def test_the_digest_that_is_returned_is_that_of_the_file(classifier_artifact, tmp_path):
    digest = write_archive(classifier_artifact, tmp_path / "a.tar.gz")
    assert digest == hashlib.sha256((tmp_path / "a.tar.gz").read_bytes()).hexdigest()


def test_names_times_owners_and_modes_leave_no_trace(classifier_artifact, archive, tmp_path):
    copy = shutil.copytree(classifier_artifact, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    write_archive(copy, tmp_path / "another name.tar.gz")
    assert (tmp_path / "another name.tar.gz").read_bytes() == archive.read_bytes()

    with tarfile.open(archive) as opened:
        members = opened.getmembers()
    assert {member.mtime for member in members} == {0}
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {
        (0, 0, "", "")
    }
    assert {member.mode for member in members if member.isfile()} == {0o644}
    assert {member.mode for member in members if member.isdir()} == {0o755}
    flags, time = archive.read_bytes()[3], archive.read_bytes()[4:8]
    assert (flags, time) == (0, bytes(4))  # RFC 1952: no name, no time.


def test_a_folder_has_an_entry_before_its_files(archive):
    # The resolver of TF Hub makes no other folders (`tensorflow_hub/file_utils.py`).
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    assert names == sorted(names)
    assert all("/" not in name or name.rpartition("/")[0] in names for name in names)


@pytest.mark.parametrize(
    "name", ["README.md", "variables/labels.txt", "keras_metadata.pb.txt", ".DS_Store"]
)
def test_a_file_that_tfhub_dev_refuses_is_named(classifier_artifact, tmp_path, name):
    # `tensorflow/tfhub.dev`, `tools/validator.py`, ALLOWED_SAVED_MODEL_PATHS.
    copy = shutil.copytree(classifier_artifact, tmp_path / "copy")
    (copy / name).write_text("words")
    with pytest.raises(ExportError, match=rf"contains {name}, which does not belong"):
        write_archive(copy, tmp_path / "a.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()


def test_a_folder_without_a_saved_model_is_refused(tmp_path):
    with pytest.raises(ExportError, match="is not a SavedModel"):
        write_archive(tmp_path, tmp_path / "a.tar.gz")


def test_a_sound_archive_is_accepted(classifier_artifact, archive):
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    require_archive_of(classifier_artifact, archive, digest)


def repacked(archive, path, change):
    """Writes an archive with its list of (name, content of a file or None) changed."""
    with tarfile.open(archive) as opened:
        members = [
            (member.name, opened.extractfile(member).read() if member.isfile() else None)
            for member in opened
        ]
    with tarfile.open(path, "w:gz") as opened:
        for name, content in change(members):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            opened.addfile(member, io.BytesIO(content or b""))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda members: members[:-1], "lacks variables/variables.index"),
        (lambda members: [*members, ("../x", b"")], "../x in .* is not what"),
        (lambda members: [*members, ("assets/x", b"")], "assets/x in .* is not what"),
        (lambda members: [*members, members[-1]], "variables/variables.index in .* is not what"),
        (
            lambda members: [(n, b and b[:-1] + bytes([b[-1] ^ 1])) for n, b in members],
            "is not what",
        ),
        (lambda members: [(n, b"") for n, b in members], "is not what"),
    ],
    ids=["missing", "outside", "unknown", "double", "other content", "file for folder"],
)
def test_an_archive_of_something_else_is_found(
    classifier_artifact, archive, tmp_path, change, sentence
):
    repacked(archive, tmp_path / "a.tar.gz", change)
    with pytest.raises(ExportError, match=sentence):
        require_archive_of(classifier_artifact, tmp_path / "a.tar.gz")


def test_a_damaged_archive_is_found(classifier_artifact, archive, tmp_path):
    path, content = tmp_path / "a.tar.gz", archive.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (content[:middle], flipped, b"", b"no archive", gzip.compress(b"no archive")):
        path.write_bytes(damaged)
        with pytest.raises(ExportError, match=r"cannot be read|is not what|lacks"):
            require_archive_of(classifier_artifact, path)
        with pytest.raises(ExportError, match="its sha256 is not the recorded one"):
            require_archive_of(classifier_artifact, path, digest)
    path.unlink()
    with pytest.raises(ExportError, match="cannot be read"):
        require_archive_of(classifier_artifact, path)


@contextlib.contextmanager
def served(path):
    """Serves one file at any address, as tfhub.dev did; yields the address, and the requests."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()


# tf_keras and tensorflow_hub use names that NumPy and setuptools are about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_keras_layer_loads_it_from_a_server(classifier_artifact, archive, tmp_path, monkeypatch):
    hub = pytest.importorskip("tensorflow_hub")
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    reference = Artifact(classifier_artifact).read_reference()
    with served(archive) as (address, requests):
        layer = hub.KerasLayer(f"{address}/some-body/tiny/1", trainable=True)
    assert requests == ["/some-body/tiny/1?tf-hub-format=compressed"]
    outputs = np.asarray(layer(reference["inputs"]))
    assert relative_difference(outputs, reference[OUTPUTS["classification"]]) < 1e-5
    assert len(layer.trainable_weights) > 0
