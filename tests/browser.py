"""A page in headless Chromium, served from this machine, that reports one JSON document."""

import http.server
import json
import mimetypes
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.cifar10 import ROOT

#: Names under which distributions install it.
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def browser():
    """The path of a browser; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    return path or pytest.skip(f"None of {', '.join(_BROWSERS)} is installed.")


def node_module(name):
    """The folder of an npm package; the test is skipped where it is not installed.

    It is looked for in `node_modules` of the checkout and in the folders of `NODE_PATH`.
    """
    folders = [ROOT / "node_modules", *map(Path, os.environ.get("NODE_PATH", "").split(":"))]
    found = next((folder / name for folder in folders if (folder / name).is_dir()), None)
    return found or pytest.skip(f"The package {name} is missing: npm install --no-save {name}")


def report_of(page, files, folder, timeout=300):
    """Opens a page, and returns what it sends by `POST` to `/report`, or fails.

    Args:
        page: str. The HTML.
        files: dict from a path on the server to bytes, or to the Path of a file or folder.
        folder: Path of an empty folder, for the profile of the browser.
        timeout: float. Seconds.
    """
    reports = queue.Queue()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), _handler({**files, "/": page.encode()}, reports)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    command = [browser(), *_OPTIONS, f"--user-data-dir={folder}", address]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return json.loads(reports.get(timeout=timeout))
    except queue.Empty:
        pytest.fail(f"The page reported nothing within {timeout} seconds.")
    finally:
        process.terminate()
        process.wait()
        server.shutdown()
        server.server_close()


def _handler(files, reports):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = _content(files, self.path)
            self.send_response(404 if content is None else 200)
            content_type = mimetypes.guess_type(self.path)[0] or "text/html"
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def do_POST(self):
            reports.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            """Nothing is printed."""

    return Handler


def _content(files, path):
    for prefix, content in files.items():
        if isinstance(content, bytes) and path == prefix:
            return content
        if isinstance(content, Path) and path.startswith(prefix):
            file = Path(f"{content}{path.removeprefix(prefix)}")
            if file.is_file():
                return file.read_bytes()
    return None
