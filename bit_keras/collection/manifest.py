"""The manifest of a collection: what it is, and what its artifacts are compared with."""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bit_keras.artifacts import Artifact, Verification
from bit_keras.artifacts.members import size_of
from bit_keras.atomic import replaced_file
from bit_keras.collection.archive import require_archive_of
from bit_keras.collection.recipe import Recipe
from bit_keras.collection.record import RECORD, Record, read_json
from bit_keras.documents import typed
from bit_keras.errors import ExportError

#: The parts of the folder of a collection.
MODELS, PAGES, MANIFEST = "models", "pages", "manifest.json"

#: What the manifest takes over from the recipe.
_FIELDS = ("name", "title", "publisher", "publisher_title", "description", "archives")


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a collection is.

    Attributes:
        collection: dict of str. The recipe's name, title, publisher, publisher_title,
            description and archives.
        records: tuple of Record. The artifacts, in the order of the recipe.
    """

    collection: dict[str, str]
    records: tuple[Record, ...]

    @classmethod
    def of(cls, recipe: Recipe, records: Sequence[Record]) -> "Manifest":
        """The manifest of the artifacts of a recipe that exist."""
        return cls({field: getattr(recipe, field) for field in _FIELDS}, tuple(records))

    def write(self, folder: Path) -> None:
        """Writes `manifest.json` atomically."""
        document = {
            "collection": self.collection,
            "models": [record.to_json() for record in self.records],
        }
        with replaced_file(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Reads what `write` wrote.

        Raises:
            ExportError: The manifest is missing or damaged.
        """
        path = folder / MANIFEST
        if not path.exists():
            raise ExportError(
                f"{path} does not exist: the collection is not complete; `bit-keras collection` "
                "continues it."
            )
        document = read_json(path)
        try:
            collection = typed(document["collection"], dict[str, str])
            collection = {field: collection[field] for field in _FIELDS}
            models = typed(document["models"], list[dict[str, Any]])
        except (KeyError, ValueError) as error:
            raise ExportError(
                f"{path} is not the manifest of a collection ({error}); `bit-keras collection` "
                "writes one."
            ) from error
        return cls(collection, tuple(map(Record.from_json, models)))


def saved_model_of(folder: Path, record: Record) -> Path:
    """The SavedModel of an artifact in the folder of a collection."""
    return folder / MODELS / record.name / str(record.version)


def require_unchanged(folder: Path, record: Record) -> None:
    """Compares an artifact and its archive with the manifest, byte by byte.

    Args:
        folder: Of the collection.
        record: Record. From its manifest.

    Raises:
        ExportError: Something is missing or has changed.
    """
    saved_model = saved_model_of(folder, record)
    if Record.read(saved_model.with_name(RECORD)) != record:
        raise ExportError(
            f"{saved_model.parent} is not what {folder / MANIFEST} lists; build the collection "
            "again."
        )
    archive = saved_model.with_name(record.archive)
    sizes = (
        (saved_model, size_of(saved_model), record.bytes),
        (archive, size_of(archive), record.archive_bytes),
    )
    for path, found, recorded in sizes:
        if found != recorded:
            raise ExportError(
                f"{path} has {found:,} bytes and the manifest says {recorded:,}; build the "
                "collection again."
            )
    require_archive_of(saved_model, archive, record.archive_sha256)


def is_collection(path: str | os.PathLike) -> bool:
    """Whether `build_collection` wrote, or began to write, a folder.

    Args:
        path: Any path; it need not exist.

    Returns:
        bool.

    Example:

    ```python
    bit_keras.collection.manifest.is_collection(".")  # False
    ```
    """
    return (Path(path) / MODELS).is_dir()


def verify_collection(
    folder: str | os.PathLike, trust: bool = False
) -> Iterator[tuple[Record, Verification]]:
    """Verifies every artifact of a collection, in the order of its manifest.

    Args:
        folder: What `build_collection` wrote.
        trust: bool. What `Artifact.verify` takes. Defaults to `False`.

    Yields:
        Record and Verification of each artifact whose archive contains the files of its
        SavedModel, and whose sizes and digest are those of the manifest.

    Raises:
        ExportError: The manifest, an archive or a SavedModel is damaged or missing, or a
            SavedModel cannot be loaded.

    Example:

    ```sh
    bit-keras verify collection
    ```
    """
    folder = Path(folder)
    for record in Manifest.read(folder).records:
        require_unchanged(folder, record)
        yield record, Artifact(saved_model_of(folder, record)).verify(trust)
