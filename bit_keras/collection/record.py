"""What is known of an artifact that was built for a collection."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bit_keras.documents import read_document, typed
from bit_keras.errors import ExportError

#: The file next to a SavedModel and its archive that contains their record.
RECORD = "record.json"


@dataclasses.dataclass(frozen=True)
class TensorRecord:
    """One input or output of a signature.

    Attributes:
        dtype: str. TensorFlow's name, for example `"float32"` or `"string"`.
        shape: tuple of int or None. `None` for a free dimension.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class SignatureRecord:
    """A signature of a SavedModel.

    Attributes:
        inputs: dict from name to TensorRecord.
        outputs: dict from name to TensorRecord.
    """

    inputs: dict[str, TensorRecord]
    outputs: dict[str, TensorRecord]


@dataclasses.dataclass(frozen=True)
class Record:
    """An artifact of a collection, as its manifest lists it.

    Attributes:
        name: str. The name of the recipe's item.
        version: int.
        model: str. The registry's name of the weights.
        target: str. `"hub"` or `"serving"`.
        variant: str. `"classification"` or `"feature_extraction"`.
        precision: str. `"float32"` or `"bfloat16"`.
        input_range: tuple of 2 floats. What the pixels must be scaled to.
        size: int or None. The only side of images that it takes, if there is one.
        outputs: int. Width of the output: classes, or channels.
        signatures: dict from name to SignatureRecord.
        bytes: int. Size of all files of the artifact.
        archive: str. File name of the archive where it is published.
        archive_bytes: int.
        archive_sha256: str.
        difference: float. Largest relative difference to Keras that was verified.
        tolerance: float. Largest relative difference that is accepted.
        weights_sha256: str. Digest of the file of the weights.
        versions: dict of str. Of the packages that wrote it.
    """

    name: str
    version: int
    model: str
    target: str
    variant: str
    precision: str
    input_range: tuple[float, float]
    size: int | None
    outputs: int
    signatures: dict[str, SignatureRecord]
    bytes: int
    archive: str
    archive_bytes: int
    archive_sha256: str
    difference: float
    tolerance: float
    weights_sha256: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """A document that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Record":
        """Reads what `to_json` wrote.

        Raises:
            ExportError: The document is something else.
        """
        try:
            record = typed(document, cls)
            for name in (record.name, record.archive):
                if not name or "/" in name or "\\" in name or name in (".", ".."):
                    raise ValueError(f"{name[:80]!r} is not the name of a file")
        except ValueError as error:
            raise ExportError(
                f"The record of an artifact cannot be read ({error}); it is damaged, or was "
                "written by another version of bit_keras."
            ) from error
        return record

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Reads a record from a file.

        Raises:
            ExportError: The file is missing, or contains something else.
        """
        return cls.from_json(read_json(path))


def read_json(
    path: Path, remedy: str = "build the collection again", schema: Any = dict[str, Any]
) -> Any:
    """Reads a file of a collection.

    Args:
        path: Path.
        remedy: str. What to do where it cannot be read, for the message.
        schema: What `bit_keras.documents.typed` takes.

    Raises:
        ExportError: It cannot be read.
    """
    try:
        return read_document(path, schema)
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read ({error}); {remedy}.") from error
