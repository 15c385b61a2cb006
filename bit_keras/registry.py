"""Architectures and checkpoints: the one table that every other part reads.

It contains only facts with a source. What no source states is `None`.

Sources, by the short names used below:

- big_transfer: `google-research/big_transfer` @140de6e
- big_vision: `google-research/big_vision` @0127fb6
- timm: timm 1.0.31; accuracies from the results CSVs of
  `huggingface/pytorch-image-models` @aa4b585
- BiT paper: Kolesnikov et al., 2020, https://arxiv.org/abs/1912.11370
- FunMatch paper: Beyer et al., 2021, https://arxiv.org/abs/2106.05237
- big_vision distillation README: its `big_vision/configs/proj/distill/README.md`
- VTAB: `google-research/task_adaptation` @d7630d3, `scripts/run_all_tasks.sh` and the tests of
  `task_adaptation/data`
"""

import dataclasses
import difflib
import fnmatch
import functools
import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from bit_keras.errors import UnknownModelError

#: Where Google publishes every BiT and FunMatch file (big_transfer, README).
OFFICIAL_ROOT = "https://storage.googleapis.com/bit_models/"

#: The prefix of the name of a file that is packaged with this library.
PACKAGED = "package:"

#: The prefix of a repository of the Hugging Face hub, OWNER/NAME.
HUGGING_FACE = "hf://"

#: Pixels of the image from one position of the last feature map to the next.
STRIDE = 32

#: The smallest input side whose last feature map still has a pixel to pool.
MINIMUM_SIZE = STRIDE

