"""What the headers of encoded images say, read inside a TensorFlow graph.

TensorFlow's decoders allocate what a header promises, take the indices of a BMP's palette for
grey, and differ from Pillow on GIFs with transparency. What a header says decides which
images are decoded, and how.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

#: The first octets of each format, and where they are.
_MAGIC = {
    "png": {0: b"\x89PNG\r\n\x1a\n"},
    "gif": {0: b"GIF8"},
    "bmp": {0: b"BM"},
    "webp": {0: b"RIFF", 8: b"WEBP"},
}

#: Octets that are read without looking how many there are.
_LONGEST_HEADER = 64

#: Blocks of a GIF that are walked through, each of up to 255 octets.
_MOST_BLOCKS = 100_000

# BITMAPINFOHEADER ("Bitmap Header Types", Microsoft): the usual order of the colours.
_BMP_RGB, _BMP_BITFIELDS = 0, 3
_BMP_MASKS = b"\0\0\xff\0\0\xff\0\0\xff\0\0\0"


class Header(NamedTuple):
    """What is known of an encoded image before its pixels are.

    Attributes:
        height: int64 scalar. 0 where the format is not recognised.
        width: int64 scalar.
        readable: bool scalar. Whether TensorFlow and Pillow decode it to the same pixels.
    """

    height: tf.Tensor
    width: tf.Tensor
    readable: tf.Tensor


def _header(height: Any, width: Any, readable: Any) -> Header:
    return Header(
        tf.cast(height, tf.int64), tf.cast(width, tf.int64), tf.convert_to_tensor(readable)
    )


def read_header(data: tf.Tensor) -> Header:
    """Reads the header of an encoded image.

    Args:
        data: string scalar.

    Returns:
        Header.

    Raises:
        tf.errors.InvalidArgumentError: The header of a JPEG is damaged.
    """
    octets = _octets(data)
    return Header(
        *tf.case(
            [
                (tf.io.is_jpeg(data), lambda: _jpeg(data)),
                (_is("png", octets), lambda: _png(octets)),
                (_is("gif", octets), lambda: _gif(data)),
                (_is("bmp", octets), lambda: _bmp(octets)),
                (_is("webp", octets), lambda: _webp(octets)),
            ],
            default=lambda: _header(0, 0, False),
            exclusive=False,
        )
    )


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes an image whose header is readable, to Pillow's pixels.

    Args:
        data: string scalar. The first frame of an animation is decoded.

    Returns:
        uint8 tensor `(height, width, 3)`. Alpha is dropped.

    Raises:
        tf.errors.InvalidArgumentError: The pixels are damaged.
    """
    octets = _octets(data)
    image = tf.case(
        [
            # Only this decoder has the accurate transform, which Pillow uses too.
            (
                tf.io.is_jpeg(data),
                lambda: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
            ),
            (_is("gif", octets), lambda: _decode_any(_first_frame(data).single)),
            (_is("bmp", octets) & (octets[28] == 8), lambda: _decode_palette(data, octets)),
            (_is("webp", octets), lambda: _decode_webp(data)),
        ],
        default=lambda: _decode_any(data),
        exclusive=False,
    )
    return tf.ensure_shape(image, (None, None, 3))


