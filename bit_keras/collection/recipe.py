"""A recipe: which artifacts make up a collection, and under which names they are published."""

import dataclasses
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bit_keras.artifacts.metadata import OUTPUTS, VARIANTS, Variant
from bit_keras.errors import ExportError, reason_of
from bit_keras.exporters.targets import PRECISIONS, TARGETS, check_options
from bit_keras.registry import MINIMUM_SIZE, Checkpoint, list_models, model_info

#: What tfhub.dev takes as the name of a publisher and of a model
#: (`tensorflow/tfhub.dev` @81fdea8, `tools/validator.py`), a model's without slashes:
#: it is also the name of a folder.
_PUBLISHER = re.compile(r"[a-z\d-]+")
_NAME = re.compile(r"\w[\w.-]*")
_ARCHIVE = re.compile(rf"{_NAME.pattern}\.tar\.gz")
_NAME_RULE = "letters, digits, '_', '.' and '-' are allowed, and no point or dash in front"
_ARCHIVE_RULE = "it is the name of a file that ends in .tar.gz"

#: The targets of a collection: it consists of SavedModels.
_TARGETS = tuple(name for name, target in TARGETS.items() if target.is_saved_model)

#: The folder of the packaged recipes.
_PACKAGED = Path(__file__).parent / "recipes"


