"""What an exported file is, how it is opened, run and verified; no exporter is needed."""

from bit_keras.artifacts.artifact import Artifact as Artifact
from bit_keras.artifacts.artifact import Verification as Verification
from bit_keras.artifacts.metadata import Metadata as Metadata
