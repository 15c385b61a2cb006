"""The pages of a collection: for tfhub.dev, for Kaggle Models and for the Hugging Face hub.

All their facts are from the registry, the recipe and the
records of its artifacts, put in place by the Jinja2 templates in `templates/`, or those
next to the recipe. They are the same whichever values the weights have. After a
change to a template,

    python -m bit_keras.collection.pages bit-resnet export/pages

writes the pages of a folder again, from the records that are in it.

References:
    - tfhub.dev: `tensorflow/tfhub.dev` @81fdea8, `tools/validator.py` and `tags/`
    - Kaggle: `Kaggle/kaggle-api` @1744cda, `docs/models_metadata.md`
    - Hugging Face: huggingface_hub 2.4, `ModelCardData`
"""

import argparse
import dataclasses
import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bit_keras.atomic import replaced_file, require_own
from bit_keras.collection.recipe import Item, Recipe, repeated
from bit_keras.collection.record import Record, SignatureRecord, read_json
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.extras import require_extra
from bit_keras.preprocessing import EvalTransform, Labels, eval_transform, load_labels
from bit_keras.registry import MINIMUM_SIZE, Checkpoint

#: The name of a folder of templates: here, and next to a recipe that has its own.
_TEMPLATES = "templates"
_PACKAGED = Path(__file__).parent / _TEMPLATES

#: Stored next to the pages: the facts in them about each artifact.
RECORDS = "records.json"

#: What no page contains, since it depends on the values of the weights or on the packages that
#: wrote them; a Record has these values instead.
_VARYING: Mapping[str, Any] = MappingProxyType(
    {
        "archive_bytes": 0,
        "archive_sha256": "",
        "difference": 0.0,
        "weights_sha256": "",
        "versions": {},
    }
)

#: The ids that tfhub.dev has for these networks (`tags/network_architecture.yaml`); Google's own
#: BiT modules have those of the first five (`assets/docs/google/models/bit`).
_NETWORK_TAGS: Mapping[str, str] = MappingProxyType(
    {
        "bit_r50x1": "resnet50-v2",
        "bit_r50x3": "resnet50x3-v2",
        "bit_r101x1": "resnet101-v2",
        "bit_r101x3": "resnet101x3-v2",
        "bit_r152x4": "resnet152x4-v2",
        "resnetv2_50": "resnet-v2-50",
        "resnetv2_101": "resnet-v2-101",
    }
)

#: The id of each task on tfhub.dev (`tags/task.yaml`) and on the Hugging Face hub.
_TASKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "classification": ("image-classification", "image-classification"),
        "feature_extraction": ("image-feature-vector", "image-feature-extraction"),
    }
)

#: What Kaggle calls a licence (`docs/models_metadata.md`).
KAGGLE_LICENSES: Mapping[str, str] = MappingProxyType({"Apache-2.0": "Apache 2.0"})

#: No file of TensorFlow Lite is larger: offsets in a flatbuffer have 31 bits.
_LARGEST_TFLITE = 2**31

