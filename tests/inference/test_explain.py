"""Where a network looks: exactly what adds up to the logits, exactly where it was seen."""

import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from bit_keras.checkpoints import fill_with_seeded_values
from bit_keras.errors import BitKerasError, ImageError
from bit_keras.exporters import export
from bit_keras.inference import Explanation, load_predictor, write_explanations
from bit_keras.inference.drawing import require_drawing
from bit_keras.models import create_class_maps, create_classifier
from tests.reference import oracle


def photo(height=70, width=90, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def scores(classes):
    return {class_id: score for class_id, _, score in classes}


def saved(folder, **arguments):
    model = create_classifier("bit_tiny.cifar10", weights=None, **arguments)
    fill_with_seeded_values(model)
    model.save(folder / "model.keras")
    return folder / "model.keras"


def assert_explains_its_predictions(predictor, rel):
    explanation = predictor.explain(photo(), top=3)
    image = predictor.spec.transform(photo())
    (predicted,) = predictor([image], top=3)
    assert [entry[:2] for entry in explanation.classes] == [entry[:2] for entry in predicted]
    assert scores(explanation.classes) == pytest.approx(scores(predicted), rel=rel)
    best = predictor.spec.labels.indices_of(list(scores(predicted)))
    logits = predictor.network(image[None])[0]
    assert explanation.logits == pytest.approx(logits[best], rel=1e-5, abs=1e-5)
    assert explanation.maps.shape == (3, 2, 2)
    assert explanation.maps.std(axis=(1, 2)).min() > 1e-3


# What the numbers are


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"include_preprocessing": True},
        {"classifier_activation": "softmax"},
        {"num_classes": 3},
        {"input_shape": (64, 64, 3)},
    ],
    ids=str,
)
def test_the_mean_of_a_map_is_the_logit_of_its_class(tmp_path, arguments):
    assert_explains_its_predictions(load_predictor(saved(tmp_path, **arguments)), rel=1e-6)


def test_a_file_of_weights_is_explained_as_the_float64_oracle_says(tiny_npz, tiny_arrays, tmp_path):
    predictor = load_predictor(shutil.copy(tiny_npz, tmp_path / "bit_tiny.cifar10.npz"))
    explanation = predictor.explain(photo(), top=10)
    weights = {name: tiny_arrays[name] for name in tiny_arrays}
    image = predictor.spec.transform(photo())
    (before_the_mean,) = oracle.features(image[None], weights)["pre_logits_map"]
    head = weights["resnet/head/conv2d/kernel"][0, 0], weights["resnet/head/conv2d/bias"]
    expected = before_the_mean @ head[0] + head[1]
    for (class_id, _, _), class_map in zip(explanation.classes, explanation.maps, strict=True):
        (index,) = predictor.spec.labels.indices_of([class_id])
        # Relative to the largest value of all maps, as everywhere in the project.
        error = np.abs(class_map - expected[..., index]).max() / np.abs(expected).max()
        assert error < 1e-5


def test_a_model_name_is_explained():
    assert_explains_its_predictions(load_predictor("bit_tiny.cifar10"), rel=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("hub", marks=pytest.mark.long),
        "tiny.onnx",
        pytest.param("openvino", marks=pytest.mark.long),
        pytest.param("tiny.tflite", marks=pytest.mark.long),
    ],
)
def test_an_artifact_with_class_maps_is_explained(classifier, tmp_path, name):
    path = tmp_path / name
    if name == "hub":
        export(classifier, path, "hub", input_range=(0, 1), class_maps=True)
    elif name == "openvino":
        export(classifier, path, "openvino", class_maps=True)
    elif name == "tiny.onnx":
        export(classifier, path, "onnx", class_maps=True)
    else:
        export(classifier, path, "tflite", input_range=(0, 1), class_maps=True)
    predictor = load_predictor(path)
    # Another graph sums float32 in another order.
    assert_explains_its_predictions(predictor, rel=1e-5)
    of_keras = create_class_maps(classifier).predict_on_batch(
        predictor.spec.transform(photo())[None]
    )
    explanation = predictor.explain(photo(), top=10)
    best = predictor.spec.labels.indices_of(list(scores(explanation.classes)))
    expected = np.moveaxis(of_keras[0], -1, 0)[best]
    assert explanation.maps == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_an_artifact_without_class_maps_says_how_to_get_them(classifier_artifact):
    predictor = load_predictor(classifier_artifact)
    assert predictor.class_maps is None
    with pytest.raises(BitKerasError, match="has no class maps; export the model again with"):
        predictor.explain(photo())


