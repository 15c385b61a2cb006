"""The pages of a collection: their formats, their facts, and the code that they show."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.config import model_server_config_pb2

from bit_keras import registry
from bit_keras.artifacts import Artifact
from bit_keras.collection.pages import (
    KAGGLE_LICENSES,
    RECORDS,
    read_records,
    render_pages,
    stable_fields,
    write_pages,
)
from bit_keras.collection.recipe import Recipe
from bit_keras.collection.record import Record, SignatureRecord, TensorRecord
from bit_keras.errors import ExportError
from bit_keras.exporters.serving import export_serving
from bit_keras.preprocessing import decode_predictions, eval_transform
from tests.exporters.stand_in_server import stand_in_server

ROOT = Path(__file__).parents[2]
RECIPE = "bit-resnet"
TEMPLATES = ROOT / "bit_keras" / "collection" / "templates"
PAGES = ROOT / "export" / "pages"
PHOTO = ROOT / "demo" / "images" / "cat.jpg"

#: Same operations, but another order of float32 sums.
TOLERANCE = 1e-5

TINY = """
[[models]]
name = "bit_tiny_{variant}"
model = "bit_tiny.cifar10"
variant = ["classification", "feature_extraction"]

[[models]]
name = "bit_tiny.serving_{variant}"
model = "bit_tiny.cifar10"
variant = ["classification", "feature_extraction"]
target = "serving"
"""
TINY_NAMES = (
    "bit_tiny_classification",
    "bit_tiny_feature_extraction",
    "bit_tiny.serving_classification",
    "bit_tiny.serving_feature_extraction",
)


def recipe_of(models, folder):
    """A recipe of the given `[[models]]`."""
    path = folder / "recipe.toml"
    path.write_text(
        '[collection]\nname = "small"\ntitle = "Small"\npublisher = "some-body"\n'
        'publisher_title = "Some Body"\ndescription = "Small networks."\n'
        f'archives = "https://example.com/bit/"\n{models}'
    )
    return Recipe.read(path)


def model(name, **fields):
    """The text of one `[[models]]`."""
    fields = {"name": name.replace(".", "-"), "model": name, **fields}
    return "[[models]]\n" + "".join(f'{key} = "{value}"\n' for key, value in fields.items())


def record_of(item, **fields):
    """A record as an export of `item` gives it, without the export."""
    checkpoint = item.checkpoint
    is_classifier = item.variant == "classification"
    outputs = checkpoint.classes if is_classifier else checkpoint.architecture.features
    outputs = fields.pop("outputs", outputs)
    size = fields.get("size")
    signature = SignatureRecord(
        {"inputs": TensorRecord("float32", (None, size, size, 3))},
        {item.output: TensorRecord("float32", (None, outputs))},
    )
    known = {
        "input_range": (-1.0, 1.0),
        "size": None,
        "outputs": outputs,
        "signatures": {"serving_default": signature},
        "bytes": 103_600_000,
        "archive_bytes": 90_000_000,
        "archive_sha256": "5" * 64,
        "difference": 1e-6,
        "tolerance": 1e-5,
        "weights_sha256": "6" * 64,
        "versions": {"keras": "3.15.1"},
    }
    names = ("name", "version", "model", "target", "variant", "precision", "archive")
    return Record(**{name: getattr(item, name) for name in names}, **{**known, **fields})


def page_of(pages, name):
    """The page of a model on tfhub.dev."""
    (path,) = [path for path in pages if path.startswith("tfhub/") and f"/{name}/" in path]
    return pages[path]


def rendered(models, folder, **fields):
    """The page of the only model of a recipe."""
    recipe = recipe_of(models, folder)
    (item,) = recipe.items
    return page_of(render_pages(recipe, [record_of(item, **fields)]), item.name)


def blocks(text):
    """The fenced Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def pages():
    """The pages of the collection that this project publishes."""
    return render_pages(Recipe.read(RECIPE), read_records(PAGES / RECORDS))


@pytest.fixture(scope="module")
def artifacts(classifier, extractor, classifier_artifact, extractor_artifact, tmp_path_factory):
    """The artifact of every name of the small recipe."""
    folder = tmp_path_factory.mktemp("serving")
    for network in (classifier, extractor):
        export_serving(network, folder / network.layers[-1].name, batch_sizes=())
    paths = (classifier_artifact, extractor_artifact, folder / "head/1", folder / "features/1")
    return dict(zip(TINY_NAMES, paths, strict=True))


