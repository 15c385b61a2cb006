"""An exported file or folder: what it is, its reference outputs, what runs and verifies it."""

import dataclasses
import functools
import io
import os
import tokenize
import zipfile
from pathlib import Path

import numpy as np

from bit_keras.archives import damage_as_bad_zip, open_archive
from bit_keras.artifacts.members import METADATA, REFERENCE, located, read_inside
from bit_keras.artifacts.metadata import Metadata
from bit_keras.artifacts.runtimes import Program, open_program
from bit_keras.errors import ExportError, ProcessError
from bit_keras.preprocessing import ClassifierSpec
from bit_keras.processes import run_in_process

#: Seconds: the largest network of the registry takes minutes on one slow core.
_TIMEOUT = 3600.0

#: Five times the reference images and class maps of the largest artifact.
_REFERENCE_BYTES = 100_000_000


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


class Artifact:
    """An exported file or folder.

    Nothing is read before it is needed, and no exporter is needed: a TFLite or ONNX file is
    opened and run without Keras and TensorFlow.

    Args:
        path: What this package exported: the folder of a SavedModel, or of its versions, of
            which the newest is taken; a `.keras`, TFLite or ONNX file; or a folder of
            OpenVINO IR.

    Attributes:
        path: Path. The file or the folder, of versions the newest one.

    Example:

    ```python
    from bit_keras.artifacts import Artifact
    from bit_keras.exporters.hub import export_hub

    model = bit_keras.create_classifier("bit_tiny.cifar10", weights=None)
    bit_keras.checkpoints.fill_with_seeded_values(model)
    export_hub(model, "bit_tiny")
    artifact = Artifact("bit_tiny")
    artifact.metadata.variant, artifact.spec.labels.name  # ('classification', 'cifar10')
    artifact.verify().passed  # True
    ```
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = located(Path(path))

    def __repr__(self) -> str:
        return f"Artifact({str(self.path)!r})"

    @functools.cached_property
    def metadata(self) -> Metadata:
        """What the artifact says of itself.

        Raises:
            ExportError: The path is not an artifact of this package, or its metadata is damaged.
        """
        metadata = Metadata.find(self.path)
        if metadata is None:
            raise ExportError(f"{self.path} was not exported by bit_keras: it has no {METADATA}.")
        return metadata

    @property
    def spec(self) -> ClassifierSpec | None:
        """The labels, transform and activation of a classifier; None where they are not stored."""
        return self.metadata.spec

    @property
    def has_reference(self) -> bool:
        """Whether the artifact contains reference inputs and outputs."""
        return self._reference() is not None

    def read_reference(self) -> dict[str, np.ndarray]:
        """Reads the reference inputs and outputs.

        Returns:
            dict of arrays by name: `"inputs"`, and each output of the network in Keras.

        Raises:
            ExportError: There are none, or they are damaged.
        """
        content = self._reference()
        if content is None:
            raise ExportError(f"{self.path} has no {REFERENCE}; export the model again.")
        try:
            with damage_as_bad_zip(), open_archive(io.BytesIO(content)) as archive:
                if not all(name.endswith(".npy") for name in archive.namelist()):
                    raise ValueError("it contains something else than arrays")
                with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                    return {name: _numeric(name, array) for name, array in arrays.items()}
        # The headers of arrays are expressions of Python, and may be anything else.
        except (zipfile.BadZipFile, SyntaxError, TypeError, tokenize.TokenError) as error:
            raise ExportError(f"{self.path / REFERENCE} is damaged ({error}).") from error

    def _reference(self) -> bytes | None:
        return read_inside(self.path, REFERENCE, _REFERENCE_BYTES)

    def open_program(
        self, *, threads: int | None = None, engine: str | None = None, trust: bool = False
    ) -> Program:
        """Opens the artifact in a program that runs it.

        Args:
            threads: int. As `bit_keras.artifacts.runtimes.open_program` takes it, like the
                other arguments.
            engine: str. The engine. Defaults to the one that is made for the file format.
            trust: bool. Whether to run operations that this package does not export.
                Defaults to `False`.

        Returns:
            Program.

        Raises:
            ExportError: No engine runs the format, such as `.keras`; or the file is damaged.
        """
        return open_program(self.path, threads=threads, engine=engine, trust=trust)

    def verify(self, trust: bool = False) -> Verification:
        """Reloads the artifact in a fresh process and compares it with its reference outputs.

        Args:
            trust: bool. Run operations and layers that this package does not export: they may
                read and write files and run code. Defaults to `False`.

        Returns:
            Verification. It says whether the artifact passed; a difference above the
            tolerance does not raise.

        Raises:
            ExportError: The path is not such an artifact, it cannot be loaded or has to be
                trusted, or the package that runs it is missing.
        """
        metadata = self.metadata
        if not self.has_reference:
            raise ExportError(
                f"{self.path} contains no reference inputs and outputs to compare with: it was "
                "converted. `bit-keras export` writes a file that contains them."
            )
        try:
            differences = run_in_process(
                "bit_keras.artifacts.replay:replay_job",
                {"path": str(self.path), "trust": trust},
                timeout=_TIMEOUT,
            )
        except ProcessError as error:
            raise ExportError(
                f"{self.path} cannot be loaded: a process was started for it, and {error}. The "
                "artifact is damaged; export it again."
            ) from error
        return Verification(metadata, differences)


def _numeric(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} has the type {array.dtype}")
    return array
