"""What is sent to Hugging Face and to Kaggle, and what is not."""

import base64
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import shutil
import socket
import sys
import threading
from pathlib import Path
from unittest import mock

import huggingface_hub
import kagglehub
import kagglesdk.kaggle_env
import keras
import pytest
from click.testing import CliRunner
from kagglehub.gcs_upload import MAX_FILES_TO_UPLOAD

from bit_keras.cli import main
from bit_keras.collection.archive import write_archive
from bit_keras.collection.builder import build_collection
from bit_keras.collection.recipe import Recipe
from bit_keras.collection.uploads import plan, send
from bit_keras.errors import ExportError

# They build a collection, with a process for each artifact.
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        keras.backend.backend() != "tensorflow", reason="SavedModels need the TensorFlow backend."
    ),
]

ROOT = Path(__file__).parents[2]

RECIPE = """
[collection]
name = "small"
title = "Small networks"
publisher = "some-body"
publisher_title = "Some Body"
description = "Two small networks."
archives = "https://example.com/bit/"

[[models]]
name = "bit_tiny_{variant}"
model = "bit_tiny.cifar10"
variant = ["classification", "feature_extraction"]
"""
NAMES = ("bit_tiny_classification", "bit_tiny_feature_extraction")
REPOSITORIES = [f"some-body/{name}" for name in NAMES]
VARIATIONS = [f"some-body/small/tensorFlow2/{name.replace('_', '-')}" for name in NAMES]
ADDRESSES = {"huggingface": REPOSITORIES, "kaggle": VARIATIONS}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A collection, as `bit-keras collection` builds it."""
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE)
    recipe = dataclasses.replace(Recipe.read(path), folder=ROOT / "export")
    folder = tmp_path_factory.mktemp("built") / "collection"
    assert not any(outcome.error for outcome in build_collection(recipe, folder))
    return folder


@pytest.fixture
def collection(built, tmp_path):
    """A copy of the collection that a test may change."""
    return shutil.copytree(built, tmp_path / "collection")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Somebody who is logged in nowhere, without progress bars."""
    for name in ("HF_TOKEN", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


@pytest.fixture
def no_network(monkeypatch):
    """Sockets that cannot be connected."""

    def refuse(*arguments):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def run(*arguments):
    result = CliRunner().invoke(main, ["publish", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def fails(*arguments):
    """Runs a command that must fail; returns its one sentence."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    return result.stderr.splitlines()[-1]


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }


def expected_files(collection, name, place):
    """Path at the place -> local file, from what is on the disk."""
    files = files_below(collection / "models" / name / "1")
    if place == "huggingface":
        files["README.md"] = collection / "pages" / "huggingface" / name / "README.md"
    return files


# The plan


@pytest.mark.parametrize("place", ["huggingface", "kaggle"])
def test_the_plan_lists_exactly_the_files_on_the_disk(built, place):
    uploads = plan(built, place)
    assert [upload.address for upload in uploads] == ADDRESSES[place]
    for upload, name in zip(uploads, NAMES, strict=True):
        planned = {file.target: file.source for file in upload.files}
        assert len(planned) == len(upload.files) < MAX_FILES_TO_UPLOAD
        assert planned == expected_files(built, name, place)
        assert [file.bytes for file in upload.files] == [
            file.source.stat().st_size for file in upload.files
        ]
    assert "saved_model.pb" in planned
    assert "variables/variables.index" in planned


@pytest.mark.parametrize("place", ["huggingface", "kaggle"])
def test_a_dry_run_needs_neither_network_nor_library_and_its_json_is_the_plan(
    built, place, no_network, monkeypatch
):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    result = run(built, "--to", place, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["to"], document["dry_run"]) == (place, True)
    for upload, name, address in zip(document["uploads"], NAMES, ADDRESSES[place], strict=True):
        files = expected_files(built, name, place)
        pages = built / "pages" / "kaggle"
        metadata = [pages / "model-metadata.json", pages / name / "model-instance-metadata.json"]
        assert {file["target"]: file for file in upload.pop("files")} == {
            target: {"source": str(path), "target": target, "bytes": path.stat().st_size}
            for target, path in files.items()
        }
        assert upload == {
            "address": address,
            "version": 1,
            "sent": False,
            "bytes": sum(path.stat().st_size for path in files.values()),
            "not_sent": [str(path) for path in metadata] if place == "kaggle" else [],
        }


def test_a_dry_run_prints_every_file_and_the_totals(built, no_network):
    output = run(built, "--to", "huggingface", "--dry-run").stdout
    for name, address in zip(NAMES, REPOSITORIES, strict=True):
        assert address in output
        for target, path in expected_files(built, name, "huggingface").items():
            assert target in output
            assert f"{path.stat().st_size:,}" in output
    count = sum(len(expected_files(built, name, "huggingface")) for name in NAMES)
    total = sum(upload.bytes for upload in plan(built, "huggingface"))
    assert f"To send: {count} files, {total / 1e6:.1f} MB, to 2 of 2 addresses. Nothing was" in (
        output
    )


def test_kaggle_s_own_commands_for_the_pages_are_shown(built):
    lines = run(built, "--to", "kaggle", "--dry-run").stdout.splitlines()
    pages = built / "pages" / "kaggle"
    assert [line.strip() for line in lines if "update -p" in line] == [
        f"kaggle models update -p {pages}",
        *(f"kaggle models instances update -p {pages / name}" for name in NAMES),
    ]


def test_another_owner_changes_the_addresses_and_is_told_of_the_pages(built):
    result = run(built, "--to", "huggingface", "--owner", "my-lab", "--dry-run", "--json")
    addresses = [upload["address"] for upload in json.loads(result.stdout)["uploads"]]
    assert addresses == [f"my-lab/{name}" for name in NAMES]
    assert "The pages name the owner some-body; they stay as they are for my-lab." in result.stderr


def test_wrong_usage_has_status_2(built):
    assert run(built).exit_code == 2
    assert run(built, "--to", "tfhub").exit_code == 2
    with pytest.raises(ExportError, match=r"'tfhub' is not a place .* huggingface, kaggle"):
        plan(built, "tfhub")


# Damaged collections


def flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def append_byte(path):
    path.write_bytes(path.read_bytes() + b"x")


VARIABLES = "1/variables/variables.data-00000-of-00001"
DAMAGES = {
    "archive": (flip_last_byte, f"{NAMES[1]}.tar.gz", "is damaged"),
    "long archive": (append_byte, f"{NAMES[1]}.tar.gz", "and the manifest says"),
    "missing archive": (Path.unlink, f"{NAMES[1]}.tar.gz", "has 0 bytes"),
    "variables": (flip_last_byte, VARIABLES, VARIABLES.removeprefix("1/")),
    "long variables": (append_byte, VARIABLES, "and the manifest says"),
    "missing file": (Path.unlink, "1/saved_model.pb", "and the manifest says"),
}


@pytest.mark.parametrize("place", ["huggingface", "kaggle"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_artifact_is_named_and_nothing_is_sent(
    collection, damage, place, hub, kaggle_upload
):
    change, name, words = DAMAGES[damage]
    change(collection / "models" / NAMES[1] / name)
    sentence = fails(collection, "--to", place)
    assert NAMES[1] in sentence
    assert words in sentence
    assert hub.mock_calls == kaggle_upload.mock_calls == []


def test_a_file_that_nobody_planned_for_is_named(collection):
    # As a file manager leaves one; the sum of the sizes is right.
    model = collection / "models" / NAMES[0]
    (model / "1" / ".DS_Store").touch()
    assert "contains .DS_Store, which does not belong" in fails(collection, "--to", "kaggle")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("manifest.json", "kaggle"),
        (f"pages/huggingface/{NAMES[0]}/README.md", "huggingface"),
        (f"pages/kaggle/{NAMES[0]}/model-instance-metadata.json", "kaggle"),
    ],
)
def test_a_missing_file_of_the_collection_is_named(collection, name, place):
    (collection / name).unlink()
    sentence = fails(collection, "--to", place)
    assert str(collection / name) in sentence
    assert "collection" in sentence.replace(str(collection), "")


def test_other_documents_in_their_place_are_refused(collection):
    metadata = collection / "pages" / "kaggle" / NAMES[0] / "model-instance-metadata.json"
    written = metadata.read_text()
    metadata.write_text("{}")
    assert "lacks 'modelSlug'; build the collection again" in fails(collection, "--to", "kaggle")
    metadata.write_text(written)
    (collection / "sent-to-kaggle.json").write_text("{")
    assert "repair it, or remove it to send everything" in fails(collection, "--to", "kaggle")
    (collection / "manifest.json").write_text("[]")
    sentence = fails(collection, "--to", "kaggle")
    assert "manifest.json cannot be read (the document must be an object" in sentence
    assert "build the collection again" in sentence


# Calls of the client libraries, which must fit their real signatures


@pytest.fixture
def hub(monkeypatch):
    """`huggingface_hub.HfApi`, of which a new repository contains two files."""
    api = mock.create_autospec(huggingface_hub.HfApi, instance=True)
    api.list_repo_files.return_value = [".gitattributes", "README.md", "old/weights.h5"]
    api.create_commit.return_value = mock.Mock(oid="5" * 40)
    create = mock.create_autospec(huggingface_hub.HfApi, return_value=api)
    monkeypatch.setattr(huggingface_hub, "HfApi", create)
    return api


@pytest.fixture
def kaggle_upload(monkeypatch):
    upload = mock.create_autospec(kagglehub.model_upload, return_value=None)
    monkeypatch.setattr(kagglehub, "model_upload", upload)
    return upload


def test_one_commit_per_repository_has_the_planned_files_and_deletes_all_others(built, hub):
    result = run(built, "--to", "huggingface")
    assert result.exit_code == 0, result.output
    assert [call.args for call in hub.create_repo.call_args_list] == [(r,) for r in REPOSITORIES]
    assert all(call.kwargs["private"] for call in hub.create_repo.call_args_list)
    assert len(hub.create_commit.call_args_list) == 2
    for call, name, repository in zip(
        hub.create_commit.call_args_list, NAMES, REPOSITORIES, strict=True
    ):
        address, operations = call.args
        *additions, deletion = operations
        assert address == repository
        assert {operation.path_in_repo: operation.path_or_fileobj for operation in additions} == {
            target: str(path) for target, path in expected_files(built, name, "huggingface").items()
        }
        assert deletion == huggingface_hub.CommitOperationDelete("old/weights.h5", False)
    for call in hub.create_tag.call_args_list:
        assert call.kwargs == {"tag": "v1", "revision": "5" * 40, "exist_ok": True}
    count = sum(len(expected_files(built, name, "huggingface")) for name in NAMES)
    assert f"Sent: {count} files" in result.stdout


def test_one_call_per_variation_sends_the_folder_of_the_saved_model(collection, kaggle_upload):
    result = run(collection, "--to", "kaggle", "--json")
    assert result.exit_code == 0, result.output
    assert kaggle_upload.call_args_list == [
        mock.call(
            address,
            str(collection / "models" / name / "1"),
            license_name="Apache 2.0",
            version_notes="Version 1",
        )
        for name, address in zip(NAMES, VARIATIONS, strict=True)
    ]
    assert [upload["sent"] for upload in json.loads(result.stdout)["uploads"]] == [True, True]


def test_kaggle_gets_no_variation_twice_after_an_upload_that_broke_off(collection, kaggle_upload):
    kaggle_upload.side_effect = [None, ConnectionError("reset by peer")]
    sentence = fails(collection, "--to", "kaggle")
    assert f"{VARIATIONS[1]} could not be sent to Kaggle (reset by peer)" in sentence
    assert sentence.endswith(f"Sent before it: {VARIATIONS[0]}.")
    assert "sent before" in run(collection, "--to", "kaggle", "--dry-run").stdout

    kaggle_upload.side_effect = None
    result = run(collection, "--to", "kaggle")
    assert "to 1 of 2 addresses" in result.stdout
    addresses = [call.args[0] for call in kaggle_upload.call_args_list]
    assert addresses == [VARIATIONS[0], VARIATIONS[1], VARIATIONS[1]]
    assert all(upload.sent for upload in plan(collection, "kaggle"))
    # Another owner has none of it.
    assert not any(upload.sent for upload in plan(collection, "kaggle", "my-lab"))


def test_kaggle_gets_an_artifact_that_was_built_anew(collection, kaggle_upload):
    send(plan(collection, "kaggle"))
    (collection / "models" / NAMES[0] / "1" / "assets.extra" / "golden.npz").write_bytes(b"new")
    path = collection / "manifest.json"
    manifest = json.loads(path.read_text())
    record = manifest["models"][0]
    model = collection / "models" / NAMES[0]
    record["archive_sha256"] = write_archive(model / "1", model / record["archive"])
    record["archive_bytes"] = (model / record["archive"]).stat().st_size
    record["bytes"] = sum(file.stat().st_size for file in files_below(model / "1").values())
    path.write_text(json.dumps(manifest))
    (model / "record.json").write_text(json.dumps(record))
    assert [upload.sent for upload in plan(collection, "kaggle")] == [False, True]


@pytest.mark.parametrize(
    ("place", "package"), [("huggingface", "huggingface_hub"), ("kaggle", "kagglehub")]
)
def test_a_missing_client_library_is_named(built, place, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    sentence = fails(built, "--to", place)
    assert f"{package}: pip install 'bit_keras[publish]'" in sentence


# The real client libraries, over the loopback interface


class Server(http.server.ThreadingHTTPServer):
    """A web server whose `output` takes method, path and body: status and document."""

    def __init__(self, output):
        super().__init__(("127.0.0.1", 0), Handler)
        self.output = output
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        status, document = self.server.output(self.command, path, body)
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        # kagglehub says on standard output that there is a newer one.
        self.send_header("X-Kaggle-HubVersion", "999.0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(output):
    with Server(output) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join(timeout=10)


@pytest.fixture
def closed_port():
    """The address of nobody."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class StandInHub:
    """What `huggingface_hub` needs of the Hugging Face hub, for files that are not LFS files."""

    def __init__(self):
        self.files = {}
        self.commits = []
        self.tags = {}
        self.refused = None

    def output(self, method, path, body):
        if path == "/api/repos/create":
            fields = json.loads(body)
            return self.create(f"{fields['organization']}/{fields['name']}", fields)
        if path == "/api/validate-yaml":
            return 200, {}
        _, _, _, owner, name, *action = path.split("/")
        if not action:  # Asked after a refusal, in case that the repository is there.
            return 404, {"error": "Repository not found"}
        return getattr(self, action[0])(f"{owner}/{name}", action[1], body)

    def create(self, repository, fields):
        if repository == self.refused:
            return 403, {"error": "You have no write access."}
        assert fields["visibility"] == "private"
        status = 409 if repository in self.files else 200
        self.files.setdefault(repository, {".gitattributes": b"", "old/weights.h5": b"old"})
        return status, {"url": f"https://huggingface.co/{repository}"}

    def tree(self, repository, revision, body):
        return 200, [
            {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
            for path, content in self.files[repository].items()
        ]

    def preupload(self, repository, revision, body):
        files = self.files[repository]
        modes = []
        for file in json.loads(body)["files"]:
            oid = git_hash(files[file["path"]]) if file["path"] in files else None
            modes.append(
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": oid}
            )
        return 200, {"files": modes}

    def commit(self, repository, revision, body):
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines[1:]:
            path = line["value"]["path"]
            if line["key"] == "file":
                self.files[repository][path] = base64.b64decode(line["value"]["content"])
            else:
                assert line["key"] == "deletedFile"
                del self.files[repository][path]
        self.commits.append((repository, lines[0]["value"]["summary"]))
        return 200, {"commitUrl": f"https://huggingface.co/{repository}", "commitOid": self.head()}

    def revision(self, repository, revision, body):
        return 200, {"id": repository, "sha": self.head()}

    def tag(self, repository, revision, body):
        key = repository, json.loads(body)["tag"]
        status = 409 if key in self.tags else 200
        self.tags.setdefault(key, revision)
        return status, {}

    def head(self):
        return f"{len(self.commits):040}"


def git_hash(content):
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()


@pytest.fixture
def stand_in_hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    hub = StandInHub()
    with serving(hub.output) as url:
        use_hub(monkeypatch, url)
        yield hub


def use_hub(monkeypatch, url):
    api = functools.partial(huggingface_hub.HfApi, endpoint=url)
    monkeypatch.setattr(huggingface_hub, "HfApi", api)


def contents(collection, name, place):
    files = expected_files(collection, name, place)
    return {target: path.read_bytes() for target, path in files.items()}


def test_repositories_are_equal_to_the_plan_and_sending_again_changes_nothing(built, stand_in_hub):
    for _ in range(2):
        result = run(built, "--to", "huggingface")
        assert result.exit_code == 0, result.output
    assert stand_in_hub.commits == [(repository, "Version 1") for repository in REPOSITORIES]
    for name, repository in zip(NAMES, REPOSITORIES, strict=True):
        want = contents(built, name, "huggingface")
        assert stand_in_hub.files[repository] == {".gitattributes": b"", **want}
    assert stand_in_hub.tags == {
        (repository, "v1"): f"{number:040}" for number, repository in enumerate(REPOSITORIES, 1)
    }


def test_a_refusal_says_what_was_sent_before_and_the_next_run_continues(built, stand_in_hub):
    stand_in_hub.refused = REPOSITORIES[1]
    sentence = fails(built, "--to", "huggingface")
    assert f"Hugging Face did not allow writing to {REPOSITORIES[1]} (status 403); run" in sentence
    assert sentence.endswith(f"Sent before it: {REPOSITORIES[0]}.")
    stand_in_hub.refused = None
    assert run(built, "--to", "huggingface").exit_code == 0
    assert [repository for repository, _ in stand_in_hub.commits] == REPOSITORIES


def test_without_a_token_nothing_is_requested_from_hugging_face(
    built, tmp_path, no_network, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    sentence = fails(built, "--to", "huggingface")
    assert "run `hf auth login` or set HF_TOKEN" in sentence


def test_hugging_face_out_of_reach_is_a_sentence(built, closed_port, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    use_hub(monkeypatch, closed_port)
    sentence = fails(built, "--to", "huggingface")
    assert f"{REPOSITORIES[0]} could not be sent to Hugging Face (" in sentence
    assert "refused" in sentence
    assert sentence.endswith("Sent before it: nothing.")


class StandInKaggle:
    """What `kagglehub.model_upload` needs of Kaggle."""

    def __init__(self):
        self.url = ""
        self.blobs = {}
        self.variations = {}
        self.models = []
        self.error = None

    def output(self, method, path, body):
        if method == "PUT":
            self.blobs[path.removeprefix("/")][1] = body
            return 200, {}
        request, action = json.loads(body), path.rpartition("/")[2]
        return getattr(self, action)(request)

    def GetModel(self, request):
        known = (request["ownerSlug"], request["modelSlug"]) in self.models
        return (200, {}) if known else (404, {"code": 404, "message": "not found"})

    def CreateModel(self, request):
        if self.error is not None:
            return self.error
        assert request["isPrivate"]
        self.models.append((request["ownerSlug"], request["slug"]))
        return 200, {}

    def StartBlobUpload(self, request):
        token = f"blob-{len(self.blobs)}"
        self.blobs[token] = [request["name"], b""]
        return 200, {"token": token, "createUrl": f"{self.url}/{token}"}

    def CreateModelInstance(self, request):
        fields = request["body"]
        assert fields["licenseName"] == "Apache 2.0"
        # The number of TensorFlow 2 in `ModelFramework`, or its name.
        assert "TENSOR_FLOW_2" in fields["framework"].upper()
        files = self.tree(fields)
        self.variations[f"{request['modelSlug']}/{fields['instanceSlug']}"] = files
        return 200, {}

    def tree(self, folder, above=""):
        """Path -> content of all files below a folder of the request."""
        files = {}
        for file in folder.get("files", []):
            name, content = self.blobs[file["token"]]
            files[above + name] = content
        for below in folder.get("directories", []):
            files |= self.tree(below, f"{above}{below['name']}/")
        return files


@pytest.fixture
def stand_in_kaggle(monkeypatch):
    monkeypatch.setattr(kagglehub.clients, "already_printed_version_warning", True)
    kaggle = StandInKaggle()
    with serving(kaggle.output) as url:
        kaggle.url = url
        use_kaggle(monkeypatch, url)
        yield kaggle


def use_kaggle(monkeypatch, url):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "of-nobody")
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    environment = kagglesdk.kaggle_env.KaggleEnv.LOCAL
    monkeypatch.setitem(kagglesdk.kaggle_env._env_to_endpoint, environment, url)


def test_kagglehub_sends_exactly_the_planned_files_in_their_folders(
    collection, stand_in_kaggle, monkeypatch
):
    monkeypatch.setattr(kagglehub.clients, "already_printed_version_warning", False)
    result = run(collection, "--to", "kaggle", "--json")
    assert result.exit_code == 0, result.output
    assert "outdated `kagglehub`" in result.stderr
    assert json.loads(result.stdout)["to"] == "kaggle"
    assert stand_in_kaggle.models == [("some-body", "small")]
    assert stand_in_kaggle.variations == {
        f"small/{name.replace('_', '-')}": contents(collection, name, "kaggle") for name in NAMES
    }


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ((401, {"code": 401, "message": "Unauthenticated"}), "(status 401); set KAGGLE_API_TOKEN"),
        ((403, {}), "(status 403); set KAGGLE_API_TOKEN"),
        ((200, {"error": "Not yours", "errorCode": 403}), "(status 403); set KAGGLE_API_TOKEN"),
        ((200, {"error": "The slug is taken"}), "to Kaggle (The slug is taken); once that"),
        ((500, {}), "to Kaggle (500 Server Error"),
    ],
)
def test_what_kaggle_refuses_is_a_sentence(collection, stand_in_kaggle, output, words):
    stand_in_kaggle.error = output
    sentence = fails(collection, "--to", "kaggle")
    assert VARIATIONS[0] in sentence
    assert words in sentence
    assert not (collection / "sent-to-kaggle.json").exists()


def test_kaggle_out_of_reach_is_a_sentence(collection, closed_port, monkeypatch):
    use_kaggle(monkeypatch, closed_port)
    sentence = fails(collection, "--to", "kaggle")
    assert f"{VARIATIONS[0]} could not be sent to Kaggle (" in sentence
    assert "refused" in sentence
