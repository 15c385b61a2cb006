"""The evaluation transform: any image to the array that the network takes.

Pillow is the reference for decoding and resizing, since timm's accuracies of
the released weights, and torchvision's transforms, are taken with it.
"""

import contextlib
import dataclasses
import io
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from bit_keras.errors import ImageError, SizeError, reason_of
from bit_keras.preprocessing.heif import EXTRA, is_heif, register_heif
from bit_keras.registry import MINIMUM_SIZE, Resizing, model_info

ImageSource = str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray

#: Crop side over short side where no transform was published: timm's for the 224-pixel students.
DEFAULT_CROP_RATIO = 0.875

#: The most pixels that a step of resizing may make, which a thin strip reaches: twice Pillow's
#: own MAX_IMAGE_PIXELS, the bound at which it refuses to decode.
MAXIMUM_RESIZED_PIXELS = 178_956_970

# All three are antialiased in Pillow: the filter widens with the reduction.
_FILTERS = MappingProxyType(
    {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "area": Image.Resampling.BOX,
    }
)

_ORIENTATION_TAG = 0x0112

# EXIF 2.32 (CIPA DC-008), tag Orientation: what turns the stored image upright.
_UPRIGHT = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)

_warning_filters = threading.Lock()


@dataclasses.dataclass(frozen=True, repr=False)
class EvalTransform:
    """Turns one image into the array that the network takes.

    Decode, turn upright by EXIF, convert to RGB, resize, crop the centre, then

        y = x / 127.5 - 1.

    The long side is truncated and the crop's offset rounded half to even, as
    torchvision does; the width is resized before the height, as in every Pillow
    below 13. Greyscale becomes three equal channels, 16-bit values keep
    their high byte, alpha is dropped, animations give their first frame.

    Args:
        size: int. Side of the square crop in pixels, at least 32.
        resizing: Resizing. What precedes the crop; its side is at least `size`.

    Call arguments:
        source: str or os.PathLike (a file), bytes (an encoded file), PIL image,
            or uint8 NumPy array, RGB, channels last: `(height, width, 3)`,
            `(height, width)`, `(height, width, 1)` or `(height, width, 4)`.

    Output shape:
        `(size, size, 3)`, float32, RGB, channels last, in [-1, 1].

    Raises:
        SizeError: `size` is below 32 or above the side of `resizing`.
        ImageError: On a call: the image cannot be read.

    Example:

    ```python
    transform = bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
    transform(np.zeros((300, 400, 3), "uint8")).shape  # (224, 224, 3)
    ```

    Reference:
        Truncation and rounding: torchvision, `transforms/functional.py`
        (`_compute_resized_output_size`, `center_crop`).
    """

    size: int
    resizing: Resizing

    def __post_init__(self) -> None:
        _check_size(self.size)
        if self.resizing.side < self.size:
            raise SizeError(
                f"A crop of {self.size} pixels does not fit into an image resized to "
                f"{self.resizing.side} pixels."
            )

    def __repr__(self) -> str:
        verb = "short side to" if self.resizing.mode == "short_side" else "squash both sides to"
        return (
            f"EvalTransform({verb} {self.resizing.side}, {self.resizing.interpolation}, "
            f"centre crop {self.size}x{self.size}, float32 RGB in [-1, 1])"
        )

    def __call__(self, source: ImageSource) -> np.ndarray:
        image = load_image(source)
        width, height = self._resized_size(*image.size)
        require_resizable(source, image, width, height)
        # Two calls, because Pillow 13 passes over tall images in the other order, which moves
        # pixels by up to 13 of 255 (python-pillow/Pillow pull request 9549).
        kernel = _FILTERS[self.resizing.interpolation]
        image = image.resize((width, image.height), kernel).resize((width, height), kernel)
        left, top = self._corner(width, height)
        image = image.crop((left, top, left + self.size, top + self.size))
        return np.asarray(image, np.float32) / 127.5 - 1

    def at_size(self, size: int) -> "EvalTransform":
        """The same transform for images of another size, resized to the same multiple of the crop.

        Raises:
            SizeError: `size` is below 32.
        """
        _check_size(size)
        if size == self.size:
            return self
        resizing = dataclasses.replace(
            self.resizing,
            side=round(size * self.resizing.side / self.size),
            source=f"{self.resizing.source}, scaled from {self.size} pixels",
        )
        return EvalTransform(size, resizing)

    def region(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part of an image that the crop covers, and so all that a network sees of it.

        Args:
            width: int. Of the upright image, in pixels.
            height: int. Of the upright image, in pixels.

        Returns:
            tuple of 4 floats: left, top, right and bottom, in pixels of the image,
            whose own corners are (0, 0) and (width, height).

        Raises:
            ImageError: The image has no pixels.

        Example:

        ```python
        transform = bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
        transform.region(512, 256)  # (144.0, 16.0, 368.0, 240.0)
        ```
        """
        if min(width, height) < 1:
            raise ImageError(f"An image of {width}x{height} pixels has no pixels.")
        resized_width, resized_height = self._resized_size(width, height)
        left, top = self._corner(resized_width, resized_height)
        return (
            left * width / resized_width,
            top * height / resized_height,
            (left + self.size) * width / resized_width,
            (top + self.size) * height / resized_height,
        )

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the crop in a resized image."""
        return round((width - self.size) / 2), round((height - self.size) / 2)

    def _resized_size(self, width: int, height: int) -> tuple[int, int]:
        side = self.resizing.side
        if self.resizing.mode == "squash":
            return side, side
        short = min(width, height)
        return side * width // short, side * height // short


def eval_transform(name: str, size: int | None = None) -> EvalTransform:
    """The evaluation transform of a model.

    It is the published one wherever there is one. Where there is none (the
    160-pixel student, BiT-S, VTAB), the short side is resized to `size / 0.875`,
    bilinear, and the centre cropped, and one line in the log of `bit_keras`
    says so.

    Args:
        name: str. A model name or an alias.
        size: int. Side of the crop in pixels, at least 32. Another size than
            the published one keeps mode and interpolation, and resizes to the
            same multiple of the crop. Defaults to the size of the checkpoint.

    Returns:
        EvalTransform: a callable from a path, encoded bytes, a PIL image or a
        uint8 array to a float32 array `(size, size, 3)`, RGB, in [-1, 1].

    Raises:
        UnknownModelError: No model has that name.
        SizeError: `size` is below 32, or neither given nor published.

    Example:

    ```python
    bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
    # EvalTransform(short side to 256, bicubic, centre crop 224x224, float32 RGB in [-1, 1])
    ```

    Reference:
        `Resizing.source` of the result names where its numbers come from. The
        default ratio is timm 1.0.31's for the 224-pixel students.
    """
    checkpoint = model_info(name)
    size = checkpoint.size if size is None else size
    if size is None:
        raise SizeError(
            f"No source states the input size of {checkpoint.name}; pass `size=` in pixels, "
            f"at least {MINIMUM_SIZE}."
        )
    _check_size(size)
    if checkpoint.size is not None and checkpoint.resizing is not None:
        return EvalTransform(checkpoint.size, checkpoint.resizing).at_size(int(size))
    side = round(size / DEFAULT_CROP_RATIO)
    logging.getLogger("bit_keras").warning(
        "No published evaluation transform is known for %s; using short side %d, bilinear, "
        "centre crop %d.",
        checkpoint.name,
        side,
        size,
    )
    resizing = Resizing("short_side", side, "bilinear", "default of this project")
    return EvalTransform(int(size), resizing)


def load_image(source: ImageSource) -> Image.Image:
    """Decodes an image to an upright 8-bit RGB image.

    Photographs up to Pillow's hard limit (179 megapixels by default) are read
    without a warning; damaged metadata does not matter, damaged pixels do.

    Args:
        source: str or os.PathLike (a file), bytes (an encoded file), PIL image,
            or uint8 NumPy array, channels last: `(height, width, 3)` RGB,
            `(height, width)` or `(height, width, 1)` grey, `(height, width, 4)` RGBA.

    Returns:
        A new PIL image of mode RGB.

    Raises:
        ImageError: The file is missing, a folder, not an image, damaged or too
            large; or the array has another dtype or shape.

    Example:

    ```python
    bit_keras.preprocessing.load_image(np.zeros((30, 40), "uint8")).size  # (40, 30)
    ```
    """
    with _explained(source), _opened(source) as image:
        image.load()
        # Pillow's `exif_transpose` also writes the metadata back, which fails on damaged ones.
        turn = _UPRIGHT.get(_orientation(image) or 1)
        rgb = _as_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def image_size(source: ImageSource) -> tuple[int, int]:
    """The size of an image as its header states it; no pixel is decoded.

    Args:
        source: What `load_image` takes.

    Returns:
        tuple of 2 ints: height and width in pixels, before EXIF turns the image upright.

    Raises:
        ImageError: As `load_image`, as far as the header tells.
    """
    with _explained(source), _opened(source) as image:
        return image.height, image.width


@contextlib.contextmanager
def _explained(source: ImageSource) -> Iterator[None]:
    """Turns what Pillow raises into sentences."""
    name = _describe(source)
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name} is too large: {error} `PIL.Image.MAX_IMAGE_PIXELS` sets the limit."
        ) from error
    # Decoders raise whatever a damaged file leads them to: OSError, SyntaxError,
    # ValueError, EOFError, struct.error and more.
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise ImageError(f"{name} cannot be decoded: {reason}.") from error


