"""Names and layouts of other code bases, against listings that these themselves gave."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from bit_keras.checkpoints.dialects import (
    BIT_PYTORCH,
    DIALECTS,
    FLAX,
    OFFICIAL,
    TIMM,
    TRANSFORMERS,
    TRANSFORMERS_BODY,
    bit_tf2_order,
    paths_by_name,
    rearranged,
    rearranged_shape,
)
from bit_keras.checkpoints.names import official_shapes
from bit_keras.checkpoints.seeded import SeededArrays
from bit_keras.checkpoints.writing import ArraysInDialect
from bit_keras.registry import ARCHITECTURES

REFERENCE = Path(__file__).parent / "reference"
WRITTEN = {
    "official": (OFFICIAL, ""),
    "timm": (TIMM, ""),
    "transformers": (TRANSFORMERS, ""),
    "transformers_body": (TRANSFORMERS_BODY, ""),
    "bit_pytorch": (BIT_PYTORCH, ""),
    "flax": (FLAX, "params/"),
}
DIGESTS = [line.split() for line in (REFERENCE / "digests.txt").read_text().splitlines()]


def listing(code_base, architecture):
    """What we would write for a code base, one line for each array."""
    dialect, prefix = WRITTEN[code_base]
    classes = None if code_base == "transformers_body" else 1000
    architecture = ARCHITECTURES[architecture]
    arrays = SeededArrays(official_shapes(architecture, classes))
    shapes = ArraysInDialect(arrays, architecture, dialect, prefix).shapes
    return "".join(f"{name} {','.join(map(str, shapes[name]))}\n" for name in sorted(shapes))


@pytest.mark.parametrize("path", sorted(REFERENCE.glob("*.*.txt")), ids=lambda path: path.stem)
def test_names_and_shapes_are_those_of_the_code_base(path):
    code_base, architecture = path.stem.split(".")
    assert listing(code_base, architecture) == path.read_text()


@pytest.mark.parametrize(("code_base", "architecture", "count", "digest"), DIGESTS)
def test_names_and_shapes_of_every_architecture(code_base, architecture, count, digest):
    text = listing(code_base, architecture)
    assert len(text.splitlines()) == int(count)
    assert hashlib.sha256(text.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("dialect", "architecture"),
    [
        pytest.param(dialect, architecture, id=f"{dialect.name}-{architecture.name}")
        for dialect in DIALECTS
        for architecture in ARCHITECTURES.values()
        if dialect.batch_norm or architecture.normalization == "group"
    ],
)
def test_a_dialect_names_every_weight_of_a_network_apart(dialect, architecture):
    paths = architecture.weight_shapes(classes=7)
    names = [dialect.array_name(path) for path in paths]
    assert [paths_by_name(dialect)[name] for name in names] == list(paths)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("path", ["dense/kernel", "block1_unit01_conv4/kernel", "norm/mean", ""])
def test_what_is_not_a_weight_of_the_network_has_no_name(dialect, path):
    assert dialect.array_name(path) is None


@pytest.mark.parametrize(
    ("source", "target", "shape"),
    [
        ("HWIO", "OIHW", (2, 3, 4, 5)),
        ("OI", "HWIO", (5, 4)),
        ("IO", "OIHW", (4, 5)),
        ("NHWC", "C", (1, 1, 1, 6)),
        ("HWIO", "IO", (1, 1, 4, 5)),
    ],
)
def test_a_layout_and_back_gives_the_same_array(source, target, shape):
    array = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    there = rearranged(array, source, target)
    assert there.shape == rearranged_shape(shape, source, target)
    np.testing.assert_array_equal(rearranged(there, target, source), array)


def test_axes_go_where_their_letters_say():
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert rearranged(kernel, "HWIO", "OIHW")[4, 3, 1, 2] == kernel[1, 2, 3, 4]
    head = np.arange(20).reshape(4, 5)
    assert rearranged(head, "IO", "OIHW")[3, 2, 0, 0] == head[2, 3]


@pytest.mark.parametrize(
    ("source", "shape"), [("OI", (5, 4, 1, 1)), ("HWIO", (3, 3, 4, 5)), ("C", ())]
)
def test_a_shape_without_the_axes_of_its_layout_is_refused(source, shape):
    with pytest.raises(ValueError, match="not a shape of the layout"):
        rearranged_shape(shape, source, "IO" if source == "HWIO" else "HWIO")


def test_bit_tf2_has_the_projection_last_in_its_unit():
    # Weights per layer of R50 in `bit_tf2`: the root, four blocks, the norm, the head.
    ordered = list(bit_tf2_order(ARCHITECTURES["bit_r50x1"].weight_shapes(10)))
    assert ordered[:11] == [
        "stem_conv/kernel",
        "block1_unit01_norm1/gamma",
        "block1_unit01_norm1/beta",
        "block1_unit01_conv1/kernel",
        "block1_unit01_norm2/gamma",
        "block1_unit01_norm2/beta",
        "block1_unit01_conv2/kernel",
        "block1_unit01_norm3/gamma",
        "block1_unit01_norm3/beta",
        "block1_unit01_conv3/kernel",
        "block1_unit01_proj/kernel",
    ]
    blocks = [path.partition("_")[0].partition("/")[0] for path in ordered]
    assert [blocks.count(name) for name in ("block1", "block2", "block3", "block4")] == [
        28,
        37,
        55,
        28,
    ]
    assert len(ordered) == 153