@pytest.fixture(scope="module")
def tiny_pages(artifacts, tmp_path_factory):
    """The pages of the small recipe, from records of its artifacts."""
    recipe = recipe_of(TINY, tmp_path_factory.mktemp("tiny"))
    assert tuple(item.name for item in recipe.items) == TINY_NAMES
    records = []
    for item in recipe.items:
        path = artifacts[item.name]
        metadata = Artifact(path).metadata
        records.append(
            record_of(
                item,
                size=metadata.size,
                outputs=metadata.outputs,
                tolerance=metadata.tolerance,
                bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
                signatures=signatures_of(path),
            )
        )
    return render_pages(recipe, records)


def signatures_of(artifact):
    loaded = tf.saved_model.load(str(artifact))
    return {
        name: SignatureRecord(
            tensors(function.structured_input_signature[1]), tensors(function.structured_outputs)
        )
        for name, function in loaded.signatures.items()
    }


def tensors(specs):
    return {
        name: TensorRecord(spec.dtype.name, tuple(spec.shape.as_list()))
        for name, spec in specs.items()
    }


# The format of tfhub.dev: `tensorflow/tfhub.dev` @81fdea8, `tools/validator.py` and `tags/`.

HANDLES = {
    "Module": r"# Module (?P<publisher>[a-z\d-]+)/(?P<name>[\w.-]+)/(?P<version>\d+)",
    "Collection": r"# Collection (?P<publisher>[a-z\d-]+)/(?P<name>[\w.-]+)/1",
    "Publisher": r"# Publisher (?P<publisher>[a-z\d-]+)",
}
PATHS = {
    "Module": "{publisher}/models/{name}/{version}.md",
    "Collection": "{publisher}/collections/{name}/1.md",
    "Publisher": "{publisher}/{publisher}.md",
}
REQUIRED = {
    "Module": {"asset-path", "fine-tunable", "format", "task"},
    "Collection": {"task"},
    "Publisher": set(),
}
OPTIONAL = {
    "Module": {"network-architecture", "dataset", "license"},
    "Collection": {"network-architecture", "dataset"},
    "Publisher": set(),
}
REPEATED = {"dataset", "task", "network-architecture"}
ALLOWED = {
    "task": {"image-classification", "image-feature-vector"},
    "network-architecture": {
        "bit",
        "resnet50-v2",
        "resnet50x3-v2",
        "resnet101-v2",
        "resnet101x3-v2",
        "resnet152x4-v2",
        "resnet-v2-50",
        "resnet-v2-101",
    },
    "dataset": {"imagenet-21k", "imagenet-ilsvrc-2012-cls", "cifar-10"},
    "fine-tunable": {"true", "false"},
    "format": {"saved_model_2"},
    "license": {"apache-2.0"},
}


def metadata_of(text):
    """The tags of a page, read as the validator reads them."""
    lines = text.split("\n")
    index = 2 if not lines[1] else 1
    assert lines[index], "no description"
    while lines[index] and not lines[index].startswith("<!--"):
        index += 1
    found = {}
    while not lines[index].startswith("#"):
        if lines[index]:
            match = re.fullmatch(r"<!--(?P<key>(\w|\s|-)+):(?P<value>.+)-->", lines[index])
            assert match, f"unexpected line {lines[index]!r}"
            found.setdefault(match["key"].strip(), []).append(match["value"].strip())
        index += 1
    return found


def check_tfhub_page(path, text):
    page = text.split()[1]
    handle = re.fullmatch(HANDLES[page], text.split("\n")[0])
    assert path == "tfhub/assets/docs/" + PATHS[page].format(**handle.groupdict())
    metadata = metadata_of(text)
    assert REQUIRED[page] <= metadata.keys() <= REQUIRED[page] | OPTIONAL[page]
    for key, values in metadata.items():
        assert len(values) == len(set(values)) and (key in REPEATED or len(values) == 1), key
        if key == "asset-path":
            assert re.fullmatch(r"https://(?!github\.com/)\S+\.tar\.gz", values[0])
        else:
            assert set(values) <= ALLOWED[key]


@pytest.mark.parametrize("collection", ["pages", "tiny_pages"])
def test_the_pages_have_the_format_of_tfhub_dev(collection, request):
    pages = request.getfixturevalue(collection)
    paths = [path for path in pages if path.startswith("tfhub/")]
    for path in paths:
        check_tfhub_page(path, pages[path])
    assert len(paths) == {"pages": 8, "tiny_pages": 4}[collection] + 2


