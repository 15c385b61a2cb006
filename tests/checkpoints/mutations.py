"""Files that have been tampered with, and what a reader may make of them."""

import random
from collections.abc import Iterator

from bit_keras.errors import CheckpointError
from tests.checkpoints.reading import bits, read_all

#: Mutations per reader in the tests that run often, and in the long ones.
FEW, MANY = 150, 2000


def mutated(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` damaged versions of a file's bytes, each with what was done to it."""
    for number in range(count):
        generator = random.Random(f"{seed} {number}")
        change = generator.choice(_CHANGES)
        yield f"{change.__name__} {number}", change(data, generator)


def _flipped_bits(data, generator):
    data = bytearray(data)
    for _ in range(generator.choice((1, 1, 2, 8))):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(data)


def _flipped_bits_at_an_end(data, generator):
    # Where headers and indices are.
    data, length = bytearray(data), min(len(data), 2000)
    at_start = generator.random() < 0.5
    for _ in range(generator.choice((1, 1, 3))):
        place = generator.randrange(length)
        data[place if at_start else len(data) - 1 - place] ^= 1 << generator.randrange(8)
    return bytes(data)


def _cut_short(data, generator):
    return data[: generator.randrange(len(data))]


def _without_a_slice(data, generator):
    start, length = _slice(data, generator)
    return data[:start] + data[start + length :]


def _with_a_slice_twice(data, generator):
    start, length = _slice(data, generator)
    return data[: start + length] + data[start:]


def _with_a_block_of_one_value(data, generator):
    start, length = _slice(data, generator)
    block = generator.choice((b"\0", b"\xff", b"0", b"9")) * length
    return data[:start] + block + data[start + length :]


def _with_two_slices_swapped(data, generator):
    length = generator.choice((1, 4, 16, 256))
    first, second = sorted(generator.randrange(len(data) - length) for _ in range(2))
    if second < first + length:
        return data[:-1]
    swapped = bytearray(data)
    swapped[first : first + length] = data[second : second + length]
    swapped[second : second + length] = data[first : first + length]
    return bytes(swapped)


def _slice(data, generator):
    start = generator.randrange(len(data))
    return start, min(generator.choice((1, 2, 8, 64, 1024)), len(data) - start)


_CHANGES = (
    _flipped_bits,
    _flipped_bits_at_an_end,
    _flipped_bits_at_an_end,
    _cut_short,
    _without_a_slice,
    _with_a_slice_twice,
    _with_a_block_of_one_value,
    _with_two_slices_swapped,
)


def refused_or_equal(reader, path, expected) -> bool:
    """Whether a file is refused; asserts that one which is read gives exactly `expected`."""
    try:
        found = read_all(reader, path)
    except CheckpointError:
        return True
    assert list(found) == list(expected)
    assert bits(found) == bits(expected)
    return False


def refused_of(reader, opened, count, damaged=None) -> int:
    """How many of `count` damaged versions are refused; all others must give what the file gave.

    Args:
        reader: The class that reads.
        opened: What the reader is given, a file or a folder; it stays damaged.
        count: Of versions.
        damaged: The file in the folder that is damaged.
    """
    expected, file = read_all(reader, opened), damaged or opened
    refused = 0
    for what, content in mutated(file.read_bytes(), count):
        file.write_bytes(content)
        try:
            refused += refused_or_equal(reader, opened, expected)
        except AssertionError as error:
            raise AssertionError(what) from error
    return refused