def require_resizable(source: ImageSource, image: Image.Image, width: int, height: int) -> None:
    """Refuses an image that a step of resizing would make too large.

    Resizing is separable: between its two steps one side is new and the other is that of
    the image, so that a strip of 1 x 178,956,970 pixels would take 38 GB on its way to a
    square of 72.

    Args:
        source: What `load_image` took; the message names it.
        image: PIL image.
        width: int. After resizing, in pixels.
        height: int. After resizing, in pixels.

    Raises:
        ImageError: A step would make more than `MAXIMUM_RESIZED_PIXELS`.
    """
    largest = max(width * height, width * image.height, image.width * height)
    if largest > MAXIMUM_RESIZED_PIXELS:
        raise ImageError(
            f"{_describe(source)} is too elongated: resizing its {image.width}x{image.height} "
            f"pixels to {width}x{height} would take {largest:,} on the way, and at most "
            f"{MAXIMUM_RESIZED_PIXELS:,} are allowed; crop it first."
        )


def is_integer(value: object) -> bool:
    """Whether a value is an integer of Python or NumPy; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_size(size: int) -> None:
    if not is_integer(size) or size < MINIMUM_SIZE:
        raise SizeError(
            f"The input size must be an integer of at least {MINIMUM_SIZE} pixels; got {size!r}."
        )


def _describe(source: ImageSource) -> str:
    """What error messages call the image."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray):
        return f"The image of {len(source)} bytes"
    return "The array" if isinstance(source, np.ndarray) else "The PIL image"