def test_a_image_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "notes.jpg").write_text("not an image")
    with pytest.raises(ImageError, match=r"notes\.jpg is not an image"):
        load_predictor("bit_tiny.cifar10").explain(tmp_path / "notes.jpg")


# Where the numbers are


def mirrored_kernels(model):
    """The network with every kernel, and so everything it does, the same from left and right."""
    for weight in model.weights:
        if len(weight.shape) == 4:
            values = keras.ops.convert_to_numpy(weight)
            weight.assign((values + values[:, ::-1]) / 2)
    return create_class_maps(model)


def test_position_i_is_centred_on_pixel_32_i():
    model = create_classifier("bit_tiny.cifar10", weights=None)
    fill_with_seeded_values(model)
    network = mirrored_kernels(model)

    def mirrored_difference(width):
        images = np.random.default_rng(0).uniform(-1, 1, (1, 65, width, 3)).astype("float32")
        maps = network.predict_on_batch(images)
        of_mirrored = network.predict_on_batch(images[:, :, ::-1])
        return np.abs(of_mirrored[:, :, ::-1] - maps).max() / np.abs(maps).max()

    # The middles 0, 32, 64, 96 and 128 are only symmetric in 129 pixels; they would in 160
    # if the middle of a position were that of 32 pixels.
    assert mirrored_difference(129) < 1e-5
    assert mirrored_difference(160) > 1e-2


def test_what_moves_by_32_pixels_moves_by_one_position():
    network = create_class_maps(create_classifier("bit_tiny.cifar10"))
    blank = np.zeros((1, 257, 257, 3), "float32")
    nothing = network.predict_on_batch(blank)[0]
    patch = np.random.default_rng(0).uniform(-1, 1, (31, 31, 3))
    for row, column in ((3, 3), (3, 4), (5, 4)):
        image = blank.copy()
        y, x = 32 * row, 32 * column
        image[0, y - 15 : y + 16, x - 15 : x + 16] = patch
        change = np.abs(network.predict_on_batch(image)[0] - nothing).sum(axis=-1)
        assert np.unravel_index(change.argmax(), change.shape) == (row, column)


def test_positions_are_given_in_pixels_of_the_upright_image(tmp_path):
    image = Image.fromarray(photo(height=90, width=180))
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    explanation = load_predictor("bit_tiny.cifar10").explain(tmp_path / "turned.png", top=1)
    assert explanation.name == "turned.png"
    assert explanation.image.size == (180, 90)
    # 64 of 72 pixels, to which both sides are squashed.
    assert explanation.region == (10.0, 5.0, 170.0, 85.0)
    across, down = explanation.positions
    assert across == pytest.approx(10 + np.array([0.5, 32.5]) * 160 / 64)
    assert down == pytest.approx(5 + np.array([0.5, 32.5]) * 80 / 64)


@pytest.mark.slow
def test_a_large_image_is_kept_small_and_everything_with_it():
    explanation = load_predictor("bit_tiny.cifar10").explain(photo(900, 3000), top=1)
    assert explanation.image.size == (512, 154)
    assert explanation.region == pytest.approx((512 / 18, 154 / 18, 512 * 17 / 18, 154 * 17 / 18))


# How they are drawn

WHITE, BLACK = (255,) * 3, (0,) * 3

#: Pixels per inch. Panels are 2 inches wide, 0.12 apart, and 0.15 from the border.
INCH = 120


def explanation(*maps, colour=WHITE, size=(200, 100), region=(100, 0, 200, 100), labels=None):
    labels = labels or [f"class {number}" for number in range(len(maps))]
    return Explanation(
        "",
        Image.new("RGB", size, colour),
        region,
        [(label, label, 0.5) for label in labels],
        np.array(maps, "float32").reshape(len(maps), 1, 1),
        32,
    )


def drawn(explained, folder):
    write_explanations([explained], folder / "out.png")
    return np.asarray(Image.open(folder / "out.png").convert("RGB")).astype(int)


def without_bar(pixels):
    # The bar and its numbers are right of the last panel.
    return pixels[:, : -round(0.7 * INCH)]


