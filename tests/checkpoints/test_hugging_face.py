"""Repositories of the Hugging Face hub: the real client, and a hub on the loopback interface."""

import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import socket
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.download import pretrained_path
from bit_keras.checkpoints.files import write_npz
from bit_keras.checkpoints.hugging_face import is_repository, repository_weights
from bit_keras.checkpoints.writing import write_checkpoint
from bit_keras.errors import CheckpointError, DownloadError
from bit_keras.registry import model_info
from bit_keras.sources import resolve

huggingface_hub = pytest.importorskip("huggingface_hub", reason="it fetches the repositories")

REPOSITORY = "timm/tiny.test"
SOURCE = f"hf://{REPOSITORY}"
FIRST, SECOND = "1" * 40, "2" * 40


class Hub(http.server.ThreadingHTTPServer):
    """What huggingface_hub needs of the hub to download; large files are elsewhere, as there.

    Attributes:
        commits: dict from branch or tag to commit.
        files: dict from commit to dict from name to content.
        requests: list of (method, path, range), one for each request.
        sent: dict from name to what is sent in the place of the content.
        cut_after: closes the connection once after so many bytes of a body.
        refusal: a status and the code that the hub gives for it, for every request.
        pause: sets `waiting` before a large body, and waits for `release`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits, self.files = {"main": FIRST}, {FIRST: {}}
        self.requests, self.sent = [], {}
        self.cut_after = self.refusal = None
        self.pause = False
        self.waiting, self.release = threading.Event(), threading.Event()

    def downloads(self, name):
        """The ranges that were requested of the content of a file."""
        ends = [
            (path.endswith(f"/{name}"), method, requested)
            for method, path, requested in self.requests
        ]
        return [requested for ours, method, requested in ends if ours and method == "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.output()

    def do_GET(self):
        self.output()

    def output(self):
        hub, requested = self.server, self.headers.get("Range")
        hub.requests.append((self.command, self.path, requested))
        if hub.refusal:
            return self.refuse(*hub.refusal)
        if self.path.startswith("/storage/"):
            _, _, commit, name = self.path.split("/")
            return self.send(hub.sent.get(name, hub.files[commit][name]), requested)
        if not self.path.startswith(f"/{REPOSITORY}/resolve/"):
            return self.refuse(404, "RepoNotFound")
        revision, name = self.path.split("/")[-2:]
        commit = hub.commits.get(revision, revision)
        if commit not in hub.files:
            return self.refuse(404, "RevisionNotFound")
        content = hub.files[commit].get(name)
        if content is None:
            return self.refuse(404, "EntryNotFound", commit)
        self.point_to(name, content, commit, requested)

    def point_to(self, name, content, commit, requested):
        headers = {"X-Repo-Commit": commit}
        if name.endswith(".json"):  # In git, whose digest is not only of the content.
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.send(content, requested, headers)
        headers["X-Linked-ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        headers["X-Linked-Size"] = str(len(content))
        # Another host: the client follows redirections to the hub itself for the headers.
        storage = f"http://localhost:{self.server.server_port}/storage"
        headers["Location"] = f"{storage}/{commit}/{name}"
        self.reply(302, headers, b"")

    def send(self, content, requested, headers=None):
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0
        self.reply(206 if start else 200, headers or {}, content[start:])

    def refuse(self, status, code, commit=None):
        headers = {"X-Error-Code": code, "X-Error-Message": "no"}
        if commit:
            headers["X-Repo-Commit"] = commit
        self.reply(status, headers, b"")

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD" or not body:
            return
        if self.server.pause and self.path.startswith("/storage/"):
            self.server.waiting.set()
            self.server.release.wait(60)
        cut, self.server.cut_after = self.server.cut_after, None
        with contextlib.suppress(OSError):  # The client may be gone.
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def log_message(self, *_):
        """Keeps the tests' output clean."""


@pytest.fixture(scope="module")
def weights(tiny_arrays, tmp_path_factory):
    """The bytes of a small network as timm stores it."""
    folder = tmp_path_factory.mktemp("timm")
    write_npz(folder / "tiny.npz", tiny_arrays)
    with open_checkpoint(folder / "tiny.npz") as arrays:
        write_checkpoint(folder / "model.safetensors", arrays, "timm")
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of huggingface_hub, which reads its variables when it is imported."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("BIT_KERAS_WEIGHTS", raising=False)
    monkeypatch.setenv("BIT_KERAS_CACHE", str(tmp_path / "digests"))
    return folder


