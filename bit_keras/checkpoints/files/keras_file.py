"""Placeholder until the reader is there: overwrite it."""


class KerasFile:
    kind = ""


def is_keras_file(path):
    return False
