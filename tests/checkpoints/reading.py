"""What a reader makes of a file: all of its arrays, or one sentence."""

import pytest

from bit_keras.errors import CheckpointError


def read_all(reader, path):
    """All arrays of a file by name, after its checksums."""
    with reader(path) as arrays:
        arrays.verify()
        return {name: arrays[name] for name in arrays}


def refusal(reader, path):
    """The one sentence with which a file is refused."""
    with pytest.raises(CheckpointError) as raised:
        read_all(reader, path)
    message = str(raised.value)
    assert str(path) in message
    assert message.isprintable()
    return message


def bits(arrays):
    """Everything about arrays that can be compared."""
    return {name: (a.shape, a.dtype.str, a.tobytes()) for name, a in arrays.items()}