#: The side of the photo in the examples where no source states one.
_EXAMPLE_SIZE = 224


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that weights were trained on.

    Attributes:
        token: str. Its part of the names of checkpoints.
        title: str. What descriptions of checkpoints call it.
        tfhub: str. Its id on tfhub.dev (`tags/dataset.yaml`).
        hugging_face: str. Its id on the Hugging Face hub.
        address: str. Its own page.
    """

    token: str
    title: str
    tfhub: str
    hugging_face: str
    address: str


DATASETS = (
    Dataset("in21k", "ImageNet-21k", "imagenet-21k", "imagenet-21k", "https://www.image-net.org/"),
    Dataset(
        "in1k",
        "ImageNet-1k",
        "imagenet-ilsvrc-2012-cls",
        "imagenet-1k",
        "https://www.image-net.org/challenges/LSVRC/2012/",
    ),
    Dataset(
        "cifar10",
        "CIFAR-10",
        "cifar-10",
        "cifar10",
        "https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
)


@dataclasses.dataclass(frozen=True)
class PublishedModel:
    """What the templates know of an artifact, under the name `model`.

    Attributes:
        recipe: Recipe.
        item: Item. What the recipe says of it.
        record: Record. What it is.
    """

    recipe: Recipe
    item: Item
    record: Record

    @property
    def checkpoint(self) -> Checkpoint:
        return self.item.checkpoint

    @functools.cached_property
    def transform(self) -> EvalTransform:
        """What the photo of the examples goes through."""
        size = self.record.size or self.item.size or self.checkpoint.size or _EXAMPLE_SIZE
        return eval_transform(self.item.model, size)

    @property
    def classes(self) -> int | None:
        """Width of the head; `None` for a feature extractor."""
        return self.record.outputs if self.item.variant == "classification" else None

    @property
    def labels(self) -> Labels | None:
        """The packaged list of the classes, if there is one."""
        if self.classes is None or self.checkpoint.labels is None:
            return None
        return load_labels(self.checkpoint.labels)

    @property
    def parameters(self) -> int:
        return self.checkpoint.architecture.parameters(self.classes)

    @property
    def multiply_adds(self) -> int:
        side = self.transform.size
        return self.checkpoint.architecture.multiply_adds(side, side, self.classes)

    @property
    def datasets(self) -> list[Dataset]:
        tokens = self.checkpoint.name.partition(".")[2].split("_")
        return [
            dataset
            for dataset in DATASETS
            if dataset.token in tokens or dataset.title in self.checkpoint.description
        ]

    @property
    def has_published_transform(self) -> bool:
        return self.checkpoint.resizing is not None

    @property
    def fits_tflite(self) -> bool:
        return self.record.bytes < _LARGEST_TFLITE

    @property
    def handle(self) -> str:
        """Its address on tfhub.dev."""
        return f"https://tfhub.dev/{self.recipe.publisher}/{self.item.name}/{self.record.version}"

    @property
    def asset(self) -> str:
        """The address of its archive."""
        return self.recipe.archives + self.record.archive

    @property
    def tfhub_task(self) -> str:
        return _TASKS[self.item.variant][0]

    @property
    def network_tags(self) -> list[str]:
        architecture = self.checkpoint.architecture
        tags = ["bit"] if architecture.normalization == "group" else []
        if architecture.name in _NETWORK_TAGS:
            tags.append(_NETWORK_TAGS[architecture.name])
        return tags

    @property
    def kaggle_slug(self) -> str:
        return kaggle_slug(self.item.name)


def kaggle_slug(name: str) -> str:
    """A name in the characters that Kaggle has for it: small letters, digits and dashes.

    Reference:
        `Kaggle/kaggle-cli`, pull request 1134.
    """
    return re.sub(r"[^a-z0-9-]", "-", name.lower())


def write_pages(recipe: Recipe, records: Sequence[Record], folder: str | os.PathLike) -> None:
    """Writes the pages of a collection, and the facts that they were made from.

    Each file is written atomically; earlier pages that are not among the
    new ones are removed.

    Args:
        recipe: Recipe. Templates in `recipe.folder / "templates"` replace the
            packaged ones of the same name.
        records: list of Record. The artifacts that exist, of those in the recipe.
        folder: A folder that does not exist, is empty, or contains such pages.

    Raises:
        ExportError: What `render_pages` raises, or the folder contains something else.
        BitKerasError: The file system refuses.

    Example:

    ```sh
    bit-keras collection bit-resnet --out collection
    ```
    """
    folder = Path(folder)
    pages = render_pages(recipe, records)
    require_own(folder, RECORDS, "a folder of pages", ExportError)
    for path, text in pages.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(folder / path) as partial:
            partial.write_text(text, "utf-8")
    _remove_others(folder, {folder / path for path in pages})


def _remove_others(folder: Path, pages: set[Path]) -> None:
    """Removes every other file below the folders of pages, and folders that are empty then."""
    for top in {path.relative_to(folder).parts[0] for path in pages} - {RECORDS}:
        # Files come before the folder that they are in.
        for path in sorted((folder / top).rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in pages:
                path.unlink()


def require_page_packages() -> None:
    """Raises ExportError where a package that the pages need is missing."""
    require_extra("publish", "huggingface_hub", "jinja2", purpose="A model page", error=ExportError)


def render_pages(recipe: Recipe, records: Sequence[Record]) -> dict[str, str]:
    """The pages of a collection.

    Args:
        recipe: Recipe. Templates in `recipe.folder / "templates"` replace the
            packaged ones of the same name.
        records: list of Record. The artifacts that exist, of those in the recipe.

    Returns:
        dict from the path of a file to its text: `records.json` first, then the
        publisher, the collection and the models for tfhub.dev (`tfhub/`), the
        model and its variations for Kaggle (`kaggle/`), and a model card for each
        repository on the Hugging Face hub (`huggingface/`).

    Raises:
        ExportError: jinja2 or huggingface_hub is missing, a template is missing
            or uses an undefined variable, or `records` is empty or has one that the
            recipe does not name.
    """
    require_page_packages()
    models = _published_models(recipe, records)
    templates = _Templates(recipe.folder / _TEMPLATES, _PACKAGED)
    publisher = f"tfhub/assets/docs/{recipe.publisher}"
    pages = {
        RECORDS: _json([stable_fields(model.record) for model in models]),
        f"{publisher}/{recipe.publisher}.md": templates.render(
            "tfhub/publisher.md.jinja", recipe=recipe
        ),
        f"{publisher}/collections/{recipe.name}/1.md": templates.render(
            "tfhub/collection.md.jinja", recipe=recipe, models=models
        ),
        "kaggle/model-metadata.json": _json(_kaggle_model(recipe, models, templates)),
    }
    for model in models:
        name, version = model.item.name, model.record.version
        others = (other for other in models if other is not model)
        siblings = [other for other in others if other.item.model == model.item.model]
        pages |= {
            f"{publisher}/models/{name}/{version}.md": templates.render(
                "tfhub/model.md.jinja", model=model, siblings=siblings
            ),
            f"kaggle/{name}/model-instance-metadata.json": _json(
                _kaggle_variation(model, templates)
            ),
            f"huggingface/{name}/README.md": templates.render(
                "huggingface/model.md.jinja", model=model, metadata=_hugging_face_header(model)
            ),
        }
    return pages


def stable_fields(record: Record) -> dict[str, Any]:
    """A record without what depends on the values of the weights, with its size in megabytes."""
    fields = _stable(record).to_json()
    return {name: value for name, value in fields.items() if name not in _VARYING}


def _stable(record: Record) -> Record:
    # TensorFlow lists signatures in any order; compressed files inside the artifact make it some
    # bytes larger or smaller.
    signatures = {
        name: SignatureRecord(
            *(dict(sorted(side.items())) for side in (found.inputs, found.outputs))
        )
        for name, found in sorted(record.signatures.items(), key=_default_first)
    }
    return dataclasses.replace(
        record, signatures=signatures, bytes=round(record.bytes, -6), **_VARYING
    )


def _default_first(item: tuple[str, SignatureRecord]) -> tuple[bool, str]:
    return item[0] != "serving_default", item[0]


def read_records(path: str | os.PathLike) -> list[Record]:
    """Reads the `records.json` of a folder of pages.

    Raises:
        ExportError: The file is missing, or contains something else.
    """
    documents = read_json(Path(path), schema=list[dict[str, Any]])
    return [Record.from_json({**fields, **_VARYING}) for fields in documents]


def _published_models(recipe: Recipe, records: Sequence[Record]) -> list[PublishedModel]:
    """The recipe's items that have a record, in the recipe's order."""
    by_name = {record.name: _stable(record) for record in records}
    unknown = sorted(by_name.keys() - {item.name for item in recipe.items})
    if unknown or not by_name:
        raise ExportError(
            f"The recipe {recipe.name} has no artifact {unknown[0]!r}."
            if unknown
            else f"No artifact of {recipe.name} exists; pages are written of what was built."
        )
    models = [
        PublishedModel(recipe, item, by_name[item.name])
        for item in recipe.items
        if item.name in by_name
    ]
    double = repeated(model.kaggle_slug for model in models)
    if double is not None:
        raise ExportError(
            f"Two artifacts of {recipe.name} are called {double!r} on Kaggle, which has only "
            "small letters, digits and dashes; rename one of them."
        )
    return models


class _Templates:
    """The templates of a recipe.

    Args:
        *folders: Path. Of templates of the same name, the first is taken.
    """

    def __init__(self, *folders: Path) -> None:
        import jinja2

        self.folders = folders
        # What is written is Markdown: nothing is escaped.
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.environment.filters |= {"shape": _shape, "range": _range, "list_of": _list_of}
        self.environment.globals["minimum_size"] = MINIMUM_SIZE

    def render(self, name: str, **context: Any) -> str:
        import jinja2

        try:
            text = self.environment.get_template(name).render(**context)
        except jinja2.TemplateError as error:
            raise ExportError(
                f"The template {self._place(error) or name} cannot be rendered: {error.message}."
            ) from error
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

    def _place(self, error: Exception) -> str | None:
        """The file and the line of the innermost template, which Jinja2 adds to tracebacks."""
        frames = traceback.extract_tb(error.__traceback__)
        places = [
            f"{frame.filename}, line {frame.lineno},"
            for frame in frames
            if any(Path(frame.filename).is_relative_to(folder) for folder in self.folders)
        ]
        return places[-1] if places else None


def _shape(sides: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if side is None else str(side) for side in sides) + "]"


def _range(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:g}, {bounds[1]:g}]"


def _list_of(words: Sequence[Any]) -> str:
    """Words as a sentence has them: "a, b and c"."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def _json(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _kaggle_model(
    recipe: Recipe, models: list[PublishedModel], templates: _Templates
) -> dict[str, Any]:
    return {
        "ownerSlug": recipe.publisher,
        "title": recipe.title,
        "slug": kaggle_slug(recipe.name),
        "subtitle": recipe.description,
        # A person looks at it before everybody does.
        "isPrivate": True,
        "description": templates.render("kaggle/model.md.jinja", recipe=recipe, models=models),
        "publishTime": "",
        "provenanceSources": "",
    }


