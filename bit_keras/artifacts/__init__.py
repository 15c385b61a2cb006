"""Exported files: their metadata, reference outputs, runtimes and verification."""