#: Channels of the images that every published network takes.
RGB = 3

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ResidualUnit:
    """A residual unit of an architecture.

    Attributes:
        block: int. Counted from 1.
        number: int. In its block, counted from 1.
        in_filters: int. Channels that enter it.
        middle_filters: int. Channels of its 3x3 convolution.
        filters: int. Channels that leave it.
    """

    block: int
    number: int
    in_filters: int
    middle_filters: int
    filters: int

    @property
    def name(self) -> str:
        """The prefix of its layers, for example `"block1_unit01"`."""
        return f"block{self.block}_unit{self.number:02d}"

    @property
    def projects(self) -> bool:
        """Whether its shortcut is a convolution."""
        return self.number == 1

    @property
    def strides(self) -> int:
        """Of its 3x3 convolution and its shortcut: 2 where it halves the resolution.

        The first unit of block 1 does not, because the max-pool has just done so.
        """
        return 2 if self.number == 1 and self.block > 1 else 1


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A ResNet-v2 as data.

    Attributes:
        name: str. For example `"bit_r50x1"`.
        units: tuple of 4 ints. Residual units per block.
        width: int. The factor on every channel count, the `x3` of R50x3.
        base_filters: int. Stem channels at width 1.
        groups: int. Groups of every GroupNorm.
        normalization: `"group"` for GroupNorm and weight standardisation (BiT),
            `"batch"` for BatchNorm and plain convolutions.
        pool_border: float. The value that the stem's max-pool pads with.
    """

    name: str
    units: tuple[int, int, int, int]
    width: int = 1
    base_filters: int = 64
    groups: int = 32
    normalization: Literal["group", "batch"] = "group"
    pool_border: float = 0.0

    @property
    def stem_filters(self) -> int:
        return self.base_filters * self.width

    @property
    def features(self) -> int:
        """Channels of the last feature map and of the pooled features."""
        return self.block_filters(len(self.units))

    def middle_filters(self, block: int) -> int:
        """Channels of the 3x3 convolutions of `block`, counted from 1."""
        return self.stem_filters * 2 ** (block - 1)

    def block_filters(self, block: int) -> int:
        """Channels that leave `block`, counted from 1."""
        return 4 * self.middle_filters(block)

    def residual_units(self) -> Iterator[ResidualUnit]:
        """The residual units, in the network's order.

        Example:

        ```python
        architecture = bit_keras.registry.ARCHITECTURES["bit_tiny"]
        [unit.name for unit in architecture.residual_units()][:2]
        # ['block1_unit01', 'block2_unit01']
        ```
        """
        channels = self.stem_filters
        for block, units in enumerate(self.units, start=1):
            middle, out = self.middle_filters(block), self.block_filters(block)
            for number in range(1, units + 1):
                yield ResidualUnit(block, number, channels, middle, out)
                channels = out

    def weight_shapes(self, classes: int | None = None, in_channels: int = RGB) -> dict[str, Shape]:
        """Shapes of all weights by path (`layer/weight`), in the network's order.

        Args:
            classes: int. Width of the head; `None` omits the head.
            in_channels: int. Channels of the images. Defaults to `3`.

        Example:

        ```python
        shapes = bit_keras.registry.ARCHITECTURES["bit_r50x1"].weight_shapes(1000)
        shapes["stem_conv/kernel"]  # (7, 7, 3, 64)
        ```
        """
        shapes: dict[str, Shape] = {"stem_conv/kernel": (7, 7, in_channels, self.stem_filters)}
        for unit in self.residual_units():
            name, middle = unit.name, unit.middle_filters
            shapes |= self._normalization_shapes(f"{name}_norm1", unit.in_filters)
            if unit.projects:
                shapes[f"{name}_proj/kernel"] = (1, 1, unit.in_filters, unit.filters)
            shapes[f"{name}_conv1/kernel"] = (1, 1, unit.in_filters, middle)
            shapes |= self._normalization_shapes(f"{name}_norm2", middle)
            shapes[f"{name}_conv2/kernel"] = (3, 3, middle, middle)
            shapes |= self._normalization_shapes(f"{name}_norm3", middle)
            shapes[f"{name}_conv3/kernel"] = (1, 1, middle, unit.filters)
        shapes |= self._normalization_shapes("norm", self.features)
        if classes is not None:
            shapes |= {"head/kernel": (self.features, classes), "head/bias": (classes,)}
        return shapes

    def _normalization_shapes(self, layer: str, channels: int) -> dict[str, Shape]:
        names = ["gamma", "beta"]
        if self.normalization == "batch":
            names += ["moving_mean", "moving_variance"]
        return {f"{layer}/{name}": (channels,) for name in names}

    def parameters(self, classes: int | None = None) -> int:
        """Number of trainable values (BatchNorm's moving statistics are not)."""
        shapes = self.weight_shapes(classes).items()
        return sum(math.prod(shape) for path, shape in shapes if "/moving_" not in path)

    def multiply_adds(self, height: int, width: int, classes: int | None = None) -> int:
        """Multiply-adds of the convolutions and of the head for one image.

        Counted as in the papers: what normalisation, activations and pooling
        cost is not counted.

        Args:
            height: int. Of the image in pixels.
            width: int.
            classes: int. Width of the head; `None` omits the head.

        Example:

        ```python
        bit_keras.registry.ARCHITECTURES["bit_r50x1"].multiply_adds(224, 224, 1000)  # 4089184256
        ```
        """
        weights = {path: math.prod(shape) for path, shape in self.weight_shapes(classes).items()}
        # Every stride of 2 rounds up: there is a border of half the kernel on each side.
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        total = height * width * weights["stem_conv/kernel"]
        height, width = math.ceil(height / 2), math.ceil(width / 2)
        for unit in self.residual_units():
            total += height * width * weights[f"{unit.name}_conv1/kernel"]
            height, width = math.ceil(height / unit.strides), math.ceil(width / unit.strides)
            for layer in ("proj", "conv2", "conv3"):
                total += height * width * weights.get(f"{unit.name}_{layer}/kernel", 0)
        return total + weights.get("head/kernel", 0)


@dataclasses.dataclass(frozen=True)
class Resizing:
    """How an evaluation image is resized before its centre is cropped.

    Attributes:
        mode: `"short_side"` keeps the aspect ratio, `"squash"` does not.
        side: int. The short side, or both sides, in pixels.
        interpolation: `"bilinear"`, `"bicubic"` or `"area"`, always antialiased.
        source: str. Where this is stated.
    """

    mode: Literal["short_side", "squash"]
    side: int
    interpolation: Literal["bilinear", "bicubic", "area"]
    source: str


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """An accuracy in percent, as those who trained the weights, or others, published it.

    Attributes:
        dataset: str. For example `"ImageNet-1k"`.
        metric: str. For example `"top-1"`.
        value: float. Percent.
        size: int or None. Side of the evaluation images in pixels.
        source: str. Who published it, and where.
    """

    dataset: str
    metric: str
    value: float
    size: int | None
    source: str


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A published set of weights and how to use it.

    Attributes:
        name: str. `architecture.tag`.
        architecture: Architecture.
        url: str. Where the file is published; `package:` and a file name for weights
            that come with this package, `hf://` and OWNER/NAME for a repository of the
            Hugging Face hub.
        classes: int. Width of the head.
        labels: str or None. Name of a packaged class list.
        description: str. One sentence.
        activation: `"softmax"` or `"sigmoid"`: what turns logits into scores.
        size: int or None. Side of the evaluation crop in pixels.
        resizing: Resizing or None. What precedes the crop.
        accuracies: tuple of Accuracy.
        aliases: tuple of str. Every other name that people know it by.
        bytes: int or None. Exact size of the file.
        sha256: str or None. Digest of the file.
        license: str.
    """

    name: str
    architecture: Architecture
    url: str
    classes: int
    labels: str | None
    description: str
    activation: Literal["softmax", "sigmoid"] = "softmax"
    size: int | None = None
    resizing: Resizing | None = None
    accuracies: tuple[Accuracy, ...] = ()
    aliases: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    license: str = "Apache-2.0"

    @property
    def file(self) -> str:
        """The path below the place of publication: of a file, or of a repository's folder."""
        path = self.url.removeprefix(PACKAGED).removeprefix(OFFICIAL_ROOT)
        return path.removeprefix(HUGGING_FACE)

    @property
    def parameters(self) -> int:
        """Trainable values, head included."""
        return self.architecture.parameters(self.classes)


_DEPTHS = {"r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3), "r152": (3, 8, 36, 3)}
_SIZES = ("r50x1", "r50x3", "r101x1", "r101x3", "r152x2", "r152x4")


def _architectures() -> Iterator[Architecture]:
    for size in _SIZES:
        depth, width = size.split("x")
        yield Architecture(f"bit_{size}", _DEPTHS[depth], int(width))
    for depth in ("50", "101"):
        # The a1h networks pool like torch's `padding=1` (timm, `resnetv2.py`, stem_type "").
        yield Architecture(
            f"resnetv2_{depth}",
            _DEPTHS[f"r{depth}"],
            normalization="batch",
            pool_border=float("-inf"),
        )
    yield Architecture("bit_tiny", (1, 2, 2, 1), base_filters=32)


#: Every architecture by name.
ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {architecture.name: architecture for architecture in _architectures()}
)

_TIMM = "timm 1.0.31"
_TIMM_RESULTS = "timm results CSVs @aa4b585"
_DISTILLATION = "big_vision distillation README"


def _timm_accuracies(size: int, *percents: float) -> tuple[Accuracy, ...]:
    measured = (
        ("ImageNet-1k", "top-1"),
        ("ImageNet-1k", "top-5"),
        ("ImageNet-ReaL", "top-1"),
        ("ImageNet-V2", "top-1"),
    )
    return tuple(
        Accuracy(dataset, metric, percent, size, _TIMM_RESULTS)
        for (dataset, metric), percent in zip(measured, percents, strict=True)
    )


def _published(
    name: str, file: str, timm: tuple[str, ...] = (), hub: tuple[str, ...] = (), **facts: Any
) -> Checkpoint:
    """A checkpoint that Google publishes, of ImageNet-1k where the facts do not say another.

    Args:
        name: str. Its architecture and tag.
        file: str. The path of the npz file below `OFFICIAL_ROOT`, without the suffix.
        timm: tuple of str. Its ids in timm; those with a tag are also repositories of the Hugging
            Face hub.
        hub: tuple of str. Its addresses on tfhub.dev. Of the collection BiT-ResNet also those that
            its README (`sayakpaul/BiT-jax2tf` @dbee8fa) and its first model page show, and that
            are on no page of tfhub.dev.
        **facts: What `Checkpoint` takes; `aliases` are further ones.
    """
    stem = file.rpartition("/")[2]
    aliases = (
        *(stem, f"{stem}.npz"),
        *timm,
        *(f"timm/{id}" for id in timm if "." in id),
        *(f"https://tfhub.dev/{path}/1" for path in hub),
        *facts.pop("aliases", ()),
    )
    facts = {"classes": 1000, "labels": "imagenet_1k", "aliases": aliases, **facts}
    architecture = ARCHITECTURES[name.partition(".")[0]]
    return Checkpoint(name, architecture, f"{OFFICIAL_ROOT}{file}.npz", **facts)


def _hub_addresses(prefix: str, network: str) -> tuple[str, ...]:
    """The addresses of a network of the collection BiT-ResNet."""
    return (
        f"sayakpaul/{prefix}_resnet{network}_classification",
        f"sayakpaul/{prefix}_r{network}_classification",
        f"sayakpaul/{prefix}_r{network}_feature_extraction",
    )


def _distilled() -> Iterator[Checkpoint]:
    yield _published(
        "bit_r50x1.distilled_in1k_224",
        "distill/R50x1_224",
        timm=("resnetv2_50x1_bit.goog_distilled_in1k", "resnetv2_50x1_bit_distilled"),
        hub=_hub_addresses("distill_bit", "50x1_224"),
        description="ResNet-50x1 taught by two R152x2 on ImageNet-1k for 9600 epochs (FunMatch).",
        size=224,
        resizing=Resizing("short_side", 256, "bicubic", _TIMM),
        accuracies=(
            Accuracy("ImageNet-1k", "top-1", 82.8, 224, "big_transfer README"),
            *_timm_accuracies(224, 82.820, 96.526, 87.798, 72.18),
        ),
    )
    yield _published(
        "bit_r50x1.distilled_in1k_160",
        "distill/R50x1_160",
        hub=_hub_addresses("distill_bit", "50x1_160"),
        description="ResNet-50x1 taught by an R152x2 on ImageNet-1k at 160 pixels (FunMatch).",
        size=160,
        accuracies=(Accuracy("ImageNet-1k", "top-1", 80.5, 160, "big_transfer README"),),
    )


def _teachers() -> Iterator[Checkpoint]:
    description = (
        "ResNet-152x2 pre-trained on ImageNet-21k and fine-tuned on ImageNet-1k at {} pixels; a "
        "teacher of FunMatch."
    )
    yield _published(
        "bit_r152x2.teacher_in1k_384",
        "distill/R152x2_T_384",
        timm=(
            "resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k_384",
            "resnetv2_152x2_bit_teacher_384",
        ),
        hub=_hub_addresses("bit", "152x2_384"),
        description=description.format(384),
        size=384,
        resizing=Resizing("short_side", 384, "bicubic", _TIMM),
        accuracies=(
            # The three sources disagree; all are listed.
            Accuracy("ImageNet-1k", "top-1", 84.3, 384, _DISTILLATION),
            Accuracy("ImageNet-1k", "top-1", 83.7, 384, "FunMatch paper"),
            *_timm_accuracies(384, 83.858, 97.130, 88.144, 72.72),
        ),
        bytes=945_485_848,  # download log of sayakpaul/BiT-jax2tf, its conversion notebook
    )
    yield _published(
        "bit_r152x2.teacher_in1k_224",
        "distill/R152x2_T_224",
        timm=("resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k", "resnetv2_152x2_bit_teacher"),
        hub=_hub_addresses("bit", "152x2_224"),
        description=description.format(224),
        size=224,
        resizing=Resizing("short_side", 256, "bicubic", _TIMM),
        accuracies=(
            Accuracy("ImageNet-1k", "top-1", 83.0, 224, _DISTILLATION),
            *_timm_accuracies(224, 82.918, 96.568, 87.491, 71.43),
        ),
    )
    # Classes and accuracies: FunMatch paper, table 4. Transform: big_vision,
    # `configs/proj/distill/common.py` and its users.
    for dataset, token, classes, top1 in (
        ("Oxford Flowers 102", "flowers", 102, 97.82),
        ("Oxford-IIIT Pet", "pet", 37, 91.03),
        ("Food-101", "food", 101, 86.24),
        ("SUN397", "sun", 397, 74.22),
    ):
        yield _published(
            f"bit_r152x2.teacher_{token}_128",
            f"distill/R152x2_T_{token}128",
            classes=classes,
            labels=None,
            description=f"ResNet-152x2 fine-tuned on {dataset} at 128 pixels; a FunMatch teacher.",
            size=128,
            resizing=Resizing("short_side", 160, "area", "big_vision distillation configs"),
            accuracies=(Accuracy(dataset, "top-1", top1, 128, "FunMatch paper, table 4"),),
        )


def _upstream() -> Iterator[Checkpoint]:
    for size in _SIZES:
        # TF Hub contains no R152x2 (https://tfhub.dev/google/collections/bit/1).
        on_hub = size != "r152x2"
        hub = (f"google/bit/m-{size}", f"google/bit/m-{size}/imagenet21k_classification")
        yield _published(
            f"bit_{size}.in21k",
            f"BiT-M-R{size[1:]}",
            timm=(f"resnetv2_{size[1:]}_bit.goog_in21k", f"resnetv2_{size[1:]}_bitm_in21k"),
            hub=hub if on_hub else (),
            classes=21843,
            labels="imagenet_21k",
            description="BiT-M: pre-trained on ImageNet-21k, 14.2 million images, multi-label.",
            activation="sigmoid",
            size=224,
            resizing=Resizing("short_side", 256, "bilinear", _TIMM),
        )
        # big_transfer's `bit_pytorch/models.py` and `bit_jax/models.py` also know a BiT-S-R152x2,
        # and its README lists none: no source shows that the file was published.
        if on_hub:
            yield _published(
                f"bit_{size}.in1k",
                f"BiT-S-R{size[1:]}",
                hub=(f"google/bit/s-{size}", f"google/bit/s-{size}/ilsvrc2012_classification"),
                description="BiT-S: pre-trained on ImageNet-1k, 1.28 million images, 90 epochs.",
                size=224,
            )


def _fine_tuned() -> Iterator[Checkpoint]:
    # size, side, accuracies: timm. bytes: the "File Size" fields of timm's earlier
    # model page (`hfdocs/source/models/big-transfer.mdx`).
    for size, side, bytes_, accuracies in (
        ("r50x1", 448, 102_242_668, (80.386, 95.694, 86.464, 67.89)),
        ("r50x3", 448, 869_321_580, (83.982, 97.130, 88.400, 71.82)),
        ("r101x1", 448, 178_256_468, (82.332, 96.524, 87.678, 70.70)),
        ("r101x3", 448, 1_551_830_100, (84.430, 97.380, 88.445, 72.43)),
        ("r152x2", 448, 945_476_668, (84.468, 97.432, 88.710, 73.04)),
        ("r152x4", 480, 3_746_270_104, (84.936, 97.456, 88.567, 73.14)),
    ):
        hub = (f"google/bit/m-{size}/ilsvrc2012_classification",)
        yield _published(
            f"bit_{size}.in21k_ft_in1k",
            f"BiT-M-R{size[1:]}-ILSVRC2012",
            timm=(f"resnetv2_{size[1:]}_bit.goog_in21k_ft_in1k", f"resnetv2_{size[1:]}_bitm"),
            hub=hub if size != "r152x2" else (),
            aliases=("google/bit-50",) if size == "r50x1" else (),  # transformers
            description="BiT-M: pre-trained on ImageNet-21k, fine-tuned on ImageNet-1k.",
            size=side,
            resizing=Resizing("short_side", side, "bilinear", _TIMM),
            accuracies=_timm_accuracies(side, *accuracies),
            bytes=bytes_,
        )
    colab = "big_transfer `bit_pytorch` colab"
    yield _published(
        "bit_r50x1.in21k_ft_cifar10",
        "BiT-M-R50x1-CIFAR10",
        classes=10,
        labels="cifar10",
        description="BiT-M: pre-trained on ImageNet-21k, fine-tuned on CIFAR-10 at 128 pixels.",
        size=128,
        resizing=Resizing("squash", 128, "bilinear", colab),
        accuracies=(Accuracy("CIFAR-10", "top-1", 97.62, 128, colab),),
    )


#: Classes of the VTAB-1k tasks.
_VTAB_CLASSES: Mapping[str, int] = MappingProxyType(
    {
        "caltech101": 102,
        "cifar100": 100,
        "clevr-count": 8,
        "clevr-distance": 6,
        "diabetic_retinopathy": 5,
        "dmlab": 6,
        "dsprites-orientation": 16,
        "dsprites-xpos": 16,
        "dtd": 47,
        "eurosat": 10,
        "kitti-distance": 4,
        "oxford_flowers102": 102,
        "oxford_iiit_pet": 37,
        "patch_camelyon": 2,
        "resisc45": 45,
        "smallnorb-azimuth": 18,
        "smallnorb-elevation": 9,
        "sun397": 397,
        "svhn": 10,
    }
)


def _vtab() -> Iterator[Checkpoint]:
    for size in ("r50x1", "r50x3", "r101x1", "r101x3", "r152x4"):
        for task, classes in _VTAB_CLASSES.items():
            for run in range(3):
                yield _published(
                    f"bit_{size}.in21k_ft_vtab_{task.replace('-', '_')}_run{run}",
                    f"vtab/BiT-M-R{size[1:]}-run{run}-{task}",
                    classes=classes,
                    labels=None,
                    description=f"BiT-M fine-tuned on 1000 images of VTAB's {task}, run {run}.",
                )


def _batch_norm_siblings() -> Iterator[Checkpoint]:
    # timm publishes them twice: on the Hugging Face hub both, and the 50 also in the release
    # v0.1-rsb-weights of `huggingface/pytorch-image-models`, as a file of PyTorch.
    for depth, names, at_224, at_288 in (
        (
            "50",
            ("resnetv2_50_a1h-000cdf49", "resnetv2_50_a1h-000cdf49.pth"),
            (80.410, 95.082, 86.02, 68.87),
            (81.406, 95.712, 86.92, 70.45),
        ),
        ("101", (), (82.042, 95.866, 87.30, 71.29), (83.002, 96.444, 87.91, 72.70)),
    ):
        repository = f"timm/resnetv2_{depth}.a1h_in1k"
        yield Checkpoint(
            f"resnetv2_{depth}.a1h_in1k",
            ARCHITECTURES[f"resnetv2_{depth}"],
            HUGGING_FACE + repository,
            classes=1000,
            labels="imagenet_1k",
            description="timm's ResNet-v2 with BatchNorm, trained on ImageNet-1k (recipe a1h).",
            size=224,
            resizing=Resizing("short_side", 235, "bicubic", _TIMM),
            accuracies=_timm_accuracies(224, *at_224) + _timm_accuracies(288, *at_288),
            aliases=(repository, *names),
        )


def _own() -> Iterator[Checkpoint]:
    yield Checkpoint(
        "bit_tiny.cifar10",
        ARCHITECTURES["bit_tiny"],
        url=PACKAGED + "bit_tiny.cifar10.npz",
        classes=10,
        labels="cifar10",
        description="A small BiT that this project trained on CIFAR-10; comes with the package.",
        size=64,
        resizing=Resizing("squash", 72, "bilinear", "this project"),
        accuracies=(Accuracy("CIFAR-10", "top-1", 85.83, 64, "this project, docs/bit_tiny.md"),),
        bytes=4_754_704,
        sha256="766e230cc604d22c952ec273a59c7ef842207fc2585b6c3e6f72aae4086fac53",
    )


#: Every checkpoint by name.
CHECKPOINTS: Mapping[str, Checkpoint] = MappingProxyType(
    {
        checkpoint.name: checkpoint
        for checkpoints in (
            _distilled,
            _teachers,
            _fine_tuned,
            _upstream,
            _batch_norm_siblings,
            _own,
            _vtab,
        )
        for checkpoint in checkpoints()
    }
)


@functools.cache
def _names() -> Mapping[str, str]:
    """Every name and alias, normalised, with the name that it resolves to."""
    return MappingProxyType(
        {
            _normalize(name): checkpoint.name
            for checkpoint in CHECKPOINTS.values()
            for name in (checkpoint.name, *checkpoint.aliases)
        }
    )


def _normalize(name: str) -> str:
    """Lower case, without what people put around a handle: host, hub prefix, version."""
    name = name.strip().lower()
    name = re.sub(
        r"^(https?://)?(www\.)?(tfhub\.dev|storage\.googleapis\.com/bit_models)/", "", name
    )
    name = re.sub(rf"^(hf-hub:|{HUGGING_FACE}|gs://bit_models/)", "", name)
    name = re.sub(r"^(distill|vtab)/", "", name)
    return re.sub(r"/\d+$", "", name)


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models that match a shell pattern.

    Args:
        pattern: str. `*` and `?` as in a shell. Defaults to `"*"`, all of them.

    Returns:
        list of str, in the order of the registry.

    Example:

    ```python
    bit_keras.list_models("*distilled*")
    # ['bit_r50x1.distilled_in1k_224', 'bit_r50x1.distilled_in1k_160']
    ```
    """
    return [name for name in CHECKPOINTS if fnmatch.fnmatchcase(name, pattern)]


def model_info(name: str) -> Checkpoint:
    """The record of a model: everything that is known about its weights.

    Args:
        name: str. A model name, or any alias: a timm id, a TF Hub handle, an
            official file name.

    Returns:
        Checkpoint.

    Raises:
        UnknownModelError: No model has that name; the message contains the nearest.

    Example:

    ```python
    bit_keras.model_info("BiT-M-R50x1").classes  # 21843
    ```
    """
    normalized = _normalize(name)
    if normalized not in _names():
        raise UnknownModelError(_unknown(name, normalized))
    return CHECKPOINTS[_names()[normalized]]


def _unknown(name: str, normalized: str) -> str:
    if normalized in ARCHITECTURES:
        near = list_models(f"{normalized}.*")[:6]
        return (
            f"{name!r} is an architecture; a model name also says which weights: "
            f"{', '.join(near)}, ..."
        )
    near = difflib.get_close_matches(normalized, _names(), n=8, cutoff=0.5)
    models = list(dict.fromkeys(_names()[match] for match in near))[:3]
    hint = f" The nearest are {', '.join(models)}." if models else ""
    return f"There is no model {name!r}.{hint} `bit-keras list` shows all of them."


def checkpoint_of(model: Any) -> str:
    """The checkpoint that a Keras model is of, whatever it is called.

    Args:
        model: keras.Model. Those that the builders return remember it; of others, and of files
            of earlier versions, it is the name.

    Returns:
        str. A name of the registry, or something else.
    """
    return getattr(model, "checkpoint", None) or model.name
