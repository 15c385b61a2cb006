"""The training transforms of the papers: a random part of an image, perhaps mirrored."""

import dataclasses
import math
from typing import Literal

import numpy as np
from PIL import Image

from bit_keras.errors import BitKerasError, SizeError
from bit_keras.preprocessing.evaluation import (
    ImageSource,
    is_integer,
    load_image,
    require_resizable,
)
from bit_keras.registry import MINIMUM_SIZE

#: Side before the crop over side of the crop where none is given: 160 over 128,
#: BiT-HyperRule's for small images (big_transfer @140de6e, `bit_hyperrule.py`).
DEFAULT_PRECROP_RATIO = 160 / 128

# The inception crop of FunMatch: big_vision @0127fb6, `pp/ops_image.py`.
_AREA = (0.05, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 100


@dataclasses.dataclass(frozen=True)
class TrainTransform:
    """Turns one image into a random view of it, as training sees it.

    Decoding is that of `EvalTransform`, so that training and evaluation see the
    same pixels: upright by EXIF, RGB. Resizing is bilinear and antialiased.

    - `crop="random"`, BiT's: squash both sides to `precrop`, whatever the
      aspect, and cut `size` x `size` pixels from anywhere in it.
    - `crop="inception"`, FunMatch's: a box of 5 to 100 % of the area, width over
      height from 3/4 to 4/3, both uniform; boxes that do not fit are sampled
      again, up to 100 times, and then the whole image is taken. The box is
      squashed to `size`.

    With `flip` every second image on average is mirrored, left for right.
    BiT's published pipelines for TensorFlow and JAX mirror every image.

    Args:
        size: int. Side of the result in pixels, at least 32.
        crop: `"random"` or `"inception"`. Defaults to `"random"`.
        precrop: int. Side before the random crop, at least `size`. Defaults to
            1.25 times `size`.
        flip: bool. `False` for tasks whose label a mirror image does not keep,
            such as digits and left or right turns. Defaults to `True`.

    Call arguments:
        source: str or os.PathLike (a file), bytes (an encoded file), PIL image,
            or uint8 NumPy array, RGB, channels last, as `EvalTransform` takes.
        generator: np.random.Generator. The only source of randomness: equal
            states give equal views.

    Output shape:
        `(size, size, 3)`, uint8, RGB, channels last. The network takes
        `view / 127.5 - 1`.

    Raises:
        SizeError: `size` is below 32 or above `precrop`, or a precrop is given
            for the inception crop.
        BitKerasError: There is no such crop.
        ImageError: On a call: the image cannot be read.

    Example:

    ```python
    transform = bit_keras.preprocessing.TrainTransform(128, precrop=160)
    view = transform(np.zeros((300, 400, 3), "uint8"), np.random.default_rng(0))
    view.shape, view.dtype.name  # ((128, 128, 3), 'uint8')
    ```

    Reference:
        [Kolesnikov et al., 2020](https://arxiv.org/abs/1912.11370), section 3.3;
        [Beyer et al., 2021](https://arxiv.org/abs/2106.05237), section 3. The
        mirror images: big_transfer, issue 62.
    """

    size: int
    crop: Literal["random", "inception"] = "random"
    precrop: int | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        if self.crop not in ("random", "inception"):
            raise BitKerasError(f"`crop` is 'random' or 'inception'; got {self.crop!r}.")
        if not is_integer(self.size) or self.size < MINIMUM_SIZE:
            raise SizeError(
                f"The training size must be an integer of at least {MINIMUM_SIZE} pixels. "
                f"Received: size={self.size!r}."
            )
        if self.crop == "inception":
            if self.precrop is not None:
                raise SizeError(
                    "The inception crop is cut from the image in its own size; leave `precrop` "
                    "away, or take crop='random'."
                )
            return
        if self.precrop is None:
            object.__setattr__(self, "precrop", round(self.size * DEFAULT_PRECROP_RATIO))
        elif not is_integer(self.precrop) or self.precrop < self.size:
            raise SizeError(
                f"A crop of {self.size} pixels needs a precrop of at least as many. "
                f"Received: precrop={self.precrop!r}."
            )

    # Quoted: evaluated, the name would import numpy.random, which predictions do not need.
    def __call__(self, source: ImageSource, generator: "np.random.Generator") -> np.ndarray:
        image = load_image(source)
        side = self.precrop or self.size
        require_resizable(source, image, side, side)
        view = self._random(image, generator) if self.precrop else self._inception(image, generator)
        if self.flip and generator.random() < 0.5:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # A copy: what Pillow lends cannot be written to.
        return np.array(view)

    def _random(self, image: Image.Image, generator: "np.random.Generator") -> Image.Image:
        assert self.precrop is not None
        left, top = generator.integers(self.precrop - self.size, size=2, endpoint=True).tolist()
        image = image.resize((self.precrop, self.precrop), Image.Resampling.BILINEAR)
        return image.crop((left, top, left + self.size, top + self.size))

    def _inception(self, image: Image.Image, generator: "np.random.Generator") -> Image.Image:
        box = _inception_box(image.width, image.height, generator)
        return image.crop(box).resize((self.size, self.size), Image.Resampling.BILINEAR)


def _inception_box(
    width: int, height: int, generator: "np.random.Generator"
) -> tuple[int, int, int, int]:
    """A random box (left, top, right, bottom) in an image, or all of it."""
    for _ in range(_ATTEMPTS):
        area = generator.uniform(*_AREA) * width * height
        aspect = generator.uniform(*_ASPECT)
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            left = int(generator.integers(width - box_width, endpoint=True))
            top = int(generator.integers(height - box_height, endpoint=True))
            return left, top, left + box_width, top + box_height
    return 0, 0, width, height
