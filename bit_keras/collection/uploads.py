"""Sends a built collection to the places that host models: Hugging Face and Kaggle.

`plan` checks the collection and says which file goes where, without the network; `send`
sends what was planned, and nothing else, through the client libraries of the places.

References:
    - Hugging Face: huggingface_hub 2.4, `HfApi.create_commit`; a SavedModel is at the
      root of its repository (`huggingface.js`, `model-libraries.ts`, `tf-keras`).
    - Kaggle: kagglehub 1.0, `models.py` and `gcs_upload.py`: folders below the uploaded
      one are kept, and an upload to a variation that exists makes its next version.
"""

import abc
import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bit_keras.atomic import replaced_file
from bit_keras.collection.manifest import PAGES, Manifest, require_unchanged, saved_model_of
from bit_keras.collection.record import Record, read_json
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.extras import require_extra

_logger = logging.getLogger("bit_keras")

#: Lies next to the manifest: the address of each variation that was sent, with the digest of
#: its archive. kagglehub sends everything again, as a new version.
KAGGLE_RECEIPTS = "sent-to-kaggle.json"

#: The file of every repository that Hugging Face makes and needs itself.
_ATTRIBUTES = ".gitattributes"

_REFUSED = (401, 403)


@dataclasses.dataclass(frozen=True)
class PlannedFile:
    """A file that is to be sent.

    Attributes:
        source: Path. Where it is.
        target: str. Its path at the place, below the address of its upload.
    """

    source: Path
    target: str

    @property
    def bytes(self) -> int:
        return self.source.stat().st_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upload(abc.ABC):
    """What is to be sent to one address.

    Attributes:
        address: str. The name of the repository or of the variation at the place.
        version: int. Of the artifact.
        files: tuple of PlannedFile. Every file that is sent.
        not_sent: tuple of Path. Pages for the place that its client library does not take.
        sent: bool. Whether all of this has been sent before.
    """

    address: str
    version: int
    files: tuple[PlannedFile, ...]
    not_sent: tuple[Path, ...] = ()
    sent: bool = False

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)

    @abc.abstractmethod
    def send(self) -> None:
        """Sends the files.

        Raises:
            ExportError: The client library is missing, or the place cannot be reached or
                refuses.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class HuggingFaceRepository(Upload):
    """A model repository: the card and a SavedModel, at its root.

    It is private when it is new. Each version is one commit, after which the repository
    contains the planned files and no others, and a tag such as `v1`, which stays on the commit
    that it was made for.
    """

    def send(self) -> None:
        require_extra("publish", "huggingface_hub", purpose="Hugging Face", error=ExportError)
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        with _hugging_face_errors(self.address):
            # True: an error of its own where the token is missing, before any request.
            api = HfApi(token=True)
            api.create_repo(self.address, private=True, exist_ok=True)
            planned = {file.target for file in self.files}
            others = set(api.list_repo_files(self.address)) - planned - {_ATTRIBUTES}
            # Not `upload_folder`: it may make several commits, of what it finds in a folder.
            commit = api.create_commit(
                self.address,
                [
                    *(CommitOperationAdd(file.target, str(file.source)) for file in self.files),
                    *(CommitOperationDelete(path, is_folder=False) for path in sorted(others)),
                ],
                commit_message=f"Version {self.version}",
            )
            api.create_tag(self.address, tag=f"v{self.version}", revision=commit.oid, exist_ok=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KaggleVariation(Upload):
    """A variation of a Kaggle model: a SavedModel.

    The model is made where there is none, and is private then.

    Attributes:
        folder: Path. The SavedModel.
        license: str. What Kaggle calls it.
        sha256: str. Of the archive, which identifies the version in the receipts.
        receipts: Path. The file that remembers what was sent.
    """

    folder: Path
    license: str
    sha256: str
    receipts: Path

    def send(self) -> None:
        require_extra("publish", "kagglehub", purpose="Kaggle", error=ExportError)
        # kagglehub prints to standard output, which belongs to the command that was called.
        with contextlib.redirect_stdout(sys.stderr):
            import kagglehub

            with _kaggle_errors(self.address):
                kagglehub.model_upload(
                    self.address,
                    str(self.folder),
                    license_name=self.license,
                    version_notes=f"Version {self.version}",
                )
        receipts = _read_receipts(self.receipts) | {self.address: self.sha256}
        with replaced_file(self.receipts) as partial:
            partial.write_text(json.dumps(receipts, indent=2) + "\n", "utf-8")


def plan(folder: str | os.PathLike, to: str, owner: str | None = None) -> list[Upload]:
    """Plans what of a built collection is sent where, after checking that it is complete.

    Needs neither the network nor the client library of the place.

    Args:
        folder: What `bit-keras collection` wrote.
        to: `"huggingface"` or `"kaggle"`.
        owner: The user or the organisation there. Defaults to the collection's publisher.

    Returns:
        list of Upload, one for each artifact.

    Raises:
        ExportError: An artifact is not what the manifest says, or something is missing.

    Example:

    ```sh
    bit-keras publish collection --to huggingface --owner somebody --dry-run
    ```
    """
    if to not in _PLANNERS:
        raise ExportError(f"{to!r} is not a place to publish at; allowed are {', '.join(PLACES)}.")
    folder = Path(folder)
    manifest = Manifest.read(folder)
    publisher = manifest.collection["publisher"]
    if owner not in (None, publisher):
        _logger.warning(
            "The pages name the owner %s; they stay as they are for %s.", publisher, owner
        )
    for record in manifest.records:
        require_unchanged(folder, record)
    return [_PLANNERS[to](folder, record, owner or publisher) for record in manifest.records]


def send(uploads: Sequence[Upload]) -> None:
    """Sends what was planned and not sent before, one after the other.

    Args:
        uploads: list of Upload, from `plan`.

    Raises:
        ExportError: One cannot be sent; the message says which were sent before it.
    """
    waiting = [upload for upload in uploads if not upload.sent]
    sent: list[str] = []
    for number, upload in enumerate(waiting, start=1):
        try:
            upload.send()
        except BitKerasError as error:
            before = ", ".join(sent) or "nothing"
            raise ExportError(f"{error} Sent before it: {before}.") from error
        sent.append(upload.address)
        _logger.info("Sent %s (%d of %d).", upload.address, number, len(waiting))


def _read_receipts(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return read_json(
        path, "repair it, or remove it to send everything as a new version", dict[str, str]
    )


def _files(folder: Path) -> tuple[PlannedFile, ...]:
    """The files below a folder, under their paths in it."""
    return tuple(
        PlannedFile(path, path.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def _hugging_face_repository(folder: Path, record: Record, owner: str) -> Upload:
    card = folder / PAGES / "huggingface" / record.name / "README.md"
    if not card.is_file():
        raise ExportError(f"The model card {card} does not exist; build the collection again.")
    return HuggingFaceRepository(
        address=f"{owner}/{record.name}",
        version=record.version,
        files=(PlannedFile(card, "README.md"), *_files(saved_model_of(folder, record))),
    )


def _kaggle_variation(folder: Path, record: Record, owner: str) -> Upload:
    pages = folder / PAGES / "kaggle"
    metadata = pages / record.name / "model-instance-metadata.json"
    fields = read_json(metadata)
    try:
        names = [fields[key] for key in ("modelSlug", "framework", "instanceSlug")]
        license_name = fields["licenseName"]
    except (KeyError, TypeError) as error:
        raise ExportError(f"{metadata} lacks {error}; build the collection again.") from error
    address = "/".join((owner, *names))
    receipts = folder / KAGGLE_RECEIPTS
    return KaggleVariation(
        address=address,
        version=record.version,
        files=_files(saved_model_of(folder, record)),
        not_sent=(pages / "model-metadata.json", metadata),
        sent=_read_receipts(receipts).get(address) == record.archive_sha256,
        folder=saved_model_of(folder, record),
        license=license_name,
        sha256=record.archive_sha256,
        receipts=receipts,
    )


_PLANNERS: Mapping[str, Callable[[Path, Record, str], Upload]] = MappingProxyType(
    {"huggingface": _hugging_face_repository, "kaggle": _kaggle_variation}
)

PLACES = tuple(_PLANNERS)


@contextlib.contextmanager
def _hugging_face_errors(address: str) -> Iterator[None]:
    """Turns what huggingface_hub and what is below it raise into sentences."""
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError

    login = "run `hf auth login` or set HF_TOKEN, with a token that may write"
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise ExportError(f"Hugging Face needs a token; {login}.") from error
    # Besides errors of the network: hf_xet raises OSError, the check of the card ValueError.
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise _not_sent(address, "Hugging Face", login, error) from error


@contextlib.contextmanager
def _kaggle_errors(address: str) -> Iterator[None]:
    """Turns what kagglehub and what is below it raise into sentences."""
    from kagglehub.exceptions import BackendError

    # Not `kagglehub.login`: what it takes is forgotten with the process.
    login = "set KAGGLE_API_TOKEN, or write the token to ~/.kaggle/access_token"
    try:
        yield
    # A file with credentials that is damaged is a ValueError.
    except (BackendError, OSError, ValueError) as error:
        raise _not_sent(address, "Kaggle", login, error) from error


def _not_sent(address: str, place: str, login: str, error: Exception) -> ExportError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    status = getattr(error, "error_code", status)  # Of Kaggle's own errors.
    if status in _REFUSED:
        return ExportError(
            f"{place} did not allow writing to {address} (status {status}); {login}."
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    return ExportError(
        f"{address} could not be sent to {place} ({reason}); once that is solved, the same "
        "command continues."
    )