@contextlib.contextmanager
def _opened(source: ImageSource) -> Iterator[Image.Image]:
    """The image as a PIL image, pixels perhaps not read yet."""
    if isinstance(source, Image.Image):
        yield source
    elif isinstance(source, np.ndarray):
        yield _from_array(source)
    elif isinstance(source, bytes | bytearray):
        yield _read_header(io.BytesIO(source))
    elif isinstance(source, str | os.PathLike):
        with _open_file(source) as file:
            yield _read_header(file)
    else:
        raise ImageError(
            f"An object of type {type(source).__name__} is not an image; pass a path, the bytes of "
            "an image file, a PIL image or a uint8 NumPy array."
        )


def _open_file(path: str | os.PathLike) -> BinaryIO:
    try:
        return Path(os.fsdecode(path)).open("rb")
    except (OSError, ValueError) as error:
        raise ImageError(f"{os.fsdecode(path)} cannot be opened: {reason_of(error)}.") from error


def _read_header(file: BinaryIO) -> Image.Image:
    lacks_decoder = is_heif(file.read(12)) and not register_heif()
    file.seek(0)
    try:
        with _silent_metadata():
            return Image.open(file)
    except UnidentifiedImageError:
        if lacks_decoder:
            raise ValueError(f"HEIC needs {EXTRA}") from None
        raise


def _from_array(array: np.ndarray) -> Image.Image:
    channels = array.shape[2:]
    is_image_shape = array.ndim in (2, 3) and channels in ((), (1,), (3,), (4,))
    if array.dtype != np.uint8 or not is_image_shape:
        raise ImageError(
            "An image array must be uint8, (height, width, 3), (height, width), (height, width, 1) "
            f"or (height, width, 4); got {array.dtype}, {array.shape}."
        )
    if 0 in array.shape:
        raise ImageError(f"The array has no pixels; its shape is {array.shape}.")
    return Image.fromarray(array[:, :, 0] if channels == (1,) else array)


def _orientation(image: Image.Image) -> int | None:
    try:
        with _silent_metadata():
            return image.getexif().get(_ORIENTATION_TAG)
    # Metadata that cannot be parsed says nothing about the orientation.
    except Exception:
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _high_bytes(image)
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known range; convert them to 8 bits first")
    elif "transparency" in image.info:
        # Alpha is dropped anyway; Pillow would warn about palettes with several alphas.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _high_bytes(image: Image.Image) -> Image.Image:
    """16-bit grey to 8-bit as Pillow reads 16-bit colour; its own `convert` clips to 255."""
    values = np.asarray(image.convert("I"))
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("integer pixels must be in [0, 65535], and these do not")
    return Image.fromarray((values >> 8).astype(np.uint8))


@contextlib.contextmanager
def _silent_metadata() -> Iterator[None]:
    """Mutes warnings about large images and damaged metadata, one thread at a time.

    The filters belong to the process (below Python 3.14): two threads that save
    and restore them at once could leave them muted.
    """
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