def _kaggle_variation(model: PublishedModel, templates: _Templates) -> dict[str, Any]:
    return {
        "ownerSlug": model.recipe.publisher,
        "modelSlug": kaggle_slug(model.recipe.name),
        "instanceSlug": model.kaggle_slug,
        "framework": "tensorFlow2",
        "overview": templates.render("parts/sentence.md.jinja", model=model).strip(),
        "usage": templates.render("kaggle/variation.md.jinja", model=model),
        "licenseName": KAGGLE_LICENSES[model.checkpoint.license],
        "fineTunable": model.item.target == "hub",
        "trainingData": [dataset.title for dataset in model.datasets],
        "modelInstanceType": "Unspecified",
        "baseModelInstance": "",
        "externalBaseModelUrl": "",
    }


def _hugging_face_header(model: PublishedModel) -> str:
    from huggingface_hub import ModelCardData

    classifies = model.item.variant == "classification"
    return ModelCardData(
        license=model.checkpoint.license.lower(),
        # A SavedModel at the root of the repository (`huggingface.js`, `model-libraries.ts`).
        library_name="tf-keras",
        pipeline_tag=_TASKS[model.item.variant][1],
        tags=[*model.network_tags, "tensorflow", "saved-model"],
        datasets=[dataset.hugging_face for dataset in model.datasets] or None,
        # Features have no accuracy of their own.
        eval_results=list(_eval_results(model)) or None if classifies else None,
        model_name=model.item.name if classifies else None,
    ).to_yaml()