def point_at(url, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(cache, weights, monkeypatch):
    with Hub() as running:
        running.files[FIRST] = {
            "config.json": b'{"architecture": "resnetv2_50x1_bit"}',
            "model.safetensors": weights,
            "pytorch_model.bin": b"the same once more",
            "README.md": b"words",
        }
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        point_at(running.url, monkeypatch)
        yield running
        running.release.set()
        running.shutdown()
        thread.join(10)


def failure(source=SOURCE):
    with pytest.raises(DownloadError) as raised:
        repository_weights(source)
    message = str(raised.value)
    assert "\n" not in message
    return message


def blobs(cache):
    """The digests of the large files in the cache, and what is next to them."""
    return sorted(path.name for path in cache.glob("*/blobs/*") if len(path.name) != 40)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf://timm/x.y_z", True),
        ("timm/x.y_z", True),
        ("hf://google/bit-50@refs/pr/1", True),
        ("hf://", True),
        ("google/bit-50", False),
        ("timm/x/y", False),
        ("bit_tiny.cifar10", False),
        ("./timm/x", False),
    ],
)
def test_repositories_are_known_by_their_names(name, expected):
    assert is_repository(name) is expected


@pytest.mark.parametrize("source", ["hf://", "hf://timm", "hf://a/b/c", "hf://a/b@", "hf://a b/c"])
def test_other_names_are_refused_with_the_form(source):
    assert failure(source) == (
        f"{source!r} names no repository; write hf://OWNER/NAME, or hf://OWNER/NAME@REVISION."
    )


@pytest.mark.parametrize("source", [SOURCE, REPOSITORY])
def test_the_first_use_downloads_and_the_second_compares(hub, cache, weights, tiny_arrays, source):
    folder = resolve(source).weights()
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    with open_checkpoint(folder) as arrays:
        assert arrays.format == "safetensors, timm"
        assert all(np.array_equal(arrays[name], value) for name, value in tiny_arrays.items())
    assert hub.downloads("model.safetensors") == [None]
    assert resolve(source).weights() == folder
    assert hub.downloads("model.safetensors") == [None]
    assert not [path for _, path, _ in hub.requests if "README" in path or ".bin" in path]


def test_older_repositories_have_a_file_of_pytorch(hub, cache):
    del hub.files[FIRST]["model.safetensors"]
    path = repository_weights(SOURCE)
    assert path.name == "pytorch_model.bin"
    assert path.read_bytes() == b"the same once more"


def test_a_newer_commit_is_taken_and_an_older_one_can_be_named(hub, cache, weights):
    hub.commits |= {"v1": FIRST}
    repository_weights(SOURCE)
    hub.files[SECOND], hub.commits["main"] = {"model.safetensors": weights[::-1]}, SECOND
    assert repository_weights(SOURCE).read_bytes() == weights[::-1]
    for revision in ("v1", FIRST):
        assert repository_weights(f"{SOURCE}@{revision}").read_bytes() == weights
    assert hub.downloads("model.safetensors") == [None, None]