@pytest.mark.parametrize("collection", ["pages", "tiny_pages"])
def test_every_link_to_tfhub_dev_leads_to_a_generated_page(collection, request):
    pages = request.getfixturevalue(collection)
    handles = {match[1] for text in pages.values() if (match := re.match(r"# Module (\S+)", text))}
    (collection_page,) = [path for path in pages if "/collections/" in path]
    publisher, _, name, _ = collection_page.removeprefix("tfhub/assets/docs/").split("/")
    links = {path: re.findall(r"\(https://tfhub\.dev/(\S+?)\)", pages[path]) for path in pages}
    assert set(links[collection_page]) == handles
    assert {link for found in links.values() for link in found} - handles == {
        f"{publisher}/collections/{name}/1"
    }


def test_only_what_was_built_has_a_page_and_a_line_in_the_collection():
    recipe, records = Recipe.read(RECIPE), read_records(PAGES / RECORDS)
    pages = render_pages(recipe, records[2:4])
    names = {"bit_resnet152x2_224_classification", "bit_r152x2_224_feature_extraction"}
    assert {path.split("/")[1] for path in pages if path.startswith("huggingface/")} == names
    assert {path.split("/")[5] for path in pages if "/models/" in path} == names
    text = pages["tfhub/assets/docs/sayakpaul/collections/bit-resnet/1.md"]
    assert len(re.findall(r"^\| \[", text, re.MULTILINE)) == 2


def test_tags_say_task_network_data_and_whether_it_can_be_fine_tuned(tiny_pages, tmp_path):
    tags = metadata_of(page_of(tiny_pages, "bit_tiny_classification"))
    assert tags == {
        "asset-path": ["https://example.com/bit/bit_tiny_classification.tar.gz"],
        "task": ["image-classification"],
        "network-architecture": ["bit"],
        "dataset": ["cifar-10"],
        "fine-tunable": ["true"],
        "format": ["saved_model_2"],
        "license": ["apache-2.0"],
    }
    tags = metadata_of(page_of(tiny_pages, "bit_tiny.serving_feature_extraction"))
    assert (tags["task"], tags["fine-tunable"]) == (["image-feature-vector"], ["false"])
    tags = metadata_of(rendered(model("bit_r101x3.in21k_ft_in1k"), tmp_path))
    assert tags["network-architecture"] == ["bit", "resnet101x3-v2"]
    assert tags["dataset"] == ["imagenet-21k", "imagenet-ilsvrc-2012-cls"]
    tags = metadata_of(rendered(model("resnetv2_50.a1h_in1k"), tmp_path))
    assert tags["network-architecture"] == ["resnet-v2-50"]


# Kaggle: `Kaggle/kaggle-api` @1744cda, `docs/models_metadata.md`.

MODEL_FIELDS = {
    "ownerSlug": str,
    "title": str,
    "slug": str,
    "subtitle": str,
    "isPrivate": bool,
    "description": str,
    "publishTime": str,
    "provenanceSources": str,
}
VARIATION_FIELDS = {
    "ownerSlug": str,
    "modelSlug": str,
    "instanceSlug": str,
    "framework": str,
    "overview": str,
    "usage": str,
    "licenseName": str,
    "fineTunable": bool,
    "trainingData": list,
    "modelInstanceType": str,
    "baseModelInstance": str,
    "externalBaseModelUrl": str,
}
SLUG = r"[a-z0-9-]+"  # `Kaggle/kaggle-cli`, pull request 1134.


@pytest.mark.parametrize("collection", ["pages", "tiny_pages"])
def test_kaggle_gets_the_fields_that_its_client_reads(collection, request):
    pages = request.getfixturevalue(collection)
    documents = {path: json.loads(pages[path]) for path in pages if path.startswith("kaggle/")}
    main = documents.pop("kaggle/model-metadata.json")
    assert {key: type(value) for key, value in main.items()} == MODEL_FIELDS
    assert main["isPrivate"] and re.fullmatch(SLUG, main["slug"])
    assert documents
    for path, fields in documents.items():
        name = path.split("/")[1]
        assert path == f"kaggle/{name}/model-instance-metadata.json"
        assert {key: type(value) for key, value in fields.items()} == VARIATION_FIELDS
        assert re.fullmatch(SLUG, fields["instanceSlug"])
        assert fields["instanceSlug"] == name.replace("_", "-").replace(".", "-")
        assert (fields["ownerSlug"], fields["modelSlug"]) == (main["ownerSlug"], main["slug"])
        assert f"`{fields['instanceSlug']}`" in main["description"]
        assert fields["framework"] == "tensorFlow2"
        assert fields["licenseName"] == "Apache 2.0"
        assert fields["fineTunable"] == ("serving" not in name)
        # What stands in the place of the folder in a notebook.
        assert 'path = "${PATH}"' in fields["usage"]
        # The client passes these texts through bleach, which would write &lt; into the code.
        assert not set("<>&") & set(fields["usage"] + fields["overview"])
    assert not set("<>&") & set(main["description"])