def box(mask):
    """Left, top, right and bottom of what is true."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_a_map_covers_the_region_and_nothing_else(tmp_path):
    pixels = without_bar(drawn(explanation(1.0, colour=BLACK), tmp_path))
    red = pixels[..., 0] - pixels[..., 2] > 60
    left, top, right, bottom = box(red)
    # The right half of an image that is twice as wide as high; its frame covers the edges.
    assert right - left == pytest.approx(INCH, abs=3)
    assert bottom - top == pytest.approx(INCH, abs=3)
    photo = box((pixels == 0).all(axis=2) & (np.arange(pixels.shape[1]) < 2.16 * INCH))
    assert photo[2] - photo[0] == pytest.approx(2 * INCH, abs=2)
    assert (photo[1], photo[3]) == pytest.approx((top, bottom), abs=3)
    # What was cropped away is pale, and is left of the map.
    assert pixels[(top + bottom) // 2, left - INCH // 2] == pytest.approx(204, abs=2)


def test_red_is_for_and_blue_is_against_on_one_scale(tmp_path):
    pixels = drawn(explanation(1.0, -1.0, 0.5, 0.0), tmp_path)
    middles = [round(INCH * (0.15 + column * 2.12 + 1.5)) for column in range(1, 5)]
    row = (pixels.shape[0] - round(INCH * 0.15)) - 40
    strong, against, weak, none = (pixels[row, middle] for middle in middles)
    assert strong[0] > strong[2] + 100
    assert against[2] > against[0] + 50
    assert strong[0] - strong[2] > weak[0] - weak[2] > 30
    assert none.tolist() == [255, 255, 255]


def test_interpolation_stays_between_the_values_of_the_positions(tmp_path):
    explained = explanation(0.0, size=(160, 160), region=(0, 0, 160, 160))
    maps = np.zeros((1, 5, 5), "float32")
    maps[0, 2, 2] = 1.0
    explained = Explanation(
        "", explained.image, explained.region, explained.classes, maps, size=160
    )
    pixels = without_bar(drawn(explained, tmp_path))
    # A single positive position has no blue around it, which a cubic interpolation would give.
    assert (pixels[..., 2] - pixels[..., 0]).max() <= 1
    strength = pixels[..., 0] - pixels[..., 2]
    left, top, right, bottom = box(strength > 10)
    corner = round(INCH * (0.15 + 2.12)), pixels.shape[0] - round(INCH * 2.15)
    centre = (left + right) / 2 - corner[0], (top + bottom) / 2 - corner[1]
    # Pixel 64 of 160, in a panel of 2 inches.
    assert centre == pytest.approx((64.5 * 2 * INCH / 160,) * 2, abs=3)


@pytest.mark.parametrize("label", ["W" * 300, "great white shark, white shark, man-eater " * 3])
def test_long_labels_stay_above_their_panels(tmp_path, label):
    pixels = drawn(explanation(0.0, 0.0, labels=[label, label]), tmp_path)
    title = pixels[: pixels.shape[0] - round(INCH * (1.0 + 0.15 + 0.2))]
    dark = np.flatnonzero((title < 128).all(axis=2).any(axis=0))
    first, second = (INCH * (0.15 + column * 2.12) for column in (1, 2))
    assert len(dark) > 100
    assert all(
        first - 1 <= x <= first + 2 * INCH + 1 or second - 1 <= x <= second + 2 * INCH + 1
        for x in dark
    )


def test_names_are_no_formulas(tmp_path):
    labels = [r"$x^{", r"$\frac{1}{2}$"]
    assert drawn(explanation(1.0, 2.0, labels=labels), tmp_path).size


@pytest.mark.parametrize(
    ("suffix", "start"),
    [(".png", b"\x89PNG"), (".JPG", b"\xff\xd8"), (".svg", b"<?xml"), (".pdf", b"%PDF")],
)
def test_the_suffix_decides_the_format(tmp_path, suffix, start):
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"what was there before")
    write_explanations([explanation(1.0), explanation(1.0, size=(50, 400))], path)
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("out.gif", r"out\.gif cannot be drawn: its suffix must be one of \.png, \.jpg"),
        ("out", "cannot be drawn: its suffix must be one of"),
        ("no/out.png", "no does not exist; create it first"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_before_any_work(tmp_path, name, sentence):
    with pytest.raises(BitKerasError, match=sentence):
        write_explanations([explanation(1.0)], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_too_many_images_for_one_plot_are_refused(tmp_path):
    require_drawing(tmp_path / "out.png", 50, 5)
    with pytest.raises(BitKerasError, match=r"10,000 images with 5 classes each could have"):
        require_drawing(tmp_path / "out.png", 10_000, 5)
    with pytest.raises(BitKerasError, match="explain fewer images or classes at once"):
        require_drawing(tmp_path / "out.png", 1, 1_000)


def test_an_empty_plot_is_refused(tmp_path):
    with pytest.raises(BitKerasError, match="nothing to draw"):
        write_explanations([], tmp_path / "out.png")


def test_a_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BitKerasError, match=r"matplotlib: pip install 'bit_keras\[explain\]'"):
        require_drawing(tmp_path / "out.png", 1, 5)
