"""Writes docs/models.md and the table of README.md from the registry: python docs/models.py"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bit_keras.preprocessing.evaluation import DEFAULT_CROP_RATIO
from bit_keras.registry import (
    ARCHITECTURES,
    CHECKPOINTS,
    HUGGING_FACE,
    PACKAGED,
    Accuracy,
    Checkpoint,
)

ROOT = Path(__file__).parents[1]

#: The table of README.md is between these lines.
MARKERS = ("<!-- models -->", "<!-- /models -->")

#: Title and description of each family, and what its names match.
FAMILIES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "Distilled": (
            r".*\.distilled_.*",
            "Small networks trained to imitate large ones "
            "([FunMatch](https://arxiv.org/abs/2106.05237)).",
        ),
        "Teachers for ImageNet": (
            r".*\.teacher_in1k_.*",
            "Large fine-tuned networks: the teachers of the distilled ones.",
        ),
        "Teachers for smaller sets": (
            r".*\.teacher_(flowers|pet|food|sun)_.*",
            "The same architecture, fine-tuned on the data set in the name.",
        ),
        "BiT-M": (
            r".*\.in21k",
            "Pre-trained on ImageNet-21k ([BiT](https://arxiv.org/abs/1912.11370)): the models to "
            "fine-tune. Their heads are multi-label, so scores are a sigmoid of the logits.",
        ),
        "BiT-M, fine-tuned": (
            r".*\.in21k_ft_(in1k|cifar10)",
            "BiT-M, fine-tuned by its authors.",
        ),
        "BiT-S": (
            r".*\.in1k",
            "Pre-trained on ImageNet-1k only. R152x2 is missing: `bit_pytorch/models.py` of "
            "big_transfer has the name BiT-S-R152x2, but no source shows that the file was "
            "published. If you have it, load it with `weights=` of `bit_r152x2.in21k_ft_in1k`.",
        ),
        "With BatchNorm": (
            r"resnetv2_.*",
            "The same network with BatchNorm and plain convolutions, trained by timm.",
        ),
        "Packaged": (
            r"bit_tiny\..*",
            "Small enough to be part of the package: for tests, demonstrations and first steps. "
            "[How it was trained](bit_tiny.md).",
        ),
    }
)

VTAB = re.compile(r".*\.in21k_ft_vtab_(?P<task>.*)_run(?P<seed>\d)")

#: The addresses of the registry's short source names, which are explained in its docstring.
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "big_transfer README": "https://github.com/google-research/big_transfer/blob/140de6e/README.md",
        "big_transfer `bit_pytorch` colab": (
            "https://github.com/google-research/big_transfer/tree/140de6e/colabs"
        ),
        "big_vision distillation configs": (
            "https://github.com/google-research/big_vision/tree/0127fb6/big_vision/configs/proj/distill"
        ),
        "big_vision distillation README": (
            "https://github.com/google-research/big_vision/blob/0127fb6/big_vision/configs/proj/"
            "distill/README.md"
        ),
        "FunMatch paper": "https://arxiv.org/abs/2106.05237",
        "FunMatch paper, table 4": "https://arxiv.org/abs/2106.05237",
        "this project": "bit_tiny.md",
        "this project, docs/bit_tiny.md": "bit_tiny.md",
        "timm 1.0.31": "https://github.com/huggingface/pytorch-image-models/tree/v1.0.31",
        "timm results CSVs @aa4b585": (
            "https://github.com/huggingface/pytorch-image-models/tree/aa4b585/results"
        ),
    }
)

INTRODUCTION = """\
<!-- Written by docs/models.py from the registry. Do not edit; run `python docs/models.py`. -->

# Models