def test_kaggle_knows_the_licence_of_every_checkpoint():
    licenses = {checkpoint.license for checkpoint in registry.CHECKPOINTS.values()}
    assert licenses == KAGGLE_LICENSES.keys()


def test_two_artifacts_of_one_name_on_kaggle_are_refused(tmp_path):
    recipe = recipe_of(
        TINY.replace("bit_tiny_{", "a.{").replace("bit_tiny.serving_{", "a-{"), tmp_path
    )
    with pytest.raises(ExportError, match="are called 'a-classification' on Kaggle"):
        render_pages(recipe, [record_of(item) for item in recipe.items])


# The Hugging Face hub.


def test_model_cards_have_a_header_that_the_hub_reads(pages):
    card = huggingface_hub.ModelCard(
        pages["huggingface/bit_resnet152x2_384_classification/README.md"]
    )
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "tf-keras"
    assert card.data.pipeline_tag == "image-classification"
    assert {"bit", "saved-model"} <= set(card.data.tags)
    assert card.data.datasets == ["imagenet-21k", "imagenet-1k"]
    figures = {
        (result.dataset_name, result.metric_type, result.metric_value, result.metric_name)
        for result in card.data.eval_results
    }
    checkpoint = registry.CHECKPOINTS["bit_r152x2.teacher_in1k_384"]
    assert figures == {
        (
            accuracy.dataset,
            "accuracy",
            accuracy.value,
            f"{accuracy.metric} in percent at 384 pixels ({accuracy.source})",
        )
        for accuracy in checkpoint.accuracies
    }
    assert card.text.strip().startswith("# bit_resnet152x2_384_classification")


def test_the_card_of_an_extractor_claims_no_accuracy_in_its_header(pages):
    card = huggingface_hub.ModelCard(
        pages["huggingface/bit_r152x2_384_feature_extraction/README.md"]
    )
    assert card.data.pipeline_tag == "image-feature-extraction"
    assert card.data.eval_results is None
    assert "for the classifier with these weights" in card.text


# What is said of a model.


def test_every_fact_stands_once_on_the_page(pages):
    text = page_of(pages, "distill_bit_resnet50x1_224_classification")
    for fact in (
        "`bit_r50x1`: a ResNet-v2 with GroupNorm and weight standardisation",
        "3, 4, 6 and 3 residual units in its four blocks, width factor 1, 64 channels after",
        "`bit_r50x1.distilled_in1k_224`",
        "(https://storage.googleapis.com/bit_models/distill/R50x1_224.npz)",
        "| 25,549,352 |",
        "4.09 GMAC for an image of 224×224",
        "| about 104 MB |",
        "| Apache-2.0 |",
        "`inputs`: float32, `[?, ?, ?, 3]` (batch, height, width, channels), RGB, channels last",
        "scaled to **[-1, 1]**: `pixels / 127.5 - 1`",
        "any number from 32 up",
        "short side has 256 pixels (bicubic, antialiased), then cropped to the central 224×224 "
        "(source: timm 1.0.31)",
        "`logits`: float32, `[?, 1000]`.",
        "A softmax makes the logits the probabilities of the 1000 classes",
        "index 0, `n01440764` (tench, Tinca tinca), to index 999, `n15075141` (toilet tissue",
        "| `serving_default` | `inputs`: float32 `[?, ?, ?, 3]` | `logits`: float32 `[?, 1000]` |",
        "| ImageNet-1k | top-1 82.8 % | 224×224 | big_transfer README |",
        "| ImageNet-1k | top-1 82.82 % | 224×224 | timm results CSVs @aa4b585 |",
        "| ImageNet-1k | top-5 96.526 % | 224×224 | timm results CSVs @aa4b585 |",
        "| ImageNet-ReaL | top-1 87.798 % | 224×224 | timm results CSVs @aa4b585 |",
        "| ImageNet-V2 | top-1 72.18 % | 224×224 | timm results CSVs @aa4b585 |",
        "the figures of the sources named",
        "by more than\n0.001 % of the largest one",
        "bit-keras verify distill_bit_resnet50x1_224_classification",
        "https://arxiv.org/abs/1912.11370",
        "https://arxiv.org/abs/2106.05237",
    ):
        assert text.count(fact) == 1, fact


