"""Where an artifact is, and the files inside it that are not of its format.

They are in `assets.extra`, the folder of a SavedModel that every loader ignores. Keras
ignores such members of a `.keras` file, and TFLite those of the archive at the end of its
files; in ONNX they are entries of the metadata.
"""

import contextlib
import zipfile
from pathlib import Path
from types import MappingProxyType

from bit_keras.archives import damage_as_bad_zip, is_archive, open_archive
from bit_keras.artifacts.onnx_entries import read_entry
from bit_keras.errors import ExportError

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
        if artifact.suffix == ".onnx" and artifact.is_file():
            return _limited(read_entry(artifact, name, most_bytes), most_bytes)
        with contextlib.ExitStack() as stack:
            root: Path | zipfile.Path = artifact
            if is_archive(artifact):
                root = zipfile.Path(stack.enter_context(open_archive(artifact)))
            file = root / name
            if not file.is_file():
                if isinstance(file, Path) and file.exists():  # A pipe would be waited for.
                    raise ValueError("it is not an ordinary file")
                return None
            with damage_as_bad_zip(), file.open("rb") as stream:
                return _limited(stream.read(most_bytes + 1), most_bytes)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExportError(f"{artifact / name} cannot be read ({error}).") from error


def _limited(content: bytes | None, most_bytes: int) -> bytes | None:
    if content is not None and len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes, the most that are read")
    return content


def size_of(path: Path) -> int:
    """Bytes of a file or of all files below a folder; 0 where there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
