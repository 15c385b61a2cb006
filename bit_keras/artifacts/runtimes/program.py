"""The interface of all runtimes: images in, named arrays out."""

import abc
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from bit_keras.errors import ExportError, reason_of
from bit_keras.registry import RGB

#: The signature that runs unless another is named, as TensorFlow calls it.
DEFAULT_SIGNATURE = "serving_default"

#: The input of SavedModels that takes images, and the signature that has it where the default
#: one takes encoded images.
INPUTS = "inputs"

#: The signature, and its only output, of the pooled features.
FEATURES = "features"

#: The output of the class activation maps, and the signature that SavedModels give them.
CLASS_MAPS = "class_maps"

#: Axes of a batch of images.
IMAGE_RANK = 4

#: The order of the axes of the images in a file: channels last, or channels first.
Layout = Literal["nhwc", "nchw"]
LAYOUTS: tuple[Layout, ...] = ("nhwc", "nchw")


@dataclasses.dataclass(frozen=True)
class Signature:
    """One of the ways to call a program.

    Attributes:
        input_shape: tuple. `(batch, height, width, channels)`; None where anything goes.
        input_dtype: str. That of the images, `"float32"` or `"uint8"`.
        outputs: tuple of str. The names of the arrays that are returned.
        layout: str. The order of the axes in the file, `"nhwc"` or `"nchw"`. A program takes
            channels last in either case. Defaults to `"nhwc"`.
    """

    input_shape: tuple[int | None, ...]
    input_dtype: str
    outputs: tuple[str, ...]
    layout: Layout = "nhwc"


@dataclasses.dataclass(frozen=True)
class Intermediate:
    """What one operation of a file computed.

    Attributes:
        name: str. That of the tensor in the file.
        dtype: str. What the file stores it in.
        values: float32 array.
    """

    name: str
    dtype: str
    values: np.ndarray


class Program(abc.ABC):
    """A file that an engine runs: images in, named arrays out.

    Attributes:
        engine: str. What runs the file, with its version.
        signatures: dict of str to Signature.
    """

    engine: str
    signatures: dict[str, Signature]

    def __call__(self, images: np.ndarray, signature: str | None = None) -> dict[str, np.ndarray]:
        """Runs images through the file.

        Args:
            images: array `(batch, height, width, channels)` of the shape and the dtype that
                the signature states. Any number of images is accepted: where a file
                only takes a certain number, they go through it in pieces.
            signature: str. One of `signatures`. Defaults to the first of them, which is
                `"serving_default"` wherever that takes images.

        Returns:
            dict from the name of each output to its array. What is quantised in the file is
            float32 here.

        Raises:
            ExportError: No such signature, images that it does not take, or the engine fails.
        """
        signature = signature or next(iter(self.signatures))
        self._require_images(images, signature)
        size = self._piece(images, signature) or len(images)
        pieces = [
            self._run_piece(images[start : start + size], size, signature)
            for start in range(0, len(images), size)
        ]
        if len(pieces) == 1:
            return pieces[0]
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    @abc.abstractmethod
    def _run(self, images: np.ndarray, signature: str) -> dict[str, np.ndarray]:
        """Runs images in the layout of the file, as many as it takes at once."""

    def _piece(self, images: np.ndarray, signature: str) -> int | None:
        """How many of the images the file takes at once; None for all of them."""
        return self.signatures[signature].input_shape[0]

    def _run_piece(self, images: np.ndarray, size: int, signature: str) -> dict[str, np.ndarray]:
        count = len(images)
        if count < size:
            images = np.concatenate([images, np.repeat(images[-1:], size - count, axis=0)])
        images = in_layout(images, self.signatures[signature].layout)
        try:
            outputs = self._run(np.ascontiguousarray(images), signature)
        except ExportError:
            raise
        # Every engine has exceptions of its own, some of them not even exported.
        except Exception as error:
            raise ExportError(
                f"{self.engine} cannot run {signature} on images {images.shape} "
                f"({reason_of(error)}); the file is damaged, or made for another engine."
            ) from error
        return {name: output[:count] for name, output in outputs.items()}

    def _require_images(self, images: np.ndarray, signature: str) -> None:
        if signature not in self.signatures:
            names = ", ".join(self.signatures)
            raise ExportError(f"There is no signature {signature!r}; the file has {names}.")
        expected = self.signatures[signature]
        if (
            images.dtype == expected.input_dtype
            and images.ndim == IMAGE_RANK
            and len(images) > 0
            and all(
                side in (None, actual)
                for side, actual in zip(expected.input_shape[1:], images.shape[1:], strict=True)
            )
        ):
            return
        shape = ", ".join(
            "any" if side is None else str(side) for side in ("batch", *expected.input_shape[1:])
        )
        raise ExportError(
            f"{signature} takes {expected.input_dtype} images of the shape ({shape}). Received: "
            f"{images.dtype} images of the shape {images.shape}."
        )


