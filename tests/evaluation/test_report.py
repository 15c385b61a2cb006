"""The report is self-contained and shows every class; the JSON document agrees with it."""

import base64
import html.parser
import io
import json
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from bit_keras.data import open_images
from bit_keras.errors import BitKerasError
from bit_keras.evaluation import evaluate, write_report
from bit_keras.preprocessing import ClassifierSpec, EvalTransform, Labels, load_labels
from bit_keras.registry import Resizing

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="No network of Keras takes part."
)

TRANSFORM = EvalTransform(32, Resizing("squash", 32, "bilinear", "this test"))
VOID = {"meta", "img"}


class Page(html.parser.HTMLParser):
    """Checks that tags close in order; collects text and addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.addresses, self.tags = [], "", [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def evaluated(labels, targets, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (len(targets), 24, 40, 3), np.uint8)
    images = open_images((pixels, [labels.ids[target] for target in targets]))
    spec = ClassifierSpec(labels, TRANSFORM)
    logits = np.random.default_rng(seed).normal(size=(len(targets), len(labels)))
    rows = iter(logits)
    return evaluate(lambda x: np.stack([next(rows) for _ in x]), spec, images), images


def test_the_page_is_self_contained_and_has_every_class(tmp_path):
    labels = Labels("marks", ("<a>", "b&b", "c"), ("<a>", "bed & breakfast", "C"))
    evaluation, images = evaluated(labels, [0, 0, 1, 1, 2, 2])
    write_report(evaluation, images, tmp_path / "report", "net <1>", "data & more")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "report.html",
        "evaluation.json",
    }
    page = Page((tmp_path / "report" / "report.html").read_text("utf-8"))
    assert "net <1> on data & more" in page.text
    for label in labels.names:
        assert label in page.text
    assert f"{100 * evaluation.top1:.2f} %" in page.text
    assert evaluation.fingerprint in page.text
    assert "script" not in page.tags and "link" not in page.tags
    assert len(page.addresses) == 1 + len(evaluation.mistakes)
    for address in page.addresses:
        media_type, _, data = address.partition(";base64,")
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert media_type == f"data:image/{image.format.lower()}"
    document = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert document == {"model": "net <1>", "data": "data & more", **evaluation.to_json()}


def test_equal_evaluations_give_equal_plots(tmp_path):
    evaluation, images = evaluated(load_labels("cifar10"), [0, 3, 3, 9])
    pages = []
    for name in ("a", "b"):
        write_report(evaluation, images, tmp_path / name, "net", "data")
        pages.append((tmp_path / name / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_a_thousand_classes_fit(tmp_path):
    evaluation, images = evaluated(load_labels("imagenet_1k"), np.arange(1000))
    write_report(evaluation, images, tmp_path / "report", "net", "data")
    page = Page((tmp_path / "report" / "report.html").read_text("utf-8"))
    assert page.tags.count("tr") == 1001
    assert len(page.addresses) == 25


def test_an_existing_folder_is_not_touched(tmp_path):
    evaluation, images = evaluated(load_labels("cifar10"), [0, 1])
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BitKerasError, match="exists already"):
        write_report(evaluation, images, tmp_path, "net", "data")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package):
    evaluation, images = evaluated(load_labels("cifar10"), [0, 1])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BitKerasError, match=rf"{package}: pip install 'bit_keras\[train\]'"):
        write_report(evaluation, images, tmp_path / "report", "net", "data")
    assert list(tmp_path.iterdir()) == []