def test_the_page_of_an_extractor_says_what_its_features_are(pages):
    text = page_of(pages, "bit_r152x2_384_feature_extraction")
    assert "| 232,238,208 |" in text and "134.63 GMAC" in text
    assert "`features`: float32, `[?, 4096]`." in text
    assert "none of them is negative" in text
    assert "softmax" not in text and "[bit_resnet152x2_384_classification]" in text


@pytest.mark.parametrize("form", ["tfhub", "kaggle", "huggingface"])
def test_all_three_forms_say_the_same(pages, form):
    def sections(text):
        return dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))

    name = "bit_resnet152x2_224_classification"
    texts = {
        "tfhub": page_of(pages, name),
        "kaggle": json.loads(pages[f"kaggle/{name}/model-instance-metadata.json"])["usage"],
        "huggingface": pages[f"huggingface/{name}/README.md"],
    }
    found, wanted = sections(texts[form]), sections(texts["huggingface"])
    assert list(found) == list(wanted)
    for title in ("Input", "Output", "Signatures", "Published accuracy", "Exactness", "Citation"):
        assert found[title].strip() == wanted[title].strip(), title


def test_a_fact_that_changes_in_the_registry_changes_on_the_page(monkeypatch, tmp_path):
    models = model("bit_r50x1.distilled_in1k_160")
    before = rendered(models, tmp_path)
    assert "| ImageNet-1k | top-1 80.5 % | 160×160 | big_transfer README |" in before
    checkpoint = registry.CHECKPOINTS["bit_r50x1.distilled_in1k_160"]
    changed = dataclasses.replace(
        checkpoint,
        accuracies=(registry.Accuracy("ImageNet-1k", "top-1", 12.5, None, "a letter"),),
        license="Apache-2.0",
        description="Something else.",
        resizing=registry.Resizing("squash", 160, "area", "another letter"),
    )
    monkeypatch.setattr(registry, "CHECKPOINTS", {**registry.CHECKPOINTS, checkpoint.name: changed})
    after = rendered(models, tmp_path)
    assert "| ImageNet-1k | top-1 12.5 % | not stated | a letter |" in after
    assert "80.5 %" not in after and "FunMatch" not in after and "2106.05237" not in after
    assert "Image classifier. Something else." in after
    assert "resized to 160×160, without regard to their aspect ratio (area, antialiased)" in after
    assert "(source: another letter)" in after
    unmeasured = dataclasses.replace(changed, accuracies=())
    monkeypatch.setattr(
        registry, "CHECKPOINTS", {**registry.CHECKPOINTS, checkpoint.name: unmeasured}
    )
    assert "No accuracy of these weights has been published." in rendered(models, tmp_path)


def test_what_no_source_states_is_said(tmp_path):
    models = model("bit_r50x1.in21k_ft_vtab_dsprites_xpos_run0")
    text = rendered(models, tmp_path)
    assert "No source states the size of the images that these weights were evaluated with" in text
    assert "No source states how images are resized for evaluation." in text
    assert "No source lists the 16 classes, which have the indices 0 to 15." in text
    assert "No accuracy of these weights has been published." in text
    assert "23,533,136" in text  # 23,500,352 and a head of 2049 * 16.


def test_multi_label_heads_get_a_sigmoid(tmp_path):
    text = rendered(model("bit_r50x1.in21k"), tmp_path)
    assert "a sigmoid makes each logit the probability of its own class" in text
    assert "tf.nn.sigmoid(logits)" in text and "softmax" not in text
    assert "index 21842, `n15102894`" in text


def test_the_input_range_is_that_of_the_record(tmp_path):
    text = rendered(model("bit_tiny.cifar10"), tmp_path, input_range=(0.0, 1.0))
    assert "scaled to **[0, 1]**: `pixels / 255`" in text
    assert "**[-1, 1]**" not in text and "127.5" not in text


def test_models_that_tensorflow_lite_cannot_store_get_no_code_for_it(tmp_path):
    text = rendered(model("bit_r152x4.in21k"), tmp_path, bytes=4_430_000_000)
    assert "The weights do not fit into a TensorFlow Lite file" in text
    assert "about 4430 MB" in text and "TFLiteConverter" not in text
    text = rendered(
        model("bit_tiny.cifar10", target="serving", precision="bfloat16"),
        tmp_path,
        size=64,
        tolerance=5e-2,
    )
    assert "TensorFlow Lite does not compute convolutions in bfloat16" in text
    assert "TFLiteConverter" not in text
    assert "computes in bfloat16; takes and returns float32" in text
    assert "5 % of the largest one" in text