@dataclasses.dataclass(frozen=True)
class Item:
    """One artifact of a collection.

    Attributes:
        name: str. The name that it is published under, below the publisher; also
            that of its folder.
        model: str. The registry's name of the weights.
        variant: str. `"classification"` or `"feature_extraction"`.
        target: str. `"hub"` or `"serving"`.
        version: int. Of the artifact, from 1.
        size: int or None. Side of the images; the checkpoint's where it is `None`.
        precision: str. `"float32"` or `"bfloat16"`.
        archive: str. The file name of its archive where it is published.
    """

    name: str
    model: str
    variant: Variant = VARIANTS[0]
    target: str = _TARGETS[0]
    version: int = 1
    size: int | None = None
    precision: str = PRECISIONS[0]
    archive: str = ""

    @property
    def checkpoint(self) -> Checkpoint:
        return model_info(self.model)

    @property
    def options(self) -> dict[str, Any]:
        """The options of its export, without the version."""
        options: dict[str, Any] = {} if self.size is None else {"size": self.size}
        return (
            options if self.precision == PRECISIONS[0] else options | {"precision": self.precision}
        )

    @property
    def output(self) -> str:
        """The name of the output that makes the variant."""
        return OUTPUTS[self.variant]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A collection as data, read from a TOML file.

    Attributes:
        name: str. The collection's name in addresses, for example `"bit-resnet"`.
        title: str. What a person reads.
        publisher: str. The publisher's name in addresses.
        publisher_title: str. What a person reads.
        description: str. One sentence.
        archives: str. The address that the archives are published under.
        acknowledgements: str. What the collection's page adds to its thanks, in
            Markdown; optional.
        items: tuple of Item, in the order of the recipe.
        folder: Path. The folder of the recipe. Page templates in its subfolder
            `templates` replace the packaged ones of the same name.
    """

    name: str
    title: str
    publisher: str
    publisher_title: str
    description: str
    archives: str
    acknowledgements: str
    items: tuple[Item, ...]
    folder: Path

    @classmethod
    def read(cls, source: str | os.PathLike) -> "Recipe":
        """Reads a recipe.

        `[collection]` has the fields of this class, each `[[models]]`
        those of `Item`. `model` may also be an alias, or a shell pattern that stands
        for every checkpoint that it matches and that nothing above in the file names;
        `name` then contains `{model}` and, like `model`, is used once for each. `variant`
        may be a list, and `name` then contains `{variant}`.

        Args:
            source: The name of a packaged recipe, which `list_recipes` returns, or
                the path of a TOML file. A file that has such a name is
                `./NAME`.

        Returns:
            Recipe.

        Raises:
            ExportError: The recipe or file does not exist, or the file is not TOML or
                says something impossible.

        Example:

        ```python
        from pathlib import Path

        from bit_keras.collection.recipe import Recipe

        Path("small.toml").write_text('''
        [collection]
        name = "small"
        title = "Small networks"
        publisher = "somebody"
        publisher_title = "Somebody"
        description = "One small network."
        archives = "https://example.com/bit/"

        [[models]]
        name = "bit_tiny_{variant}"
        model = "bit_tiny.cifar10"
        variant = ["classification", "feature_extraction"]
        ''')
        [item.name for item in Recipe.read("small.toml").items]
        # ['bit_tiny_classification', 'bit_tiny_feature_extraction']
        ```
        """
        path = _path_of(source)
        document = _read_toml(path)
        collection = document.get("collection")
        if not isinstance(collection, dict) or not _is_list_of_tables(document.get("models")):
            raise ExportError(
                f"{path} is not a recipe: it needs a [collection] and at least one [[models]]."
            )
        where = f"[collection] of {path}"
        collection.setdefault("acknowledgements", "")
        fields = {field.name for field in dataclasses.fields(cls)} - {"items", "folder"}
        _require_fields(where, collection, known=fields, required=fields, texts=fields)
        name, publisher = collection["name"], collection["publisher"]
        allowed = "small letters, digits and dashes are allowed"
        _require(_PUBLISHER.fullmatch(publisher), where, "publisher", publisher, allowed)
        _require(_NAME.fullmatch(name), where, "name", name, _NAME_RULE)
        items = tuple(_items(path, document["models"]))
        _require_unique(path, items)
        return cls(**collection, items=items, folder=path.parent)


def list_recipes() -> list[str]:
    """Names of the packaged recipes.

    Returns:
        list of str, in alphabetical order.

    Example:

    ```python
    from bit_keras.collection.recipe import list_recipes

    list_recipes()  # ['bit-all', 'bit-resnet']
    ```
    """
    return sorted(path.stem for path in _PACKAGED.glob("*.toml"))


def _path_of(source: str | os.PathLike) -> Path:
    if os.fspath(source) in list_recipes():
        return _PACKAGED / f"{os.fspath(source)}.toml"
    return Path(source)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ExportError(
            f"The recipe {str(path)!r} does not exist. The packaged recipes are "
            f"{', '.join(list_recipes())}; any other is the path of a TOML file."
        ) from None
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({reason_of(error)}).") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ExportError(f"{path} is not a TOML file: {error}.") from error


def _is_list_of_tables(models: Any) -> bool:
    return isinstance(models, list) and bool(models) and all(isinstance(m, dict) for m in models)


def _require(fits: object, where: str, field: str, value: object, allowed: str) -> None:
    """Raises ExportError for a value that does not fit; `allowed` completes the sentence."""
    if not fits:
        raise ExportError(f"{where} has the {field} {value!r}; {allowed}.")


def _require_fields(
    where: str, table: dict[str, Any], known: set[str], required: set[str], texts: set[str]
) -> None:
    wrong = [f"has no {key!r}" for key in sorted(required - table.keys())]
    wrong += [f"has {key!r}, which is not known" for key in sorted(table.keys() - known)]
    if wrong:
        raise ExportError(f"{where} {' and '.join(wrong)}; allowed are {', '.join(sorted(known))}.")
    for field in sorted(texts & table.keys()):
        _require(isinstance(table[field], str), where, field, table[field], "it must be a text")


def _items(path: Path, models: list[dict[str, Any]]) -> Iterator[Item]:
    fields = {field.name for field in dataclasses.fields(Item)}
    named: set[str] = set()
    for number, table in enumerate(models, start=1):
        where = f"[[models]] number {number} of {path}"
        named_by = {"name", "model"}
        _require_fields(where, table, fields, required=named_by, texts=named_by | {"archive"})
        found = _models(table["model"], named, where)
        variants = table.get("variant", VARIANTS[0])
        variants = variants if isinstance(variants, list) and variants else [variants]
        for model in found:
            for variant in variants:
                name = _formatted(table["name"], model, variant, where)
                item = Item(**{**table, "name": name, "model": model, "variant": variant})
                item = dataclasses.replace(item, archive=item.archive or f"{name}.tar.gz")
                _check(item, where)
                yield item
        named |= set(found)


def _models(pattern: str, named: set[str], where: str) -> list[str]:
    if not any(character in pattern for character in "*?["):
        return [model_info(pattern).name]
    found = [name for name in list_models(pattern) if name not in named]
    if not found:
        raise ExportError(f"{where}: no model matches {pattern!r} that is not named above it.")
    return found


def _formatted(name: str, model: str, variant: str, where: str) -> str:
    try:
        return name.format(model=model, variant=variant)
    except (ValueError, KeyError, IndexError):
        raise ExportError(
            f"{where} has the name {name!r}; it may contain {{model}} and {{variant}}."
        ) from None


def _check(item: Item, where: str) -> None:
    size = MINIMUM_SIZE if item.size is None else item.size
    for field, fits, allowed in (
        ("variant", item.variant in VARIANTS, f"allowed are {', '.join(VARIANTS)}"),
        ("target", item.target in _TARGETS, f"allowed are {', '.join(_TARGETS)}"),
        ("name", _NAME.fullmatch(item.name), _NAME_RULE),
        ("archive", _ARCHIVE.fullmatch(item.archive), _ARCHIVE_RULE),
        ("version", _is_from(1, item.version), "whole numbers from 1 up are allowed"),
        ("size", _is_from(MINIMUM_SIZE, size), f"whole numbers from {MINIMUM_SIZE} up are allowed"),
    ):
        _require(fits, where, field, getattr(item, field), allowed)
    try:
        check_options(item.target, item.variant, item.options)
    except ExportError as error:
        raise ExportError(f"{where}: {error}") from None


def _is_from(least: int, number: Any) -> bool:
    return type(number) is int and number >= least  # A bool is an int, too.


def _require_unique(path: Path, items: tuple[Item, ...]) -> None:
    for field in ("name", "archive"):
        double = repeated(getattr(item, field) for item in items)
        if double is not None:
            raise ExportError(f"{path} gives the {field} {double!r} to more than one artifact.")


def repeated(names: Iterable[str]) -> str | None:
    """Returns a name that occurs more than once, if there is one."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
