"""The errors that `bit_keras` raises on purpose, each with one clear sentence."""


class BitKerasError(Exception):
    """Base of every error that names a mistake in the input or in a file.

    The command line prints its message and ends with status 1. Messages say
    what was received, what is allowed and what to do next.
    """


class UnknownModelError(BitKerasError, LookupError):
    """A model name that the registry does not contain."""


class CheckpointError(BitKerasError, ValueError):
    """A checkpoint that is damaged, or that does not fit the network."""


class DownloadError(BitKerasError, OSError):
    """Pretrained weights that could not be fetched."""


class ImageError(BitKerasError, ValueError):
    """An image that cannot be read."""


class DataError(BitKerasError, ValueError):
    """Images to train on or to evaluate that are missing, unreadable or do not fit."""


class TrainingError(BitKerasError, ValueError):
    """A training that cannot begin, continue or be read."""


class ExportError(BitKerasError, ValueError):
    """An artifact that cannot be written, read or verified."""


class SizeError(BitKerasError, ValueError):
    """An input size that a network cannot take, or that is not known."""


class UnknownLabelsError(BitKerasError, LookupError):
    """A class list that is not packaged."""


class DecodingError(BitKerasError, ValueError):
    """Logits that do not fit the classes they are to be read with."""


class ProcessError(BitKerasError, RuntimeError):
    """A process that crashed, took too long or needed too much memory; its message says which."""


#: Characters of a reason: some engines fill pages.
_LONGEST_REASON = 200


def reason_of(error: BaseException) -> str:
    """The reason of an error on one line, for the brackets of a sentence.

    Args:
        error: Of this package, whose message is returned as it is; of the operating system,
            which gives the reason without the path; or any other.

    Returns:
        str. Without line breaks, at most 200 characters and an ellipsis.

    Example:

    ```python
    from bit_keras.errors import reason_of

    reason_of(FileNotFoundError(2, "No such file or directory", "a.jpg"))
    # 'No such file or directory'
    ```
    """
    if isinstance(error, BitKerasError):
        return str(error)
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    text = text or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