def test_a_broken_connection_is_taken_up_again(hub, cache, weights, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.cut_after = 100_000
    assert repository_weights(SOURCE).read_bytes() == weights
    first, second = hub.downloads("model.safetensors")
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= 100_000


def flipped(data):
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def test_wrong_bytes_are_deleted(hub, cache, weights):
    hub.sent["model.safetensors"] = flipped(weights)
    digests = [hashlib.sha256(data).hexdigest() for data in (flipped(weights), weights)]
    assert failure() == (
        "model.safetensors failed its check and was deleted; try again. "
        f"(Its sha256 is {digests[0]} and should be {digests[1]}.)"
    )
    assert blobs(cache) == []
    hub.sent.clear()
    assert repository_weights(SOURCE).read_bytes() == weights
    assert blobs(cache) == [digests[1]]


def test_a_file_of_another_size_is_refused(hub, cache, weights):
    hub.sent["model.safetensors"] = weights[:-5]
    assert "file should be of size" in failure()
    assert blobs(cache) == []


def test_what_is_in_the_cache_is_not_read_again(hub, cache, weights):
    path = repository_weights(SOURCE)
    path.resolve().write_bytes(flipped(weights))
    assert repository_weights(SOURCE) == path


def test_a_repository_without_weights_is_named(hub, cache):
    hub.files[FIRST] = {"config.json": b"{}", "saved_model.pb": b""}
    assert failure() == (
        f"{SOURCE} contains neither model.safetensors nor pytorch_model.bin; only such weights can "
        "be read from a repository."
    )


def test_a_repository_that_is_not_there_is_named(hub, cache):
    assert failure("hf://timm/nowhere") == (
        f"There is no repository {hub.url}/timm/nowhere, or it is private; look at its name, or "
        "log in with `hf auth login`, or set HF_TOKEN."
    )


def test_a_revision_that_is_not_there_is_named(hub, cache):
    assert failure(f"{SOURCE}@v9") == (
        f"{hub.url}/{REPOSITORY} has no revision 'v9'; omit it to take the newest."
    )


def test_a_gated_repository_says_what_to_do(hub, cache):
    hub.refusal = (401, "GatedRepo")
    assert failure() == (
        f"{hub.url}/{REPOSITORY} is gated: accept its terms there, and log in with "
        "`hf auth login`, or set HF_TOKEN."
    )


def test_the_token_is_sent_to_the_hub(hub, cache, monkeypatch):
    seen = []
    before = Handler.output

    def output(self):
        seen.append(self.headers.get("Authorization"))
        before(self)

    monkeypatch.setattr(Handler, "output", output)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    repository_weights(SOURCE)
    assert seen[0] == "Bearer hf_test"


def unreachable(url, reason):
    return (
        f"{url}/{REPOSITORY} cannot be fetched ({reason}), and its weights are not in the cache of "
        "huggingface_hub; try again with a network, or pass the path of a file."
    )


def test_a_server_in_trouble_is_named(hub, cache):
    hub.refusal = (403, "Forbidden")
    assert failure() == unreachable(hub.url, "status 403")


def test_a_server_that_is_not_a_hub_is_named(hub, cache, monkeypatch):
    monkeypatch.setattr(Handler, "output", lambda self: self.reply(200, {}, b"Welcome"))
    assert failure() == unreachable(hub.url, "the server there is not a Hugging Face hub")


def test_without_a_network_the_cache_is_taken(hub, cache, weights, monkeypatch):
    path = repository_weights(SOURCE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    requested = len(hub.requests)
    assert repository_weights(SOURCE) == path
    assert len(hub.requests) == requested
    assert failure("hf://timm/another").startswith(
        f"{hub.url}/timm/another cannot be fetched (HF_HUB_OFFLINE is set), and its weights"
    )


def test_without_a_connection_the_cache_is_taken(hub, cache, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)  # Between the tries.
    path = repository_weights(SOURCE)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    point_at(nobody, monkeypatch)
    assert repository_weights(SOURCE) == path
    assert failure("hf://timm/another") == unreachable(nobody, "no connection").replace(
        REPOSITORY, "timm/another"
    )


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    sentence = failure()
    assert SOURCE in sentence
    assert "huggingface_hub: pip install 'bit_keras[huggingface]'" in sentence


def test_published_weights_may_be_in_a_repository(hub, cache, weights, monkeypatch):
    checkpoint = dataclasses.replace(model_info("bit_tiny.cifar10"), url=SOURCE)
    assert pretrained_path(checkpoint).read_bytes() == weights
    # A mirror is one of the official files.
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", "http://127.0.0.1:9")
    assert pretrained_path(checkpoint).read_bytes() == weights
    monkeypatch.setattr("bit_keras.models.builders.model_info", lambda name: checkpoint)
    model = bit_keras.create_classifier("bit_tiny.cifar10")
    with open_checkpoint(pretrained_path(checkpoint)) as arrays:
        bias = keras.ops.convert_to_numpy(model.get_layer("head").bias)
        assert np.array_equal(bias, arrays["resnet/head/conv2d/bias"])


@pytest.mark.parametrize("place", [REPOSITORY, "tiny.test"])
def test_a_folder_takes_the_place_of_the_hub(tmp_path, cache, place, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    checkpoint = dataclasses.replace(model_info("bit_tiny.cifar10"), url=SOURCE)
    with pytest.raises(DownloadError) as raised:
        pretrained_path(checkpoint)
    assert str(raised.value) == (
        f"BIT_KERAS_WEIGHTS names the folder {tmp_path}, and {REPOSITORY}/model.safetensors of "
        "bit_tiny.cifar10 is not in it; put the file there, or unset the variable to download it."
    )
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "pytorch_model.bin").write_bytes(b"x")
    assert pretrained_path(checkpoint) == tmp_path / place / "pytorch_model.bin"
    assert not cache.exists()


@pytest.mark.long
def test_two_processes_at_once_leave_one_complete_file(hub, cache, weights):
    script = (
        "from bit_keras.checkpoints.hugging_face import repository_weights\n"
        f"print(repository_weights({SOURCE!r}))"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(cache)}
    hub.pause = True
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert hub.waiting.wait(60)
            # By then this process waits for the other one.
            timer = threading.Timer(0.5, hub.release.set)
            timer.start()
            path = repository_weights(SOURCE)
            assert hub.release.is_set()
            output, errors = process.communicate(timeout=60)
            timer.join()
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert output.strip() == str(path)
    assert "%|" not in errors  # No bars but on a terminal.
    assert path.read_bytes() == weights
    assert hub.downloads("model.safetensors") == [None]


def test_a_folder_of_the_cache_is_read_as_transformers_reads_it(hub, cache):
    config = {"model_type": "bit", "layer_type": "bottleneck"}
    hub.files[FIRST]["config.json"] = json.dumps(config).encode()
    with pytest.raises(CheckpointError, match="it is another network"):
        open_checkpoint(resolve(SOURCE).weights())
