"""The function that exports a model to any target."""

import functools
import os
import pkgutil
from typing import TYPE_CHECKING, Any

from bit_keras.exporters.targets import (
    TARGETS,
    TRITON,
    TRITON_WRITER,
    check_options,
    given_options,
)

if TYPE_CHECKING:
    import keras

    from bit_keras.artifacts.metadata import Metadata


def export(
    model: "keras.Model", path: str | os.PathLike, target: str = "hub", **options: Any
) -> "Metadata":
    """Writes a model as an artifact that other programs load.

    Every artifact has metadata, and reference inputs and outputs with which
    `bit_keras.artifacts.Artifact.verify` checks it. What goes in is RGB, channels last, float32
    in [-1, 1]; what comes out is `logits` of a classifier, or pooled `features`. See the
    [table of targets and options](../export.md#targets-and-options).

    Args:
        model: keras.Model from `create_classifier` or `create_feature_extractor`, on the
            TensorFlow backend; `"keras"` takes any network of this package on any backend.
            It is not changed.
        path: The file or folder to create. Written atomically.
        target: `"hub"`, `"serving"`, `"tflite"`, `"onnx"`, `"openvino"` or `"keras"`. Defaults
            to `"hub"`.
        **options: Those of the target, all optional:

            - `spec` (every target): ClassifierSpec. The labels and the transform of a
              classifier. Defaults to what the registry knows of the model's name.
            - `allow_nonfinite` (every target): bool. Takes weights that are infinite or not
              a number.
            - `input_range`: `(-1.0, 1.0)`, BiT's own, or `(0.0, 1.0)`, for images in float32.
            - `size`: int. Side of the images. Defaults to that of the model or its spec.
              `"onnx"` and `"openvino"` take any size without it, `"tflite"` with
              `"dynamic"`.
            - `class_maps`: bool. Adds the output `class_maps` of a classifier, float32 `(batch,
              height / 32, width / 32, classes)`, sides rounded up: what
              `bit_keras.create_class_maps` gives.
            - `quantize`: `"none"`; `"float16"`; `"dynamic"`: weights in int8; `"int8"`:
              convolutions and head in int8; `"int8-pure"`: no float between input and output.
            - `calibration`: float32 array `(n, height, width, 3)` in [-1, 1], a hundred images or
              more that are like those the network is going to see, for `"int8"` and
              `"int8-pure"`: see `bit_keras.exporters.calibration.calibration_images`.
            - `precision`: `"float32"`, or `"bfloat16"`: convolutions in bfloat16, statistics
              and head in float32.
            - `folded`: bool. Adds the signatures of a server to `"hub"`.
            - `version`: int, from 1. Of a SavedModel for servers; `path` is the folder of all
              versions.
            - `batch_sizes`: sequence of int. To warm up a server with; `()` writes no
              requests. Defaults to `(1, 2, 4, 8)`.
            - `default_signature`: `"inputs"`, or `"image_bytes"`: `serving_default` takes
              encoded images.
            - `max_pixels`: int. The most pixels of an encoded image. Defaults to 25,000,000.
            - `batch`: int. The only number of images that an ONNX file takes at once.
            - `opset`: int. Version of the operators of an ONNX file. Defaults to 17.
            - `layout`: `"nhwc"`; `"nchw"`: images with channels first; or `"triton"`: a folder
              of Triton's model repository, with channels last.

    Returns:
        Metadata, as stored in the artifact.

    Raises:
        ExportError: An unknown target, options that it does not take or that do not go
            together, another backend, a model that is not a BiT, a spec with another number
            of classes, a path that exists, a missing extra, or a file that cannot be written.
        SizeError: A size is needed and not known, it is below 32, or the model takes
            another.
        BitKerasError: The path cannot be written, or the network takes other images than
            RGB squares.

    Example:

    ```python
    model = bit_keras.create_classifier("bit_tiny.cifar10")
    bit_keras.export(model, "bit_tiny.onnx", target="onnx", size=64).size  # 64
    ```
    """
    # Here, since the command line reads the table without Keras.
    from bit_keras.exporters.outputs import LEVELS, ExportedNetwork, variant_of

    takes_any = target == "keras" or target not in TARGETS
    check_options(target, None if takes_any else variant_of(model, target), options)
    options = given_options(options)
    levels = tuple(name for name in LEVELS if options.pop(name, False))
    writer = pkgutil.resolve_name(TARGETS[target].writer)
    if options.get("layout") == TRITON:
        del options["layout"]
        writer = functools.partial(pkgutil.resolve_name(TRITON_WRITER), target=target)
    return writer(ExportedNetwork(model, levels), path, **options)
