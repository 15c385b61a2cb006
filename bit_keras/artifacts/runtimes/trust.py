"""Which exported files are run, and which only where a user says that they are trusted.

Who wrote a file cannot be verified. Its operations can be read: the operations that
this package and ordinary layers of Keras are exported to compute and do nothing else, so a
file with only these is run. Others may read and write files or run code.
"""

import os
from collections.abc import Collection, Iterable

from bit_keras.errors import ExportError

#: Operations that an error names before it only counts the rest.
_SHOWN = 5


def require_known_operations(
    path: str | os.PathLike, operations: Iterable[str], known: Collection[str], trust: bool
) -> None:
    """Raises unless a file is made of known operations, or is trusted.

    Args:
        path: The file, for the error.
        operations: Iterable of str. The names of all operations in it.
        known: Collection of str. The names of those that only compute.
        trust: bool. Whether the user trusts the file whatever it contains.

    Raises:
        ExportError: It contains others, with their names and what to do.
    """
    unknown = sorted(set(operations) - set(known))
    if trust or not unknown:
        return
    shown = ", ".join(name[:60] for name in unknown[:_SHOWN])
    more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    raise ExportError(
        f"{path} contains operations that bit_keras does not export: {shown}{more}. Running them "
        "may read and write files or run code. If you trust who made the file, run it with "
        "--trust, in Python trust=True."
    )
