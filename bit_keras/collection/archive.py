"""The archive of a SavedModel, as TF Hub serves it: the same bytes for the same files.

References:
    - Layout: `tensorflow/hub`, `docs/hosting.md`; its resolver makes no folder that
      has no entry of its own (`tensorflow_hub/file_utils.py`).
    - Files: `tensorflow/tfhub.dev` @81fdea8, `tools/validator.py`.
"""

import fnmatch
import gzip
import hashlib
import os
import tarfile
import zlib
from pathlib import Path

from bit_keras.artifacts.checksums import digest_of_files
from bit_keras.atomic import replaced_file
from bit_keras.errors import ExportError

#: The files that a SavedModel may contain.
_ALLOWED = (
    "saved_model.pb",
    "saved_model.pbtxt",
    "tfhub_module.pb",
    "keras_metadata.pb",
    "fingerprint.pb",
    "assets/*",
    "assets.extra/*",
    "variables/variables.*",
)

#: Of 103.8 MB with the weights of an R50x1, level 1 leaves 95.6 MB (3.0 s on one processor),
#: 6 leaves 95.3 MB (3.3 s) and 9 the same (3.6 s): mantissas are noise, whatever the level.
_LEVEL = 6


def write_archive(folder: str | os.PathLike, path: str | os.PathLike) -> str:
    """Writes the files of a SavedModel as a `.tar.gz`, in little memory.

    The root of the archive is that of the SavedModel. Names are sorted; nothing in
    it depends on the user, the time or the place.

    Args:
        folder: A SavedModel.
        path: The file to create or to replace. Written atomically.

    Returns:
        str. The archive's SHA-256 in hexadecimal digits.

    Raises:
        ExportError: `folder` is not a SavedModel, or contains a file that does not belong to one.
        BitKerasError: The file system refuses.

    Example:

    ```python
    from bit_keras.collection.archive import write_archive
    from bit_keras.exporters.hub import export_hub

    model = bit_keras.create_classifier("bit_tiny.cifar10")
    export_hub(model, "bit_tiny")
    len(write_archive("bit_tiny", "bit_tiny.tar.gz"))  # 64
    ```
    """
    folder = Path(folder)
    members = _members(folder)
    with replaced_file(path) as partial:
        # The name and the time in the header of a gzip file would make it differ.
        with (
            partial.open("wb") as file,
            gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for name in members:
                _add(archive, folder / name, name)
        return digest_of_files([partial])


def _members(folder: Path) -> list[str]:
    """Names of the folders and files below a folder, sorted: a folder precedes its files."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    if "saved_model.pb" not in paths and "saved_model.pbtxt" not in paths:
        raise ExportError(f"{folder} is not a SavedModel: it has no saved_model.pb.")
    for name, path in paths.items():
        if not path.is_dir() and not any(fnmatch.fnmatchcase(name, each) for each in _ALLOWED):
            raise ExportError(
                f"{folder} contains {name}, which does not belong to a SavedModel; remove it."
            )
    return sorted(paths)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    member = tarfile.TarInfo(name)  # Owner 0, group 0, time 0.
    if path.is_dir():
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)
        return
    member.size, member.mode = path.stat().st_size, 0o644
    with path.open("rb") as file:
        archive.addfile(member, file)


def require_archive_of(
    folder: str | os.PathLike, path: str | os.PathLike, sha256: str | None = None
) -> None:
    """Checks that an archive contains the files of a SavedModel, and no others.

    Args:
        folder: The SavedModel.
        path: The archive.
        sha256: str. The archive's own digest, if it is to be checked too.

    Raises:
        ExportError: It does not, it is damaged, or it is missing.
    """
    folder, path = Path(folder), Path(path)
    try:
        if sha256 is not None and digest_of_files([path]) != sha256:
            raise ExportError(f"{path} is damaged: its sha256 is not the recorded one.")
        _require_same_files(folder, path)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise ExportError(f"{path} cannot be read ({error}).") from error


def _require_same_files(folder: Path, path: Path) -> None:
    missing = set(_members(folder))
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.name not in missing or not _is_same(archive, member, folder):
                raise ExportError(f"{member.name} in {path} is not what {folder} contains.")
            missing.remove(member.name)
    if missing:
        raise ExportError(f"{path} lacks {min(missing)}, which {folder} contains.")


def _is_same(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> bool:
    path, packed = folder / member.name, archive.extractfile(member)
    if packed is None or path.is_dir():
        return member.isdir() and path.is_dir()
    with packed:
        # typeshed says IO[bytes]; it is a BufferedReader.
        digest = hashlib.file_digest(packed, "sha256")  # type: ignore[arg-type]
        return digest.hexdigest() == digest_of_files([path])