def _eval_results(model: PublishedModel) -> Iterator[Any]:
    from huggingface_hub import EvalResult

    ids = {dataset.title: dataset.hugging_face for dataset in DATASETS}
    for accuracy in model.checkpoint.accuracies:
        size = f" at {accuracy.size} pixels" if accuracy.size else ""
        yield EvalResult(
            task_type="image-classification",
            dataset_type=ids.get(accuracy.dataset, accuracy.dataset.lower().replace(" ", "-")),
            dataset_name=accuracy.dataset,
            metric_type="accuracy",
            metric_value=accuracy.value,
            # The header has one source for all figures of a data set, and here each has its own.
            metric_name=f"{accuracy.metric} in percent{size} ({accuracy.source})",
        )


def main() -> None:
    """Writes the pages of a folder again, from the records that are in it."""
    parser = argparse.ArgumentParser(
        prog="python -m bit_keras.collection.pages", description=__doc__
    )
    parser.add_argument("recipe", help="the recipe of the collection: its name or its path")
    parser.add_argument("folder", type=Path, help="the folder of the pages")
    arguments = parser.parse_args()
    try:
        records = read_records(arguments.folder / RECORDS)
        write_pages(Recipe.read(arguments.recipe), records, arguments.folder)
    except BitKerasError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
