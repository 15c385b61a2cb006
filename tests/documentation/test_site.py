"""The documentation site: it builds without a warning, and every link in it leads somewhere."""

import contextlib
import functools
import html.parser
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from tests.documentation.snippets import ROOT

#: What makes a browser load something: the address stands in `src` or, of a `link`, in `href`.
LOADED = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="([^"]+)"|<link\b[^>]*>')

#: Nothing that a user has set for linkchecker counts, and this host need not be spared.
SETTINGS = ROOT / "tests" / "documentation" / "linkcheckerrc"

#: What a `link` element may name without a browser loading it.
NAMED = ("canonical", "next", "prev")

#: Links of Markdown, and addresses in angle brackets; not those in code.
LINK = re.compile(r"\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")
CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]+`", re.MULTILINE | re.DOTALL)

#: Text of others, of no page that the project writes.
ELSEWHERE = ("export/pages", "docs")


def run(program, *arguments):
    """Runs a program of this environment in the repository, where mkdocs.yml is."""
    return subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        # Without the notice of mkdocs-material about the next version of MkDocs.
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = run("mkdocs", "build", "--strict", "--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def served(folder):
    """The address of a folder: run by root, linkchecker gives up the right to read files."""
    handler = functools.partial(_Silent, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/index.html"
        finally:
            server.shutdown()
            thread.join()


def checked(folder):
    """What linkchecker says about a site; other hosts are not contacted."""
    with served(folder) as address:
        # Its plugin for anchors would fetch every page once for each anchor.
        return run("linkchecker", "--no-status", "--config", str(SETTINGS), address)


class _Anchors(html.parser.HTMLParser):
    """What a page links to, and the anchors that it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])


def missing_anchors(folder):
    """The links to anchors that do not exist, with the pages that they stand on."""
    pages = {page: _Anchors(page.read_text("utf-8")) for page in folder.resolve().rglob("*.html")}
    for page, found in pages.items():
        for link in found.links:
            parts = urlsplit(link)
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if parts.netloc or target not in pages:
                continue
            if unquote(parts.fragment) not in pages[target].anchors:
                yield page.name, link


@pytest.mark.long
def test_no_link_of_the_site_is_broken(site):
    done = checked(site)
    assert done.returncode == 0, done.stdout
    assert re.search(r"That's it\. \d{3,} links .* 0 errors found", done.stdout), done.stdout
    assert list(missing_anchors(site)) == []


def test_a_broken_link_is_found(tmp_path):
    page = '<a href="index.html#nowhere">an anchor</a> <a href="nothing.html">a page</a>'
    (tmp_path / "index.html").write_text(page)
    done = checked(tmp_path)
    assert done.returncode == 1
    assert "404 File not found" in done.stdout
    assert list(missing_anchors(tmp_path)) == [("index.html", "index.html#nowhere")]


def test_every_page_is_in_the_site_and_no_program_is(site):
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    built = {str(page.relative_to(site).with_suffix(".md")) for page in site.rglob("*.html")}
    assert built == pages | {"404.md"}
    assert not list(site.rglob("*.py"))


def test_a_browser_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        for tag in LOADED.finditer(page.read_text("utf-8")):
            if tag[1] is None and re.search(rf'rel="({"|".join(NAMED)})"', tag[0]):
                continue
            address = tag[1] or re.search(r'href="([^"]+)"', tag[0])[1]
            assert not urlsplit(address).netloc, f"{page.name} loads {address}"
    for sheet in site.rglob("*.css"):
        addresses = re.findall(r"url\(\s*[\"']?((?:https?:)?//[^)]*)", sheet.read_text("utf-8"))
        assert not addresses, f"{sheet.name} loads {addresses}"


def test_the_reference_shows_signatures_sections_and_examples(site):
    page = (site / "api" / "models.html").read_text("utf-8")
    _, _, entry = page.partition('id="bit_keras.create_class_maps"')
    entry, _, _ = entry.partition('id="bit_keras.fold_weight_standardization"')
    for title in ("Parameters", "Returns", "Raises", "Example", "Reference"):
        assert re.search(rf">{title}:<", entry), title
    assert 'class="language-python highlight"' in entry


def test_the_commands_show_their_examples_as_code(site):
    page = (site / "commands.html").read_text("utf-8")
    for command in ("list", "predict", "finetune", "export", "publish"):
        assert f'id="bit-keras-{command}"' in page
    assert page.count('class="language-sh highlight"') >= page.count('id="bit-keras-')


# Pages that the site does not contain.


def pages_elsewhere():
    for path in sorted(ROOT.rglob("*")):
        inside = path.relative_to(ROOT)
        hidden = any(part.startswith((".", "build")) for part in inside.parts)
        if hidden or any(inside.is_relative_to(folder) for folder in ELSEWHERE):
            continue
        if path.suffix in {".md", ".ipynb"}:
            yield pytest.param(path, id=str(inside))


def markdown_of(path):
    if path.suffix == ".md":
        return path.read_text("utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", list(pages_elsewhere()))
def test_links_of_other_pages_lead_to_files_that_exist(path):
    for link in LINK.finditer(CODE.sub("", markdown_of(path))):
        address = urlsplit(link[1] or link[2])
        if address.scheme:
            assert address.scheme == "https" and "." in address.netloc, link[0]
        elif address.path:
            assert (path.parent / unquote(address.path)).exists(), link[0]