def _decode_any(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    # TensorFlow refuses another number of channels than that of the file.
    image = tf.io.decode_image(data, channels=0, expand_animations=False)
    return tf.ensure_shape(image, (None, None, None))[..., :3]


def _octets(data: tf.Tensor) -> tf.Tensor:
    """The first octets as int64, and zeros where the file is shorter."""
    start = tf.strings.substr(data, 0, _LONGEST_HEADER)
    octets = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    return tf.pad(octets, [[0, _LONGEST_HEADER - tf.shape(octets)[0]]])


def _equal(octets: tf.Tensor, start: int, expected: bytes) -> tf.Tensor:
    return tf.reduce_all(
        octets[start : start + len(expected)] == tf.constant([*expected], tf.int64)
    )


def _is(format: str, octets: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all([_equal(octets, at, magic) for at, magic in _MAGIC[format].items()])


def _little(octets: tf.Tensor, start: int, count: int) -> tf.Tensor:
    """A number whose first octet is the least significant one."""
    return tf.reduce_sum(octets[start : start + count] * [256**place for place in range(count)])


def _big(octets: tf.Tensor, start: int) -> tf.Tensor:
    """A number of four octets whose first one is the most significant one."""
    return tf.reduce_sum(octets[start : start + 4] * [256**place for place in (3, 2, 1, 0)])


def _bits(number: tf.Tensor, first: int, count: int) -> tf.Tensor:
    return number // 2**first % 2**count


def _jpeg(data: tf.Tensor) -> Header:
    shape = tf.io.extract_jpeg_shape(data)
    return _header(shape[0], shape[1], True)


def _png(octets: tf.Tensor) -> Header:
    # PNG specification, 11.2.2: IHDR comes first.
    return _header(_big(octets, 20), _big(octets, 16), _equal(octets, 12, b"IHDR"))


def _bmp(octets: tf.Tensor) -> Header:
    bits, compression = _little(octets, 28, 2), _little(octets, 30, 4)
    plain = (compression == _BMP_RGB) & ((bits == 8) | (bits == 24) | (bits == 32))
    masked = (compression == _BMP_BITFIELDS) & (bits == 32) & _equal(octets, 54, _BMP_MASKS)
    readable = (_little(octets, 14, 4) >= 40) & (plain | masked)
    height = _little(octets, 22, 4)
    # Negative where the first row is the top one.
    height = tf.minimum(height, 2**32 - height)
    return _header(height, _little(octets, 18, 4), readable)


def _decode_palette(data: tf.Tensor, octets: tf.Tensor) -> tf.Tensor:
    """A BMP of 8 bits: TensorFlow returns the indices of its palette."""
    count, start = _little(octets, 46, 4), 14 + _little(octets, 14, 4)
    count = tf.where((count < 1) | (count > 256), tf.constant(256, tf.int64), count)
    colors = tf.io.decode_raw(tf.strings.substr(data, start, 4 * count), tf.uint8)
    palette = tf.reshape(colors, (-1, 4))[:, 2::-1]
    palette = tf.pad(palette, [[0, 256 - tf.shape(palette)[0]], [0, 0]])
    indices = tf.io.decode_bmp(data)
    return tf.gather(palette, tf.cast(indices[..., 0], tf.int32))


def _webp(octets: tf.Tensor) -> Header:
    # RFC 9649, 2.5 to 2.7: lossy, lossless and extended files.
    packed = _little(octets, 21, 4)
    return Header(
        *tf.case(
            [
                (
                    _equal(octets, 12, b"VP8 "),
                    lambda: _header(
                        _bits(_little(octets, 28, 2), 0, 14),
                        _bits(_little(octets, 26, 2), 0, 14),
                        True,
                    ),
                ),
                (
                    _equal(octets, 12, b"VP8L"),
                    lambda: _header(_bits(packed, 14, 14) + 1, _bits(packed, 0, 14) + 1, True),
                ),
            ],
            default=lambda: _header(
                _little(octets, 27, 3) + 1,
                _little(octets, 24, 3) + 1,
                # The second bit of the flags is that of an animation.
                _equal(octets, 12, b"VP8X") & (_bits(octets[20], 1, 1) == 0),
            ),
        )
    )


class _Frame(NamedTuple):
    """The first frame of a GIF.

    Attributes:
        height: int64 scalar. Of the canvas.
        width: int64 scalar. Of the canvas.
        fills: bool scalar. Whether the frame is whole and as large as the canvas.
        single: string scalar. A GIF of this frame only, without extensions, one of which
            makes a colour transparent: Pillow's RGB is that of the palette.
    """

    height: tf.Tensor
    width: tf.Tensor
    fills: tf.Tensor
    single: tf.Tensor


def _gif(data: tf.Tensor) -> Header:
    frame = _first_frame(data)
    return _header(frame.height, frame.width, frame.fills)


def _first_frame(data: tf.Tensor) -> _Frame:
    # GIF89a specification, 18 to 24.
    octets = tf.io.decode_raw(data, tf.uint8)
    size = tf.shape(octets, tf.int64)[0]
    octets = tf.pad(octets, [[0, 1]])

    def at(position: Any) -> tf.Tensor:
        return tf.cast(octets[tf.minimum(tf.cast(position, tf.int64), size)], tf.int64)

    def two(position: Any) -> tf.Tensor:
        return at(position) + 256 * at(position + 1)

    def table(flags: tf.Tensor) -> tf.Tensor:
        """The octets of a palette."""
        colors = tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8)
        return 3 * colors * _bits(flags, 7, 1)

    header = 13 + table(at(10))
    start = _after_extensions(at, header, size)
    end = _after_blocks(at, start + 11 + table(at(start + 9)), size)
    width, height = two(6), two(8)
    fills = (two(start + 1) == 0) & (two(start + 3) == 0)
    fills &= (two(start + 5) == width) & (two(start + 7) == height)
    whole = (at(start) == ord(",")) & (end <= size)
    frame = tf.strings.substr(data, start, tf.maximum(end - start, 0))
    single = tf.strings.join([tf.strings.substr(data, tf.zeros_like(header), header), frame, b";"])
    return _Frame(height, width, whole & fills, single)


def _after_blocks(at: Callable, position: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The position after a chain of blocks, each with its length before it."""
    _, end = tf.while_loop(
        lambda more, position: more & (position < size),
        lambda _, position: (at(position) != 0, position + at(position) + 1),
        (tf.constant(True), position),
        maximum_iterations=_MOST_BLOCKS,
    )
    return end


def _after_extensions(at: Callable, position: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The position after all extensions; each has a mark, a label and a chain of blocks."""

    def step(inside: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length = at(position)
        return ~inside | (length != 0), position + tf.where(
            inside, length + 1, tf.constant(2, tf.int64)
        )

    _, end = tf.while_loop(
        lambda inside, position: (inside | (at(position) == ord("!"))) & (position < size),
        step,
        (tf.constant(False), position),
        maximum_iterations=_MOST_BLOCKS,
    )
    return end
