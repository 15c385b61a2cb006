"""Image files of sixty encodings: what people send to a server, and what they send by mistake."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from tests.cifar10 import SAMPLES

WIDTH, HEIGHT = 70, 50


def photo():
    """A photograph-like image, 70 x 50."""
    image = Image.open(SAMPLES / "cat.jpg").convert("RGB")
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def saved(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def with_alpha(image):
    """Transparent from left to right."""
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(ramp))
    return image


def sixteen_bits():
    values = np.random.default_rng(0).integers(0, 1 << 16, (HEIGHT, WIDTH), np.uint16)
    return Image.fromarray(values)


def jpeg():
    rgb, grey = photo(), photo().convert("L")
    yield "jpeg", saved(rgb, "JPEG")
    yield "jpeg 4:4:4", saved(rgb, "JPEG", subsampling=0, quality=95)
    yield "jpeg 4:2:2", saved(rgb, "JPEG", subsampling=1)
    yield "jpeg 4:2:0", saved(rgb, "JPEG", subsampling=2, quality=30)
    yield "jpeg progressive", saved(rgb, "JPEG", progressive=True)
    yield "jpeg with restart markers", saved(rgb, "JPEG", restart_marker_blocks=2)
    yield "jpeg grey", saved(grey, "JPEG")
    yield "jpeg grey progressive", saved(grey, "JPEG", progressive=True)
    yield "jpeg rgb", saved(rgb, "JPEG", keep_rgb=True)
    yield "jpeg cmyk", saved(rgb.convert("CMYK"), "JPEG")
    yield "jpeg with a comment", saved(rgb, "JPEG", comment=b"a cat")
    yield "jpeg with a profile", saved(rgb, "JPEG", icc_profile=b"not a profile")
    yield "jpeg with bytes after its end", saved(rgb, "JPEG") + b"more"
    yield "jpeg of odd sides", saved(rgb.crop((0, 0, 69, 49)), "JPEG")


def png():
    rgb, grey = photo(), photo().convert("L")
    alpha = with_alpha(rgb)
    yield "png", saved(rgb, "PNG")
    yield "png grey", saved(grey, "PNG")
    yield "png of 1 bit", saved(grey.convert("1"), "PNG")
    yield "png rgba", saved(alpha, "PNG")
    yield "png grey and alpha", saved(alpha.convert("LA"), "PNG")
    yield "png with a palette", saved(rgb.quantize(200), "PNG")
    for bits in (1, 2, 4):
        yield f"png with a palette of {bits} bits", saved(rgb.quantize(1 << bits), "PNG", bits=bits)
    yield (
        "png with a transparent colour of the palette",
        saved(rgb.quantize(16), "PNG", transparency=3),
    )
    yield (
        "png with alphas of the palette",
        saved(rgb.quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    )
    yield "png with a transparent colour", saved(rgb, "PNG", transparency=rgb.getpixel((3, 3)))
    yield "png grey with a transparent value", saved(grey, "PNG", transparency=120)
    yield "png grey of 16 bits", saved(sixteen_bits(), "PNG")
    for color, name in ((0, "grey"), (2, "rgb"), (4, "grey and alpha"), (6, "rgba")):
        yield f"png {name} of 16 bits, written here", raw_png(16, color)
    for bits in (2, 4):
        yield f"png grey of {bits} bits", raw_png(bits, 0)
    yield "png interlaced", interlaced_png()
    gamma = PngImagePlugin.PngInfo()
    gamma.add(b"gAMA", struct.pack(">I", 100_000))
    yield "png with a gamma", saved(rgb, "PNG", pnginfo=gamma)
    yield "png with a profile", saved(rgb, "PNG", icc_profile=b"not a profile")
    yield (
        "png animated",
        saved(rgb, "PNG", save_all=True, append_images=[Image.new("RGB", rgb.size)]),
    )
    yield "png without compression", saved(rgb, "PNG", compress_level=0)


def _chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(bits, color, interlace=0, rows=None):
    """A PNG that Pillow does not write: random values of so many bits in a type of colour."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    if rows is None:
        width = -(-WIDTH * channels * bits // 8)
        values = np.random.default_rng(bits + color).integers(0, 256, (HEIGHT, width), np.uint8)
        rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, color, 0, 0, interlace)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def interlaced_png():
    """Adam7: seven passes over the pixels (PNG specification, 8.2)."""
    pixels = np.asarray(photo())
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    rows = [
        b"\0" + row.tobytes()
        for top, left, down, right in (*passes, (1, 0, 2, 1))
        for row in pixels[top::down, left::right]
    ]
    return raw_png(8, 2, interlace=1, rows=b"".join(rows))


