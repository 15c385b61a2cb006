"""Weights from repositories of the Hugging Face hub, fetched by huggingface_hub."""

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from bit_keras.checkpoints.http_file import without_password
from bit_keras.checkpoints.transformers_folder import CONFIG, PROCESSOR, WEIGHTS_FILES
from bit_keras.errors import DownloadError
from bit_keras.extras import require_extra
from bit_keras.registry import HUGGING_FACE

#: timm's own ids, `timm/NAME`, need no `hf://`.
_SOURCE = re.compile(
    rf"({HUGGING_FACE}(?=[^/]+/)|(?=timm/))(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>.+))?"
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_repository(source: str) -> bool:
    """Whether a name is one of the Hugging Face hub: `hf://OWNER/NAME` or `timm/NAME`."""
    return source.startswith(HUGGING_FACE) or _SOURCE.fullmatch(source) is not None


def repository_weights(source: str) -> Path:
    """The local file of the weights in a repository, downloaded on first use.

    Next to it are `config.json` and `preprocessor_config.json`, where the repository has
    them; nothing else is fetched. huggingface_hub does it: its cache, its token and its
    variables (`HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`) apply, and it looks
    on each use whether the hub has something newer; without a network, what is in
    the cache is taken.

    Args:
        source: str. `hf://OWNER/NAME` or `timm/NAME`, and `@REVISION` after it for a
            branch, a tag or a commit.

    Returns:
        Path of `model.safetensors`, else of `pytorch_model.bin`.

    Raises:
        DownloadError: huggingface_hub is not installed; the repository or
            revision, one may not read it, or it contains no weights; the hub cannot be
            reached and the weights are not in the cache; they arrive damaged.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise DownloadError(
            f"{source!r} names no repository; write hf://OWNER/NAME, or hf://OWNER/NAME@REVISION."
        )
    repository, revision = match["repository"], match["revision"]
    with _explained(repository, revision):
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        for name in WEIGHTS_FILES:
            try:
                weights = _fetched(repository, name, revision)
            except LocalEntryNotFoundError:  # Not absent: unknown.
                raise
            except EntryNotFoundError:
                continue
            for other in (CONFIG, PROCESSOR):
                with contextlib.suppress(EntryNotFoundError):
                    _fetched(repository, other, weights.parent.name)
            return weights
    raise DownloadError(
        f"{HUGGING_FACE}{repository} contains neither {' nor '.join(WEIGHTS_FILES)}; only such "
        "weights can be read from a repository."
    )


def _fetched(repository: str, name: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    before = try_to_load_from_cache(repository, name, revision=revision)
    path = Path(hf_hub_download(repository, name, revision=revision))
    if before != str(path):  # Once: a look at gigabytes takes seconds.
        _check(path)
    return path


def _check(path: Path) -> None:
    """Compares the digest of a new file, of which huggingface_hub compares only the size.

    In its cache a snapshot links to blobs, and those of large files are named after their
    sha256 (huggingface_hub 2.4, `hf_hub_download`). Where the system has no links, no
    digest is known.
    """
    if not path.is_symlink():
        return
    blob = path.parent / path.readlink()
    if _SHA256.fullmatch(blob.name) is None:
        return
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise DownloadError(
            f"{path.name} failed its check and was deleted; try again. (Its sha256 is {digest} "
            f"and should be {blob.name}.)"
        )


@contextlib.contextmanager
def _explained(repository: str, revision: str | None) -> Iterator[None]:
    """Turns what huggingface_hub raises into sentences."""
    source = f"{HUGGING_FACE}{repository}"
    require_extra("huggingface", "huggingface_hub", purpose=source, error=DownloadError)
    from huggingface_hub import constants, errors

    page = without_password(f"{constants.ENDPOINT}/{repository}")
    login = "log in with `hf auth login`, or set HF_TOKEN"
    try:
        yield
    except DownloadError:
        raise
    except errors.GatedRepoError as error:
        raise DownloadError(f"{page} is gated: accept its terms there, and {login}.") from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError(
            f"There is no repository {page}, or it is private; look at its name, or {login}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DownloadError(
            f"{page} has no revision {revision!r}; omit it to take the newest."
        ) from error
    # Errors of the network and of the cache; hf_xet raises RuntimeError and OSError.
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = without_password(_reason(error))
        raise DownloadError(
            f"{page} cannot be fetched ({reason}), and its weights are not in the cache of "
            "huggingface_hub; try again with a network, or pass the path of a file."
        ) from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    if not isinstance(error, errors.LocalEntryNotFoundError):
        return str(error).partition("\n")[0] or type(error).__name__
    cause = error.__cause__  # What kept huggingface_hub from reaching the hub.
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(cause, errors.HfHubHTTPError):
        return f"status {cause.response.status_code}"
    if isinstance(cause, errors.FileMetadataError):
        return "the server there is not a Hugging Face hub"
    return "no connection"
