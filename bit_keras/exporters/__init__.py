"""Artifacts that other programs load: one function, and a table of targets."""

from bit_keras.exporters.exporting import export as export