def bmp():
    rgb, grey = photo(), photo().convert("L")
    yield "bmp of 24 bits", saved(rgb, "BMP")
    yield "bmp of 24 bits, top down", raw_bmp(24, top_down=True)
    yield "bmp of 32 bits", raw_bmp(32)
    yield "bmp of 32 bits with alpha", saved(with_alpha(rgb), "BMP")
    yield "bmp of 16 bits", raw_bmp(16)
    yield "bmp grey", saved(grey, "BMP")
    yield "bmp with a palette", saved(rgb.quantize(256), "BMP")
    yield "bmp with a short palette", saved(rgb.quantize(20), "BMP")
    yield "bmp of 1 bit", saved(grey.convert("1"), "BMP")
    yield "bmp of 4 bits", raw_bmp(4)
    yield "bmp of run lengths", raw_bmp(8, compression=1)
    yield "bmp with a header of 124 bytes", raw_bmp(24, header=124)
    yield "bmp with a header of OS/2", raw_bmp(24, header=12)
    yield "bmp with masks", raw_bmp(32, compression=3)


def raw_bmp(bits, header=40, compression=0, top_down=False):
    """A BMP that Pillow does not write, of random values."""
    row = -(-WIDTH * bits // 32) * 4
    data = np.random.default_rng(bits).integers(0, 256, (HEIGHT, row), np.uint8).tobytes()
    palette = b""
    if bits <= 8:
        colors = np.random.default_rng(1).integers(0, 256, (1 << bits, 3), np.uint8)
        palette = b"".join(color.tobytes() + b"\0" for color in colors)
    if compression == 1:  # Runs of one length, a mark after each row, and the end.
        runs = b"".join(bytes([WIDTH, y]) + b"\0\0" for y in range(HEIGHT))
        data = runs + b"\0\1"
    if compression == 3:  # Red, green and blue where blue, green and red usually are.
        palette = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)
    if header == 12:
        information = struct.pack("<IHHHH", header, WIDTH, HEIGHT, 1, bits)
    else:
        height = -HEIGHT if top_down else HEIGHT
        fields = (header, WIDTH, height, 1, bits, compression, len(data), 2835, 2835, 0, 0)
        information = struct.pack("<IiiHHIIiiII", *fields).ljust(header, b"\0")
    start = 14 + len(information) + len(palette)
    return (
        b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + information + palette + data
    )


def gif():
    rgb = photo()
    palette = rgb.quantize(64)
    yield "gif", saved(palette, "GIF")
    yield "gif not interlaced", saved(palette, "GIF", interlace=0)
    yield "gif grey", saved(rgb.convert("L"), "GIF")
    yield "gif with a transparent colour", saved(palette, "GIF", transparency=5)
    yield "gif with a comment", saved(palette, "GIF", comment=b"a cat " * 100)
    yield (
        "gif animated",
        saved(rgb, "GIF", save_all=True, append_images=[Image.new("RGB", rgb.size)] * 3),
    )
    yield (
        "gif animated, transparent",
        saved(
            with_alpha(rgb), "GIF", save_all=True, append_images=[Image.new("RGBA", rgb.size)] * 3
        ),
    )
    yield "gif with a small frame", moved_frame(saved(palette, "GIF"), WIDTH + 9, HEIGHT + 7)
    yield "gif with a palette of its frame", local_palette(saved(palette, "GIF"))


def moved_frame(data, width, height):
    """A GIF whose canvas is larger than its frame."""
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def local_palette(data):
    """A GIF with its palette after the frame's descriptor instead of the header."""
    colors = 3 << ((data[10] & 7) + 1)
    palette, rest = data[13 : 13 + colors], data[13 + colors :]
    at = rest.index(b",")
    descriptor = rest[at : at + 9] + bytes([rest[at + 9] | 0x80 | (data[10] & 7)])
    return (
        data[:10]
        + bytes([data[10] & 0x7F])
        + data[11:13]
        + rest[:at]
        + descriptor
        + palette
        + (rest[at + 10 :])
    )


def webp():
    rgb = photo()
    yield "webp", saved(rgb, "WEBP")
    yield "webp lossless", saved(rgb, "WEBP", lossless=True)
    yield "webp with alpha", saved(with_alpha(rgb), "WEBP")
    yield "webp lossless with alpha", saved(with_alpha(rgb), "WEBP", lossless=True, exact=True)
    yield "webp with a profile", saved(rgb, "WEBP", icc_profile=b"not a profile")
    yield (
        "webp animated",
        saved(rgb, "WEBP", save_all=True, append_images=[Image.new("RGB", rgb.size)]),
    )


def others():
    rgb = photo()
    yield "tiff", saved(rgb, "TIFF")
    yield "ppm", saved(rgb, "PPM")
    yield "ico", saved(rgb.resize((32, 32)), "ICO")
    yield "tga", saved(rgb, "TGA")
    yield "jpeg 2000", saved(rgb, "JPEG2000")
    yield "avif", saved(rgb, "AVIF")


ENCODINGS = dict(item for group in (jpeg, png, bmp, gif, webp, others) for item in group())
