"""Proof that an artifact still computes what Keras computed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from bit_keras.errors import ExportError
from bit_keras.export.artifact import Metadata, has_golden, located
from bit_keras.processes import process_environment


@dataclasses.dataclass(frozen=True)
class Verification:
    """The outcome of a verification.

    Attributes:
        metadata: Metadata. What the artifact says of itself.
        differences: dict of str to float. Largest difference to the stored output
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


def verify(artifact: str | os.PathLike) -> Verification:
    """Reloads an artifact in a fresh process and compares it with its stored output.

    Args:
        artifact: What this package exported: the folder of a SavedModel, or of its
            versions, of which the newest is taken; a `.keras`, TFLite or ONNX file; or
            a folder of OpenVINO IR.

    Returns:
        Verification. It says whether the artifact passed; a difference above the
        tolerance does not raise.

    Raises:
        ExportError: The path is no such artifact, it cannot be loaded, or the package that
            runs it is missing.

    Example:

    ```python
    from bit_keras.export.hub import export_hub
    from bit_keras.export.verify import verify

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.checkpoints.fill_with_seeded_values(model)
    export_hub(model, "bit_tiny")
    verify("bit_tiny").passed  # True
    ```
    """
    artifact = located(Path(artifact))
    metadata = Metadata.read(artifact)
    if not has_golden(artifact):
        raise ExportError(
            f"{artifact} holds no input and output to compare with: it was converted. "
            "`bit-keras export` writes a file that proves itself."
        )
    process = subprocess.run(
        [sys.executable, "-m", "bit_keras.export.replay", str(artifact)],
        capture_output=True,
        text=True,
        check=False,
        env=process_environment(),
    )
    if process.returncode != 0:
        raise ExportError(
            f"{artifact} cannot be loaded ({_reason(process)}); it is damaged, so export it again."
        )
    document = json.loads(process.stdout.splitlines()[-1])
    if "error" in document:
        raise ExportError(document["error"])
    return Verification(metadata, document["differences"])


def _reason(process: subprocess.CompletedProcess[str]) -> str:
    if process.returncode < 0:
        return f"the process that did so was ended by {signal.Signals(-process.returncode).name}"
    lines = process.stderr.strip().splitlines()
    return lines[-1] if lines else "no message"
