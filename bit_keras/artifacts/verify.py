"""Proof that an artifact still computes what Keras computed."""

import dataclasses
import os
from pathlib import Path

from bit_keras.artifacts.members import located
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.reference import has_reference
from bit_keras.errors import ExportError, ProcessError
from bit_keras.processes import run_in_process

#: Seconds: the largest network of the registry takes minutes on one slow core.
_TIMEOUT = 3600.0


@dataclasses.dataclass(frozen=True)
class Verification:
    """The outcome of a verification.

    Attributes:
        metadata: Metadata. What the artifact says of itself.
        differences: dict of str to float. Largest difference to the reference output
            for each endpoint, relative to the largest stored value.
    """

    metadata: Metadata
    differences: dict[str, float]

    @property
    def largest(self) -> float:
        return max(self.differences.values())

    @property
    def passed(self) -> bool:
        return self.largest <= self.metadata.tolerance


def verify(artifact: str | os.PathLike, trust: bool = False) -> Verification:
    """Reloads an artifact in a fresh process and compares it with its reference output.

    Args:
        artifact: What this package exported: the folder of a SavedModel, or of its
            versions, of which the newest is taken; a `.keras`, TFLite or ONNX file; or
            a folder of OpenVINO IR.
        trust: bool. Run operations and layers that this package does not export: they may
            read and write files and run code. Defaults to `False`.

    Returns:
        Verification. It says whether the artifact passed; a difference above the
        tolerance does not raise.

    Raises:
        ExportError: The path is not such an artifact, it cannot be loaded or has to be trusted, or
            the package that runs it is missing.

    Example:

    ```python
    from bit_keras.exporters.hub import export_hub
    from bit_keras.artifacts.verify import verify

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.checkpoints.fill_with_seeded_values(model)
    export_hub(model, "bit_tiny")
    verify("bit_tiny").passed  # True
    ```
    """
    artifact = located(Path(artifact))
    metadata = Metadata.read(artifact)
    if not has_reference(artifact):
        raise ExportError(
            f"{artifact} contains no input and output to compare with: it was converted. "
            "`bit-keras export` writes a file that proves itself."
        )
    try:
        differences = run_in_process(
            "bit_keras.artifacts.replay:replay_job",
            {"artifact": str(artifact), "trust": trust},
            timeout=_TIMEOUT,
        )
    except ProcessError as error:
        raise ExportError(
            f"{artifact} cannot be loaded: a process was started for it, and {error}. The artifact "
            "is damaged, so export it again."
        ) from error
    return Verification(metadata, differences)