def default_first(names: Iterable[str]) -> list[str]:
    """Names of signatures in one order, whatever that of the file is."""
    return sorted(names, key=lambda name: (name != DEFAULT_SIGNATURE, name != INPUTS, name))


def dimensions(shape: Iterable[object]) -> tuple[int | None, ...]:
    """A shape with None where an engine has -1, a name or nothing."""
    return tuple(side if isinstance(side, int) and side >= 0 else None for side in shape)


def channels_last(shape: Sequence[int | None]) -> tuple[tuple[int | None, ...], Layout]:
    """The shape of the images that a file takes as `(batch, height, width, channels)`.

    Args:
        shape: Of 4 axes, in the layout of the file.

    Returns:
        The shape, and the layout. Channels are first where the second axis is that of RGB and
        the last one is not.
    """
    batch, second, third, last = shape
    if second == RGB and last != RGB:
        return (batch, third, last, second), "nchw"
    return tuple(shape), "nhwc"


class GraphInput(NamedTuple):
    """An input of a graph; sides that are not integers may be any."""

    name: str
    dtype: str
    shape: tuple[object, ...]


def signatures_of(
    path: os.PathLike, inputs: Sequence[GraphInput], outputs: tuple[str, ...]
) -> dict[str, Signature]:
    """The signatures of a graph, in a format that has no signatures.

    Args:
        path: The file, for errors.
        inputs: sequence of GraphInput. All that the graph has.
        outputs: tuple of str. The names of its outputs.

    Raises:
        ExportError: It does not take one batch of images.
    """
    if (
        len(inputs) != 1
        or len(inputs[0].shape) != IMAGE_RANK
        or inputs[0].dtype not in ("float32", "uint8")
    ):
        taken = ", ".join(f"{each.name}: {each.dtype} {list(each.shape)}" for each in inputs)
        raise ExportError(f"{path} takes {taken}, and not one batch of images.")
    shape, layout = channels_last(dimensions(inputs[0].shape))
    signatures = {DEFAULT_SIGNATURE: Signature(shape, inputs[0].dtype, outputs, layout)}
    if FEATURES in outputs:
        signatures[FEATURES] = Signature(shape, inputs[0].dtype, (FEATURES,), layout)
    return signatures


def in_layout(images: np.ndarray, layout: Layout) -> np.ndarray:
    """Images with their channels last in the layout of a file."""
    return images.transpose(0, 3, 1, 2) if layout == "nchw" else images


def loaded(path: os.PathLike, engine: str, load: Callable[[], Any]) -> Any:
    """What `load` returns, with every failure of an engine turned into a sentence."""
    try:
        return load()
    except ExportError:
        raise
    # Every engine has exceptions of its own, some of them not even exported.
    except Exception as error:
        raise ExportError(
            f"{path} cannot be loaded by {engine} ({reason_of(error)}); it is damaged or not "
            "a model; export it again."
        ) from error
