"""Published weights: folder, mirror, cache; broken servers and killed processes."""

import contextlib
import dataclasses
import hashlib
import http.server
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import keras
import numpy as np
import pytest
import rich.console

import bit_keras
import bit_keras.progress
from bit_keras.checkpoints import open_checkpoint
from bit_keras.checkpoints.download import cache_folder, pretrained_path
from bit_keras.checkpoints.files import NpzFile, write_npz
from bit_keras.errors import DownloadError

NAME = "bit_r50x1.distilled_in1k_224"
FILE = "distill/R50x1_224.npz"
DIGESTS = "sha256sums.txt"
MEGABYTE = 1 << 20


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` on a free loopback port, as badly as it is told to.

    Attributes:
        files: dict from path to bytes.
        requests: list of (path, range), one for each request.
        headers_seen: list of the headers of each request.
        ignores_range: responds with the whole file whatever is requested.
        states_length: sends a Content-Length.
        cut_after: closes the connection after so many bytes of a body.
        wait_after: sets `waiting` after so many bytes and waits for `release`.
        status: responds with it, whatever is requested.
        headers: dict of headers that take the place of others, or None to leave them out.
        endless: sends the body again and again.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files, self.requests, self.headers_seen = {}, [], []
        self.ignores_range, self.states_length = False, True
        self.cut_after = self.wait_after = self.status = None
        self.headers, self.endless, self.sent = {}, False, 0
        self.waiting, self.release = threading.Event(), threading.Event()

    @property
    def ranges(self):
        return [requested for _, requested in self.requests]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        requested, files = self.headers.get("Range"), self.server.files
        self.server.requests.append((self.path, requested))
        self.server.headers_seen.append(self.headers)
        body = files.get(self.path)
        if body is None:
            return self.send_error(404)
        if self.server.status is not None:
            self.send_response(self.server.status)
            for name, value in self.server.headers.items():
                self.send_header(name, value)
            return self.end_headers()
        start = int(requested.removeprefix("bytes=").removesuffix("-")) if requested else 0
        if self.server.ignores_range:
            start = 0
        elif requested and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        length = self.server.headers.get("Content-Length", str(len(body) - start))
        if self.server.states_length:
            self.send_header("Content-Length", length)
        self.end_headers()
        with contextlib.suppress(OSError):  # The client may be dead.
            self.send_body(body[start:])
            while self.server.endless and self.server.sent < 1 << 30:
                self.send_body(body)

    def send_body(self, body):
        if self.server.wait_after is not None:
            self.wfile.write(body[: self.server.wait_after])
            self.server.waiting.set()
            self.server.release.wait(60)
            body = body[self.server.wait_after :]
        self.wfile.write(body[: self.server.cut_after])
        self.server.sent += len(body[: self.server.cut_after])

    def log_message(self, *_):
        """Keeps the tests' output clean."""


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("BIT_KERAS_CACHE", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


@pytest.fixture
def mirror(server, cache, monkeypatch):
    """The server in the place of the public address."""
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", server.url)
    return server


def npz_bytes(folder, values):
    write_npz(folder / "made.npz", {"x": np.random.default_rng(0).random(values, "float32")})
    data = (folder / "made.npz").read_bytes()
    (folder / "made.npz").unlink()
    return data


@pytest.fixture
def small(tmp_path):
    return npz_bytes(tmp_path, 5000)


@pytest.fixture
def large(tmp_path):
    """Four chunks of a download and a little more."""
    return npz_bytes(tmp_path, MEGABYTE)


def record(**changes):
    return dataclasses.replace(bit_keras.model_info(NAME), **changes)


def kept(cache):
    """The files in the cache, but for the locks and the digests."""
    files = (
        path
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path != cache / DIGESTS
    )
    return sorted(str(path.relative_to(cache)) for path in files)


def failure(checkpoint=None):
    with pytest.raises(DownloadError) as raised:
        pretrained_path(checkpoint or record())
    message = str(raised.value)
    assert "\n" not in message
    return message


def partial_file(cache, data):
    """Leaves the beginning of a download."""
    partial = cache / "distill" / ".R50x1_224.npz.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(data)
    return partial


def test_the_first_use_downloads_and_the_second_does_not(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    checkpoint = record(bytes=len(small), sha256=hashlib.sha256(small).hexdigest())
    path = pretrained_path(checkpoint)
    assert path == cache / FILE
    assert path.read_bytes() == small
    assert pretrained_path(checkpoint) == path
    assert mirror.requests == [(f"/{FILE}", None)]
    assert kept(cache) == [FILE]


def test_a_cached_file_needs_no_server(cache, small, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", "http://127.0.0.1:9")
    (cache / "distill").mkdir(parents=True)
    (cache / FILE).write_bytes(small)
    assert pretrained_path(record()) == cache / FILE


def test_the_public_address_is_the_default(mirror, cache, small, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", "")
    monkeypatch.setattr("bit_keras.checkpoints.download.OFFICIAL_ROOT", f"{mirror.url}/bit_models/")
    mirror.files[f"/bit_models/{FILE}"] = small
    pretrained_path(record(url=f"{mirror.url}/bit_models/{FILE}"))
    assert kept(cache) == [FILE]


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_may_be_below_a_path(mirror, cache, small, monkeypatch, slash):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", f"{mirror.url}/our/mirror{slash}")
    mirror.files[f"/our/mirror/{FILE}"] = small
    assert pretrained_path(record()).read_bytes() == small


@pytest.mark.parametrize("layout", [FILE, "R50x1_224.npz"], ids=["as published", "flat"])
def test_a_folder_takes_the_place_of_the_address(tmp_path, cache, small, monkeypatch, layout):
    file = tmp_path / "weights" / layout
    file.parent.mkdir(parents=True)
    file.write_bytes(small)
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path / "weights"))
    assert pretrained_path(record()) == file
    assert not cache.exists()


def test_a_folder_without_the_file_is_named(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    assert failure() == (
        f"BIT_KERAS_WEIGHTS names the folder {tmp_path}, and distill/R50x1_224.npz of {NAME} is "
        "not in it; put the file there, or unset the variable to download it."
    )


def test_the_cache_is_a_folder_of_the_user_by_default(tmp_path, monkeypatch):
    monkeypatch.delenv("BIT_KERAS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder().name == "bit_keras"
    assert cache_folder().is_absolute()


def test_the_small_network_comes_with_the_package(monkeypatch, tmp_path):
    # Neither a mirror nor a cache is consulted.
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    checkpoint = bit_keras.model_info("bit_tiny.cifar10")
    path = pretrained_path(checkpoint)
    content = path.read_bytes()
    assert len(content) == checkpoint.bytes <= 6_000_000
    assert hashlib.sha256(content).hexdigest() == checkpoint.sha256
    with open_checkpoint(path) as arrays:
        model = bit_keras.create_classifier("bit_tiny.cifar10")
        head = keras.ops.convert_to_numpy(model.get_layer("head").kernel)
        assert np.array_equal(head, arrays["resnet/head/conv2d/kernel"].astype("float32")[0, 0])


def offline_sentence(url, reason):
    return (
        f"{NAME} needs R50x1_224.npz, and {url}/{FILE} cannot be reached ({reason}). Get the file "
        "on another machine and pass weights='/path/to/R50x1_224.npz', or put it into a folder "
        "and set BIT_KERAS_WEIGHTS to that folder."
    )


def test_a_file_that_the_server_lacks_is_named(mirror, cache):
    assert failure() == offline_sentence(mirror.url, "status 404")
    assert kept(cache) == []


def test_without_a_network_the_sentence_says_what_to_do(cache, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", url)
    assert failure() == offline_sentence(url, "no connection")
    assert kept(cache) == []


def test_a_server_that_falls_silent_is_given_up(mirror, cache, small, monkeypatch):
    monkeypatch.setattr("bit_keras.checkpoints.http_file.TIMEOUT", (1, 0.1))
    mirror.files[f"/{FILE}"], mirror.wait_after = small, 100
    reason = "it sent nothing for 0.1 seconds; the next try resumes"
    assert failure() == offline_sentence(mirror.url, reason)
    assert not (cache / FILE).exists()


def test_a_connection_that_breaks_off_is_continued_by_the_next_try(mirror, cache, large):
    mirror.files[f"/{FILE}"], mirror.cut_after = large, 2 * MEGABYTE + 5
    reason = "the connection broke off; the next try resumes"
    assert failure() == offline_sentence(mirror.url, reason)
    [partial] = kept(cache)
    size = (cache / partial).stat().st_size
    assert partial == "distill/.R50x1_224.npz.partial"
    assert (cache / partial).read_bytes() == large[:size]
    assert size >= 2 * MEGABYTE
    mirror.cut_after = None
    assert pretrained_path(record()).read_bytes() == large
    assert mirror.ranges == [None, f"bytes={size}-"]
    assert kept(cache) == [FILE]


def flipped(data):
    return data[:15_000] + bytes([data[15_000] ^ 1]) + data[15_001:]


@pytest.mark.parametrize("states_length", [True, False])
@pytest.mark.parametrize(
    ("body", "facts", "words"),
    [
        (lambda data: b"<!doctype html>Log in", {}, "is not an npz file: it begins with b'<!do'"),
        (lambda data: b"", {}, "is empty"),
        (lambda data: data[:-30], {}, "is damaged (it is cut short"),
        (flipped, {}, "Bad CRC-32"),
        (lambda data: data, {"bytes": 7}, " 7"),
        (lambda data: data, {"sha256": "ab" * 32}, f"and should be {'ab' * 32}"),
    ],
    ids=["html", "empty", "short", "flipped bit", "size", "sha256"],
)
def test_a_damaged_file_is_deleted(mirror, cache, small, states_length, body, facts, words):
    mirror.files[f"/{FILE}"], mirror.states_length = body(small), states_length
    message = failure(record(**facts))
    assert message.startswith(f"{mirror.url}/{FILE} ")
    assert words in message
    assert kept(cache) == []
    mirror.files[f"/{FILE}"] = small
    assert pretrained_path(record()).read_bytes() == small


def test_the_rest_of_an_interrupted_download_is_requested(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    partial_file(cache, small[:100])
    assert pretrained_path(record(bytes=len(small))).read_bytes() == small
    assert mirror.ranges == ["bytes=100-"]
    assert kept(cache) == [FILE]


def test_compression_is_declined_because_ranges_count_bytes(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    pretrained_path(record())
    assert mirror.headers_seen[0]["Accept-Encoding"] == "identity"


def test_a_server_without_ranges_starts_over(mirror, cache, small):
    mirror.files[f"/{FILE}"], mirror.ignores_range = small, True
    partial_file(cache, b"x" * 100)
    assert pretrained_path(record()).read_bytes() == small
    assert mirror.ranges == ["bytes=100-"]


def test_a_complete_partial_is_taken(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    partial_file(cache, small)
    assert pretrained_path(record()).read_bytes() == small
    assert mirror.ranges == [f"bytes={len(small)}-"]
    assert kept(cache) == [FILE]


@pytest.mark.parametrize("length", [100, 30_000], ids=["shorter", "longer"])
def test_the_remains_of_another_file_do_no_lasting_harm(mirror, cache, small, length):
    mirror.files[f"/{FILE}"] = small
    partial_file(cache, b"x" * length)
    # The other part is not that of this file: it is downloaded from the beginning.
    assert pretrained_path(record()).read_bytes() == small
    assert kept(cache) == [FILE]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device /dev/full is Linux's")
def test_a_full_disk_is_named(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    partial_file(cache, b"").unlink()
    (cache / "distill" / ".R50x1_224.npz.partial").symlink_to("/dev/full")
    assert failure() == (
        f"{cache / FILE} cannot be written (No space left on device); make room, or set "
        "BIT_KERAS_CACHE to another folder."
    )
    assert not (cache / FILE).exists()


def test_a_cache_that_cannot_be_a_folder_is_named(mirror, cache):
    cache.write_bytes(b"")
    assert failure() == (
        f"{cache / FILE} cannot be written (Not a directory); make room, or set BIT_KERAS_CACHE to "
        "another folder."
    )
    assert mirror.requests == []


@pytest.mark.parametrize("stated", ["in the registry", "nowhere"])
def test_a_body_without_end_does_not_fill_the_disk(mirror, cache, large, stated):
    mirror.files[f"/{FILE}"], mirror.endless, mirror.states_length = large, True, False
    checkpoint = record(bytes=len(large)) if stated == "in the registry" else record()
    # Where no size is known, the parameters of the network say what it cannot exceed.
    limit = checkpoint.bytes or 8 * checkpoint.parameters + MEGABYTE
    assert f"{limit:,} bytes" in failure(checkpoint)
    assert kept(cache) == []
    assert mirror.sent < limit + 64 * MEGABYTE


def test_a_file_that_is_too_large_is_not_begun(mirror, cache, large):
    mirror.files[f"/{FILE}"] = large
    message = failure(record(bytes=len(large) - 1))
    assert f"{len(large):,}" in message
    assert f"{len(large) - 1:,}" in message
    assert kept(cache) == []


def test_a_file_larger_than_the_disk_is_not_started(mirror, cache, large, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 1000))
    mirror.files[f"/{FILE}"] = large
    message = failure()
    assert f"{len(large):,}" in message
    assert "1,000" in message
    assert str(cache) in message


@pytest.mark.parametrize("length", ["abc", "-5", "", "1e9"])
def test_a_length_that_is_not_a_number_is_a_sentence_or_ignored(mirror, cache, small, length):
    mirror.files[f"/{FILE}"], mirror.headers = small, {"Content-Length": length}
    try:
        path = pretrained_path(record())
    except DownloadError as error:
        assert "\n" not in str(error)
    else:
        assert path.read_bytes() == small


@pytest.mark.parametrize(
    "location",
    ["http://[", "http://a b", "http://:99999/x", "//", "ftp://x/y", "http://\u00e9\u00e9.\x00"],
)
def test_a_redirect_to_nowhere_is_a_sentence(mirror, cache, small, location):
    mirror.files[f"/{FILE}"], mirror.status = small, 302
    mirror.headers = {"Location": location.encode("utf-8").decode("latin-1")}
    assert f"{mirror.url}/{FILE}" in failure()
    assert kept(cache) == []


def test_a_range_that_nobody_requested_is_named(mirror, cache, small):
    mirror.files[f"/{FILE}"], mirror.status = small, 416
    assert failure() == offline_sentence(mirror.url, "status 416")
    assert kept(cache) == []


@pytest.mark.parametrize("header", ["bytes 50-99/100", "nonsense", ""])
def test_another_part_than_the_requested_one_is_not_taken(mirror, cache, small, header):
    mirror.files[f"/{FILE}"], mirror.status = small, 206
    mirror.headers = {"Content-Range": header, "Content-Length": "0"}
    partial_file(cache, small[:100])
    assert "a part of the file" in failure()
    assert kept(cache) == []


def test_a_partial_larger_than_the_file_is_downloaded_anew(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    partial_file(cache, small + b"more")
    assert pretrained_path(record(bytes=len(small))).read_bytes() == small
    assert mirror.ranges == [None]


def test_a_partial_of_a_file_that_the_server_replaced_is_downloaded_anew(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    partial_file(cache, flipped(small)[:16_000])
    assert pretrained_path(record()).read_bytes() == small
    assert mirror.ranges == ["bytes=16000-", None]


def test_a_password_is_not_printed(mirror, cache, small, monkeypatch):
    secret = mirror.url.replace("//", "//user:se%40cret@")
    for address in (secret, secret.replace("http:", "ftp:"), "http://user:se%40cret@["):
        monkeypatch.setenv("BIT_KERAS_WEIGHTS", address)
        message = failure()
        assert "cret" not in message
        assert "user" not in message
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", secret)
    mirror.files[f"/{FILE}"] = small
    assert pretrained_path(record()).read_bytes() == small
    assert mirror.headers_seen[-1]["Authorization"].startswith("Basic ")


def digest_line(data):
    return f"{hashlib.sha256(data).hexdigest()}  {FILE}\n"


def test_the_first_download_is_recorded_and_a_later_one_must_be_the_same(mirror, cache, small):
    mirror.files[f"/{FILE}"] = small
    pretrained_path(record()).unlink()
    assert (cache / DIGESTS).read_text() == digest_line(small)
    assert pretrained_path(record()).read_bytes() == small
    (cache / FILE).unlink()
    mirror.files[f"/{FILE}"] = other = npz_bytes(cache, 10)
    message = failure()
    for fact in (hashlib.sha256(other).hexdigest(), digest_line(small)[:64], DIGESTS):
        assert fact in message
    assert kept(cache) == []


def test_a_cached_file_is_recorded_on_its_first_use(cache, small, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", "http://127.0.0.1:9")
    (cache / "distill").mkdir(parents=True)
    (cache / FILE).write_bytes(small)
    pretrained_path(record())
    assert (cache / DIGESTS).read_text() == digest_line(small)


def test_a_user_may_give_the_digests(mirror, cache, small, tmp_path, monkeypatch):
    given = tmp_path / "sums.txt"
    monkeypatch.setenv("BIT_KERAS_DIGESTS", str(given))
    mirror.files[f"/{FILE}"] = small
    given.write_text(f"# ours\n{'ab' * 32} *{FILE}\n")
    assert "ab" * 32 in failure()
    given.write_text(digest_line(small).removesuffix("\n"))
    assert pretrained_path(record()).read_bytes() == small
    assert not (cache / DIGESTS).exists()
    given.write_text("sha256 of nothing\n")
    assert "Line 1 of " in failure()


def test_locked_accepts_known_digests_only(mirror, cache, small, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_LOCKED", "1")
    mirror.files[f"/{FILE}"] = small
    message = failure()
    assert "--locked" in message
    assert FILE in message
    assert mirror.requests == []
    cache.mkdir()
    (cache / DIGESTS).write_text(digest_line(small))
    path = pretrained_path(record())
    # What is in the cache is compared as well.
    path.write_bytes(npz_bytes(cache, 10))
    assert str(path) in failure()


def test_locked_applies_to_a_folder_of_weights(cache, small, tmp_path, monkeypatch):
    monkeypatch.setenv("BIT_KERAS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("BIT_KERAS_LOCKED", "1")
    (tmp_path / "R50x1_224.npz").write_bytes(small)
    assert "--locked" in failure()
    cache.mkdir()
    (cache / DIGESTS).write_text(digest_line(small))
    assert pretrained_path(record()) == tmp_path / "R50x1_224.npz"


def test_a_stopped_downloader_is_named_and_not_waited_for_without_end(
    mirror, cache, small, monkeypatch, caplog
):
    monkeypatch.setattr("bit_keras.checkpoints.download._POLL", 0.02)
    monkeypatch.setattr("bit_keras.checkpoints.download._STALLED", 0.2)
    partial = partial_file(cache, b"half")
    lock = partial.with_name(".R50x1_224.npz.lock")
    with caplog.at_level("INFO", "bit_keras"), filelock.FileLock(lock):
        message = failure()
    assert str(lock) in message
    assert str(cache / FILE) in caplog.text
    assert mirror.requests == []
    assert partial.read_bytes() == b"half"


def test_progress_is_silent_without_a_terminal(mirror, cache, large, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # As notebooks and build servers do.
    bit_keras.progress.console.cache_clear()
    mirror.files[f"/{FILE}"] = large
    pretrained_path(record())
    assert capfd.readouterr() == ("", "")


def test_progress_is_shown_on_a_terminal(mirror, cache, large, capfd, monkeypatch):
    terminal = rich.console.Console(stderr=True, force_terminal=True)
    monkeypatch.setattr("bit_keras.checkpoints.http_file.console", lambda: terminal)
    mirror.files[f"/{FILE}"] = large
    pretrained_path(record())
    out, err = capfd.readouterr()
    assert out == ""
    assert "R50x1_224.npz" in err


def test_a_downloaded_file_reaches_the_network(mirror, tiny_file, tiny_arrays, monkeypatch):
    checkpoint = bit_keras.model_info("bit_tiny.cifar10")
    published = dataclasses.replace(checkpoint, url=record().url, bytes=None, sha256=None)
    monkeypatch.setattr("bit_keras.models.builders.model_info", lambda name: published)
    mirror.files[f"/{FILE}"] = tiny_file.read_bytes()
    model = bit_keras.create_feature_extractor("bit_tiny.cifar10")
    gamma = keras.ops.convert_to_numpy(model.get_layer("norm").gamma)
    assert np.array_equal(gamma, tiny_arrays["resnet/group_norm/gamma"])


DOWNLOADER = f"""
import bit_keras
from bit_keras.checkpoints.download import pretrained_path

print(pretrained_path(bit_keras.model_info({NAME!r})))
"""


@contextlib.contextmanager
def downloading_process():
    """Another process that fetches the file, killed when the block is left."""
    command = [sys.executable, "-c", DOWNLOADER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "a minute has passed"
        time.sleep(0.01)


@pytest.mark.long
def test_a_killed_download_resumes_and_is_never_seen_incomplete(mirror, cache, large):
    mirror.files[f"/{FILE}"], mirror.wait_after = large, 3 * MEGABYTE
    partial = cache / "distill" / ".R50x1_224.npz.partial"
    with downloading_process() as process:
        assert mirror.waiting.wait(60)
        wait_until(lambda: partial.exists() and partial.stat().st_size == 3 * MEGABYTE)
        assert not (cache / FILE).exists()
        process.kill()
        process.wait(10)
    assert process.returncode == -signal.SIGKILL
    assert kept(cache) == ["distill/.R50x1_224.npz.partial"]
    mirror.wait_after = None
    mirror.release.set()
    assert pretrained_path(record(bytes=len(large))).read_bytes() == large
    assert mirror.ranges == [None, f"bytes={3 * MEGABYTE}-"]
    assert kept(cache) == [FILE]


@pytest.mark.long
def test_two_processes_at_once_share_one_download(mirror, cache, large):
    mirror.files[f"/{FILE}"], mirror.wait_after = large, MEGABYTE
    with downloading_process() as other:
        assert mirror.waiting.wait(60)
        # By then this process waits for the other one.
        timer = threading.Timer(0.5, mirror.release.set)
        timer.start()
        path = pretrained_path(record())
        assert mirror.release.is_set()
        assert other.communicate(timeout=60)[0].strip() == str(path)
        timer.join()
    assert other.returncode == 0
    assert path.read_bytes() == large
    assert mirror.ranges == [None]
    with NpzFile(path) as arrays:
        arrays.verify()
