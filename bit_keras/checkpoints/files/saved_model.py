"""Placeholder until the reader is there: overwrite it."""


class SavedModelFile:
    kind = ""


def is_saved_model(path):
    return False
