"""Optional packages: which extra of `bit_keras` installs what is missing."""

import importlib.util

from bit_keras.errors import BitKerasError


def require_extra(
    extra: str,
    *packages: str,
    purpose: str = "This",
    error: type[BitKerasError] = BitKerasError,
) -> None:
    """Raises where an optional package is not installed, without importing it.

    Args:
        extra: str. The extra in `setup.cfg` that installs the packages.
        *packages: str. Names that Python imports.
        purpose: str. What needs the packages, the subject of the message. Defaults to `"This"`.
        error: type. What to raise. Defaults to `BitKerasError`.

    Raises:
        BitKerasError: A package is missing; the message has the command that installs it.

    Example:

    ```python
    from bit_keras.extras import require_extra

    require_extra("train", "matplotlib", purpose="A report")
    ```
    """
    missing = [package for package in packages if not is_importable(package)]
    if missing:
        raise error(f"{purpose} needs {' and '.join(missing)}: {install_command(extra)}.")


def install_command(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install 'bit_keras[{extra}]'"


def is_importable(package: str) -> bool:
    """Whether a package is installed, without importing it (but its parents, if it has any)."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # A parent is missing.
        return False
