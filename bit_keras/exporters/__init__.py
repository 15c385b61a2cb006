"""Artifacts that other programs load, and the proof that they do."""