def test_a_serving_artifact_takes_one_size_and_files_and_is_not_for_hub_layers(tiny_pages):
    text = page_of(tiny_pages, "bit_tiny.serving_classification")
    assert "Height and width are 64." in text
    assert "so it cannot be fine-tuned" in text and "KerasLayer" not in text
    assert (
        "| `image_bytes` | `image_bytes`: string `[?]` | `class_ids`: string `[?, 5]`, "
        "`classes`: string `[?, 5]`, `scores`: float32 `[?, 5]` |"
    ) in text
    assert "KerasLayer" in page_of(tiny_pages, "bit_tiny_classification")


def test_this_project_is_introduced_where_it_is_the_source(tiny_pages, pages):
    text = page_of(tiny_pages, "bit_tiny_classification")
    assert "| CIFAR-10 | top-1 85.83 % | 64×64 | this project, docs/bit_tiny.md |" in text
    assert '"This project" is `bit_keras`' in text
    assert not any("this project" in text.lower() for text in pages.values())


def test_pages_are_the_same_whichever_values_the_weights_have():
    recipe, records = Recipe.read(RECIPE), read_records(PAGES / RECORDS)
    others = [
        dataclasses.replace(
            record,
            bytes=record.bytes + 1234,
            archive_bytes=77_777,
            archive_sha256="7" * 64,
            difference=7.7e-7,
            weights_sha256="8" * 64,
            versions={"keras": "7.7.7"},
        )
        for record in records
    ]
    assert render_pages(recipe, others) == render_pages(recipe, records)
    assert stable_fields(others[0]).keys() == stable_fields(records[0]).keys()
    assert not {"archive_sha256", "versions"} & stable_fields(others[0]).keys()


# The code on the pages.


def ready(block, artifact, server):
    """A block as its reader runs it: with the own folder, and the own server."""
    block = re.sub(r"^(handle|path) = .*$", rf"\1 = {str(artifact)!r}", block, flags=re.MULTILINE)
    return block.replace("http://localhost:8501", server)


@pytest.fixture
def server(artifacts, tmp_path):
    """The address of a server of all artifacts."""
    config = model_server_config_pb2.ModelServerConfig()
    for name, artifact in artifacts.items():
        shutil.copytree(artifact, tmp_path / "models" / name / "1")
        base_path = str(tmp_path / "models" / name)
        config.model_config_list.config.add(name=name, base_path=base_path)
    with stand_in_server(config) as running:
        yield running.url


