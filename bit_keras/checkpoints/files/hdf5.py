"""Placeholder until the reader is there: overwrite it."""


class Hdf5File:
    kind = ""


def is_hdf5(path):
    return False
