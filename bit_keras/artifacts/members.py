"""Where an artifact is, and the files inside it that are not of its format.

They are in `assets.extra`, the folder of a SavedModel that every loader ignores. Keras
ignores such members of a `.keras` file, and TFLite those of the archive at the end of its
files; in ONNX they are entries of the metadata.
"""

import base64
import contextlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from bit_keras.archives import damage_as_bad_zip, is_archive, open_archive
from bit_keras.errors import ExportError
from bit_keras.extras import require_extra

#: The metadata and the reference inputs and outputs of an artifact; members of a `.keras` file.
METADATA = "assets.extra/bit_keras.json"

REFERENCE = "assets.extra/golden.npz"

#: What a version in a Triton model repository is called, by target
#: (`triton-inference-server/server`, `docs/user_guide/model_repository.md`).
TRITON_FILES = MappingProxyType({"serving": "model.savedmodel", "onnx": "model.onnx"})


def located(path: Path) -> Path:
    """The artifact at a path: the folder of a graph, or the newest in a folder of versions.

    TensorFlow Serving and Triton serve the version with the highest number too.
    """
    if path.name in ("model.xml", "saved_model.pb"):
        return path.parent
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    # Longer numbers than TensorFlow Serving takes, of 64 bits.
    versions = [
        folder for folder in path.iterdir() if folder.name.isdecimal() and len(folder.name) < 20
    ]
    newest = max(versions, key=lambda folder: int(folder.name), default=path)
    of_triton = (newest / name for name in TRITON_FILES.values())
    return next((file for file in of_triton if file.exists()), newest)


def read_inside(artifact: Path, name: str, most_bytes: int) -> bytes | None:
    """What a file of an artifact contains; None where there is none.

    Raises:
        ExportError: There is no artifact, or it is damaged.
    """
    if not artifact.exists():
        raise ExportError(f"There is no artifact {artifact}.")
    try:
        with _opened(artifact) as root:
            file = root / name
            if not file.is_file():
                if isinstance(file, Path) and file.exists():  # A pipe would be waited for.
                    raise ValueError("it is not an ordinary file")
                return None
            with damage_as_bad_zip(), file.open("rb") as stream:
                content = stream.read(most_bytes + 1)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{artifact / name} cannot be read ({error}).") from error
    if len(content) > most_bytes:
        raise ExportError(
            f"{artifact / name} has more than {most_bytes:,} bytes, the most that are read."
        )
    return content


@contextlib.contextmanager
def _opened(artifact: Path) -> Iterator[Path | zipfile.Path]:
    """The folder of an artifact's files, or what acts like it in a single file."""
    if artifact.suffix == ".onnx" and artifact.is_file():
        with zipfile.ZipFile(_members_of_onnx(artifact)) as archive:
            yield zipfile.Path(archive)
    elif is_archive(artifact):
        with open_archive(artifact) as archive:
            yield zipfile.Path(archive)
    else:
        yield artifact


def onnx_entries(members: Mapping[str, bytes]) -> dict[str, str]:
    """The files of an artifact as entries of an ONNX model's metadata, which are text."""
    return {
        name: base64.b64encode(content).decode() if name == REFERENCE else content.decode()
        for name, content in members.items()
    }


def _members_of_onnx(artifact: Path) -> io.BytesIO:
    """What `onnx_entries` wrote, as the archive that other single files contain."""
    require_extra("onnx", "onnx", purpose=f"Reading {artifact}", error=ExportError)
    import onnx

    try:
        model = onnx.load(artifact, load_external_data=False)
    # Whatever the parser raises at damage.
    except Exception as error:
        raise ExportError(f"{artifact} is not an ONNX file, or a damaged one ({error}).") from error
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for entry in model.metadata_props:
            if entry.key == REFERENCE:
                archive.writestr(REFERENCE, base64.b64decode(entry.value, validate=True))
            elif entry.key == METADATA:
                archive.writestr(METADATA, entry.value)
    return file