# tf_keras, tensorflow_hub and tf.lite use or announce names that are about to be dropped.
@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", TINY_NAMES)
def test_the_code_runs_and_agrees_with_keras(
    name, tiny_pages, artifacts, classifier, extractor, server, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(PHOTO, "photo.jpg")
    images = eval_transform("bit_tiny.cifar10")(PHOTO)[None]
    wanted = {
        "images": images,
        "logits": classifier.predict(images, verbose=0),
        "features": extractor.predict(images, verbose=0),
    }
    namespace, assigned = {}, []
    for block in blocks(page_of(tiny_pages, name)):
        exec(ready(block, artifacts[name], server), namespace)
        for variable in re.findall(r"^(images|logits|features) = ", block, re.MULTILINE):
            want = wanted[variable]
            difference = np.abs(np.asarray(namespace[variable]) - want).max() / np.abs(want).max()
            assert difference <= TOLERANCE, block
            assigned.append(variable)
    output = "logits" if name.endswith("_classification") else "features"
    consumers = ["hub.KerasLayer", "TFSMLayer", "TF Serving", "TensorFlow Lite"]
    if "serving" in name:
        # An extractor's image_bytes gives features too; a classifier's are names, printed below.
        consumers[:1] = ["image_bytes"] if output == "features" else []
    assert assigned == ["images"] + [output] * len(consumers)
    if output == "logits":
        best = decode_predictions(wanted["logits"], "bit_tiny.cifar10")[0]
        indices = [str(index) for index in np.argsort(-wanted["logits"][0])[:5]]
        words = indices + ([name for name, _, _ in best] if "serving" in name else [])
        printed = re.findall(r"^(\w+) (\d\S+)$", capsys.readouterr().out, re.MULTILINE)
        assert [word for word, _ in printed] == words
        scores = [score for _, _, score in best] * (len(words) // 5)
        assert [float(score) for _, score in printed] == pytest.approx(scores, rel=1e-4)


@pytest.mark.parametrize("name", TINY_NAMES)
def test_the_code_of_the_other_forms_differs_only_in_the_folder(name, tiny_pages):
    def code(text):
        lines = "".join(blocks(text)).splitlines()
        kept = [line for line in lines if not re.match(r"handle =|path =|import hugging", line)]
        return "\n".join(kept).replace("KerasLayer(path", "KerasLayer(handle").split()

    wanted = code(page_of(tiny_pages, name))
    variation = json.loads(tiny_pages[f"kaggle/{name}/model-instance-metadata.json"])
    assert wanted and code(variation["usage"]) == wanted
    assert code(tiny_pages[f"huggingface/{name}/README.md"]) == wanted


@pytest.mark.parametrize(
    "name",
    [
        "bit_r50x1.distilled_in1k_224",  # Short side, bicubic.
        "bit_r50x1.distilled_in1k_160",  # No source.
        "bit_r50x1.in21k_ft_in1k",  # The short side is the crop.
        "bit_r50x1.in21k_ft_cifar10",  # Squashed to the crop.
        "bit_tiny.cifar10",  # Squashed, then cropped.
        "bit_r152x2.teacher_flowers_128",  # Area.
    ],
)
@pytest.mark.parametrize("size", [(500, 333), (301, 700)], ids=["wide", "tall"])
def test_the_photo_of_the_examples_is_what_the_transform_gives(name, size, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    keras.utils.save_img("photo.jpg", noise, data_format="channels_last", scale=False)
    _, photo, *_ = blocks(rendered(model(name), tmp_path))
    namespace = {}
    exec(photo, namespace)
    assert namespace["images"].dtype == np.float32
    assert np.array_equal(namespace["images"], eval_transform(name)("photo.jpg")[None])
    _, photo, *_ = blocks(rendered(model(name), tmp_path, input_range=(0.0, 1.0)))
    exec(photo, namespace)
    # In [0, 1] a value of float32 is rounded elsewhere than in [-1, 1].
    want = (eval_transform(name)("photo.jpg")[None] + 1) / 2
    assert np.abs(namespace["images"] - want).max() < 1e-6


def test_a_collection_says_whose_weights_these_are_and_where_to_read_on(pages, tmp_path):
    # What tensorflow/tfhub.dev @81fdea8, assets/docs/sayakpaul/collections/bit-resnet/1.md, has.
    kaggle = json.loads(pages["kaggle/model-metadata.json"])["description"]
    for text in (pages["tfhub/assets/docs/sayakpaul/collections/bit-resnet/1.md"], kaggle):
        _, notes, thanks, references = re.split("^## (?:Notes|Ack.*|References)$", text, flags=re.M)
        assert "https://www.kaggle.com/models/google/bit" in notes
        for name in ("BiT", "FunMatch", "Willi Gierke", "https://github.com/sayakpaul/BiT-jax2tf"):
            assert name in thanks
        for source in (
            "arxiv.org/abs/1912.11370",
            "arxiv.org/abs/2106.05237",
            "github.com/google-research/big_transfer",
            "image-net.org/challenges/LSVRC/2012",
        ):
            assert source in references
    # Of others nothing is claimed.
    recipe = recipe_of(model("bit_tiny.cifar10"), tmp_path)
    (item,) = recipe.items
    text = render_pages(recipe, [record_of(item)])[
        "tfhub/assets/docs/some-body/collections/small/1.md"
    ]
    assert "## Acknowledgements" not in text and "google" not in text
    assert "- CIFAR-10: [https://www.cs.toronto.edu" in text


# What is in the repository.


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_committed_pages_are_those_of_the_templates_and_the_registry(pages):
    command = "python -m bit_keras.collection.pages bit-resnet export/pages"
    committed = files_of(PAGES)
    assert committed.keys() == pages.keys(), f"Run: {command}"
    stale = [path for path in pages if committed[path] != pages[path]]
    assert not stale, f"These pages are stale: {stale}. Run: {command}"


def test_the_command_writes_the_pages_of_a_folder_again(pages, tmp_path):
    shutil.copytree(PAGES, tmp_path / "pages")
    page = tmp_path / "pages/tfhub/assets/docs/sayakpaul/sayakpaul.md"
    page.write_text("something old")
    command = [
        sys.executable,
        "-m",
        "bit_keras.collection.pages",
        RECIPE,
        str(tmp_path / "pages"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "pages") == pages

    (tmp_path / "pages" / RECORDS).write_text("{}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "records.json cannot be read (the document must be a list" in done.stderr
    assert "Traceback" not in done.stderr


# Writing.


def test_pages_that_are_no_longer_generated_are_removed(pages, tmp_path):
    recipe, records = Recipe.read(RECIPE), read_records(PAGES / RECORDS)
    folder = tmp_path / "pages"
    write_pages(recipe, records, folder)
    assert files_of(folder) == pages
    (folder / "notes.txt").write_text("mine")
    write_pages(recipe, records[:1], folder)
    (folder / "notes.txt").unlink()
    assert files_of(folder) == render_pages(recipe, records[:1])
    assert [path.name for path in (folder / "huggingface").iterdir()] == [records[0].name]


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "kaggle").mkdir()
    (tmp_path / "kaggle" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="contains kaggle and is not a folder of pages"):
        write_pages(Recipe.read(RECIPE), read_records(PAGES / RECORDS), tmp_path)
    assert files_of(tmp_path) == {"kaggle/thesis.txt": "years of work"}


@pytest.fixture
def own_templates(tmp_path):
    """A recipe and its records with a copy of the templates, and the folder of these."""
    shutil.copytree(TEMPLATES, tmp_path / "templates")
    recipe = dataclasses.replace(Recipe.read(RECIPE), folder=tmp_path)
    return recipe, read_records(PAGES / RECORDS), tmp_path / "templates"


def test_a_template_with_an_undefined_variable_is_named(own_templates, tmp_path):
    recipe, records, templates = own_templates
    write_pages(recipe, records, tmp_path / "pages")
    before = files_of(tmp_path / "pages")
    part = templates / "parts" / "input.md.jinja"
    part.write_text("## Input\n\n{{ model.colour }}\n")
    with pytest.raises(ExportError) as caught:
        write_pages(recipe, records, tmp_path / "pages")
    assert f"{part}, line 3," in str(caught.value)
    assert "'colour'" in str(caught.value)
    part.write_text("{{ colour }}\n")
    with pytest.raises(ExportError, match=r"input\.md\.jinja, line 1, .* 'colour' is undefined\.$"):
        write_pages(recipe, records, tmp_path / "pages")
    assert files_of(tmp_path / "pages") == before


def test_templates_that_are_missing_or_broken_are_named(own_templates):
    recipe, records, templates = own_templates
    part = templates / "parts" / "input.md.jinja"
    part.write_text("## Input\n{% if %}\n")
    with pytest.raises(ExportError, match=r"input\.md\.jinja, line 2, .*: Expected"):
        render_pages(recipe, records)
    part.write_text('{% include "parts/absent.md.jinja" %}')
    with pytest.raises(ExportError, match=r"parts/absent\.md\.jinja"):
        render_pages(recipe, records)


def test_templates_next_to_a_recipe_replace_packaged_ones_of_the_same_name(own_templates, pages):
    recipe, records, templates = own_templates
    shutil.rmtree(templates)
    assert render_pages(recipe, records) == pages
    (templates / "tfhub").mkdir(parents=True)
    (templates / "tfhub" / "publisher.md.jinja").write_text("# {{ recipe.publisher_title }}\n")
    changed = render_pages(recipe, records)
    publisher = "tfhub/assets/docs/sayakpaul/sayakpaul.md"
    assert changed == {**pages, publisher: "# Sayak Paul\n"}


def test_records_that_do_not_fit_are_refused(tmp_path):
    recipe, (record, *_) = Recipe.read(RECIPE), read_records(PAGES / RECORDS)
    with pytest.raises(ExportError, match="has no artifact 'other'"):
        render_pages(recipe, [dataclasses.replace(record, name="other")])
    with pytest.raises(ExportError, match="No artifact of bit-resnet exists"):
        render_pages(recipe, [])
    with pytest.raises(ExportError, match=r"nothing\.json cannot be read"):
        read_records(tmp_path / "nothing.json")
    (tmp_path / "old.json").write_text('[{"name": "x"}]')
    with pytest.raises(ExportError, match="written by another version of bit_keras"):
        read_records(tmp_path / "old.json")


@pytest.mark.parametrize("package", ["jinja2", "huggingface_hub"])
def test_a_missing_package_is_named_with_its_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"{package}: pip install 'bit_keras\[publish\]'"):
        render_pages(Recipe.read(RECIPE), read_records(PAGES / RECORDS))