The registry contains {count} models, named `architecture.tag`. `bit-keras info NAME` prints the
record of a model, [`bit_keras.model_info(NAME)`](api/registry.md#bit_keras.model_info) returns it.
The aliases below can be used in place of the name: timm ids, TF Hub handles, official file names.

All models take RGB images, channels last, float32 in [-1, 1], of any size from 32 pixels up.
[`bit_keras.eval_transform(NAME)`](api/preprocessing.md#bit_keras.eval_transform) returns the
transform of the column *evaluation*. If no source states how images are resized, the short side is
resized bilinearly so that the crop is {ratio} of it, and a warning is logged.

**Accuracies are those of the publishers**, each with its source; where sources disagree, all are
listed. This project has not evaluated the official weights; only the accuracy of `bit_tiny.cifar10`
is its own. Official files contain float32 values, four bytes for each parameter; the exact number
of bytes is given where a source states it. Facts that no source states are empty.

| architecture | units per block | width | features | parameters without a head | normalisation |
|---|---|---:|---:|---:|---|
{architectures}
"""

VTAB_SECTION = """\
## VTAB

BiT-M, fine-tuned by its authors on 1,000 images of each task of
[VTAB](https://github.com/google-research/task_adaptation): {count} models. Their names are
`ARCHITECTURE.in21k_ft_vtab_TASK_runSEED`, for example `{example}`, whose file is
`{file}`. The seeds are {seeds}; the architectures
{architectures}. Size, transform and accuracy of the single models are not published.

| task in the name | task in the file | classes |
|---|---|---:|
{tasks}
"""


def page() -> str:
    """Returns the text of docs/models.md."""
    parts = [
        INTRODUCTION.format(
            count=len(CHECKPOINTS),
            ratio=DEFAULT_CROP_RATIO,
            architectures=_rows(_architectures()),
        )
    ]
    for title, (pattern, description) in FAMILIES.items():
        family = [model for name, model in CHECKPOINTS.items() if re.fullmatch(pattern, name)]
        parts.append(_section(title, description, family))
    return "\n".join([*parts, _vtab()])


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; columns whose title ends in a colon contain numbers."""
    rule = "|".join("---:" if column.endswith(":") else "---" for column in columns)
    titles = " | ".join(column.removesuffix(":") for column in columns)
    return f"| {titles} |\n|{rule}|\n{_rows(rows)}\n"


def _architectures() -> Iterator[Sequence[str]]:
    for architecture in ARCHITECTURES.values():
        is_group = architecture.normalization == "group"
        yield (
            f"`{architecture.name}`",
            ", ".join(map(str, architecture.units)),
            str(architecture.width),
            f"{architecture.features:,}",
            _millions(architecture.parameters()),
            "GroupNorm, weight standardisation" if is_group else "BatchNorm",
        )


def _section(title: str, description: str, family: Sequence[Checkpoint]) -> str:
    tables = [
        _table(("model", "parameters:", "classes:", "file", "bytes:"), map(_facts, family)),
        _table(("model", "size:", "evaluation", "stated by"), map(_evaluation, family)),
    ]
    if any(model.accuracies for model in family):
        metrics = list(dict.fromkeys(_metric(a) for model in family for a in model.accuracies))
        columns = ("model", "at:", *(f"{metric}:" for metric in metrics), "published by")
        tables.append(_table(columns, _accuracy_rows(family, metrics)))
    if any(model.aliases for model in family):
        tables.append(_table(("model", "also known as"), map(_names, family)))
    return f"## {title}\n\n{description}\n\n" + "\n".join(tables)


def _facts(model: Checkpoint) -> Sequence[str]:
    return (
        f"`{model.name}`",
        _millions(model.parameters),
        f"{model.classes:,}",
        _file(model),
        f"{model.bytes:,} ({model.bytes / 1e6:,.0f} MB)" if model.bytes else "",
    )


def _evaluation(model: Checkpoint) -> Sequence[str]:
    """Returns the cells that describe the evaluation transform, with its source."""
    name, size, resizing = f"`{model.name}`", str(model.size or ""), model.resizing
    if resizing is None:
        return name, size, "", ""
    if resizing.mode == "squash":
        words = f"both sides to {resizing.side}, {resizing.interpolation}"
    else:
        words = f"short side to {resizing.side}, {resizing.interpolation}"
    if resizing.mode == "short_side" or resizing.side != model.size:
        words += f", then the central {model.size} x {model.size}"
    return name, size, words, _link(resizing.source)


def _link(source: str) -> str:
    return f"[{source.removesuffix(', docs/bit_tiny.md')}]({SOURCES[source]})"


def _file(model: Checkpoint) -> str:
    if model.url.startswith(PACKAGED):
        return "in the package"
    url = model.url.replace(HUGGING_FACE, "https://huggingface.co/")
    return f"[{Path(model.file).name}]({url})"


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


def _metric(accuracy: Accuracy) -> str:
    return f"{accuracy.dataset} {accuracy.metric}"


def _accuracy_rows(family: Sequence[Checkpoint], metrics: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yields a row for each model, size and source."""
    for model in family:
        places = dict.fromkeys((accuracy.size, accuracy.source) for accuracy in model.accuracies)
        for size, source in places:
            values = {
                _metric(accuracy): f"{accuracy.value} %"
                for accuracy in model.accuracies
                if (accuracy.size, accuracy.source) == (size, source)
            }
            cells = (values.get(metric, "") for metric in metrics)
            yield f"`{model.name}`", str(size or ""), *cells, _link(source)


def _names(model: Checkpoint) -> Sequence[str]:
    return f"`{model.name}`", ", ".join(f"`{alias}`" for alias in model.aliases)


def _vtab() -> str:
    models = [model for name, model in CHECKPOINTS.items() if VTAB.fullmatch(name)]
    tasks = {_vtab_part(model, "task"): model for model in models}
    seeds = sorted({_vtab_part(model, "seed") for model in models})
    architectures = dict.fromkeys(f"`{model.architecture.name}`" for model in models)
    return VTAB_SECTION.format(
        count=len(models),
        seeds=f"{', '.join(seeds[:-1])} and {seeds[-1]}",
        example=models[0].name,
        file=models[0].file,
        architectures=", ".join(architectures),
        tasks=_rows(
            (f"`{task}`", f"`{_task_in_file(model)}`", str(model.classes))
            for task, model in tasks.items()
        ),
    )


def _vtab_part(model: Checkpoint, part: str) -> str:
    found = VTAB.fullmatch(model.name)
    assert found is not None
    return found[part]


def _task_in_file(model: Checkpoint) -> str:
    return model.file.partition("-run")[2].partition("-")[2].removesuffix(".npz")


def readme_table() -> str:
    """Returns the table of the ImageNet models, one row for each tag."""
    tags: dict[str, list[Checkpoint]] = {}
    for model in CHECKPOINTS.values():
        if (model.labels or "").startswith("imagenet"):
            tags.setdefault(model.name.split(".")[1], []).append(model)
    columns = ("model", "classes", "size", "published ImageNet top-1")
    return _table(columns, (_summary(tag, models) for tag, models in tags.items()))


def _summary(tag: str, models: Sequence[Checkpoint]) -> Sequence[str]:
    names = [model.architecture.name for model in models]
    family, sizes = names[0].split("_")[0], ",".join(name.split("_")[1] for name in names)
    architecture = names[0] if len(names) == 1 else f"{family}_{{{sizes}}}"
    top1 = [
        next(accuracy.value for accuracy in model.accuracies if accuracy.dataset == "ImageNet-1k")
        for model in models
        if model.accuracies
    ]
    span = "" if not top1 else f"{min(top1):.1f} to {max(top1):.1f} %"
    return (
        f"`{architecture}.{tag}`",
        str(models[0].classes),
        ", ".join(map(str, dict.fromkeys(model.size for model in models))),
        f"{top1[0]:.1f} %" if len(top1) == 1 else span,
    )


def with_table(readme: str) -> str:
    """Returns the text of README.md with its table updated from the registry."""
    before, start, rest = readme.partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not start or not end:
        raise SystemExit(f"README.md needs the lines {' and '.join(MARKERS)} around its table.")
    return f"{before}{start}\n{readme_table()}{end}{after}"


def main() -> None:
    """Writes docs/models.md and the table of README.md."""
    (ROOT / "docs" / "models.md").write_text(page(), "utf-8")
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
