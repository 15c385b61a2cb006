"""decode_predictions: hand-computed scores, every type of name, every mistake."""

import math

import numpy as np
import pytest

from bit_keras.errors import BitKerasError, DecodingError, UnknownModelError
from bit_keras.preprocessing import Labels, decode_predictions

STUDENT = "bit_r50x1.distilled_in1k_224"


def test_softmax_scores_by_hand():
    # exp: 1, 2, 5 -> 1/8, 2/8, 5/8.
    (best,) = decode_predictions([[0.0, math.log(2), math.log(5)]], ["a", "b", "c"])
    assert [entry[:2] for entry in best] == [("c", "c"), ("b", "b"), ("a", "a")]
    assert [entry[2] for entry in best] == pytest.approx([0.625, 0.25, 0.125], rel=1e-15)


def test_imagenet_1k_is_softmax():
    logits = np.zeros((1, 1000), np.float32)
    logits[0, 281] = math.log(999)
    ((best, second),) = decode_predictions(logits, STUDENT, top=2)
    assert best == ("n02123045", "tabby, tabby cat", pytest.approx(0.5, rel=1e-7))
    assert second == ("n01440764", "tench, Tinca tinca", pytest.approx(0.5 / 999, rel=1e-7))


def test_imagenet_21k_is_sigmoid():
    logits = np.full((1, 21843), -50.0)
    logits[0, [359, 0]] = math.log(3), 0.0
    ((best, second, third),) = decode_predictions(logits, "BiT-M-R50x1", top=3)
    assert best == ("n01440764", "tench, Tinca tinca", pytest.approx(0.75, rel=1e-15))
    assert second == ("n00004475", "organism, being", pytest.approx(0.5, rel=1e-15))
    assert third[2] == pytest.approx(math.exp(-50), rel=1e-12)


def test_extreme_logits_neither_overflow_nor_lose_their_order():
    logits = np.full((1, 21843), -1e30)
    logits[0, [5, 7]] = 800.0, 900.0
    ((best, second, third),) = decode_predictions(logits, "BiT-M-R50x1", top=3)
    assert [best[0], second[0]] == ["n00021265", "n00015388"]
    assert (best[2], second[2], third[2]) == (1.0, 1.0, 0.0)
    ((first, last),) = decode_predictions([1e5, -1e5], ["a", "b"])
    assert (first, last) == (("a", "a", 1.0), ("b", "b", 0.0))


def test_equal_logits_come_in_the_order_of_the_classes():
    (best,) = decode_predictions(np.zeros((1, 10)), "bit_tiny.cifar10", top=3)
    assert [entry[0] for entry in best] == ["airplane", "automobile", "bird"]
    assert best[0][2] == pytest.approx(0.1, rel=1e-15)


def test_each_image_has_its_own_list():
    decoded = decode_predictions(np.eye(10)[[3, 9]], "bit_tiny.cifar10", top=1)
    assert [[entry[0] for entry in image] for image in decoded] == [["cat"], ["truck"]]
    assert all(type(entry[2]) is float for image in decoded for entry in image)


def test_one_image_without_a_batch_axis():
    logits = np.arange(10.0)
    assert decode_predictions(logits, "bit_tiny.cifar10") == decode_predictions(
        logits[None], "bit_tiny.cifar10"
    )


def test_empty_batch():
    assert decode_predictions(np.zeros((0, 10)), "bit_tiny.cifar10") == []


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
def test_dtypes(dtype):
    (best,) = decode_predictions(np.array([[1, 3, 2]], dtype), ["a", "b", "c"], top=1)
    assert best[0] == ("b", "b", pytest.approx(1 / (1 + math.exp(-1) + math.exp(-2)), rel=1e-15))


def test_torch_tensor_with_gradient_in_bfloat16():
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[0.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    assert decode_predictions(logits, ["a", "b"], top=1)[0][0][0] == "b"


def test_own_labels_and_fewer_classes_than_top():
    (best,) = decode_predictions([[2.0, 1.0]], Labels("pets", ("p0", "p1"), ("cat", "dog")))
    assert [entry[:2] for entry in best] == [("p0", "cat"), ("p1", "dog")]
    (best,) = decode_predictions([[1.0, 2.0]], np.array(["cat", "dog"]))
    assert [entry[:2] for entry in best] == [("dog", "dog"), ("cat", "cat")]


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("bit_r152x2.teacher_pet_128", 37),
        ("BiT-M-R50x1-run0-svhn", 10),
        ("BiT-M-R50x1-run0-dsprites-xpos", 16),
    ],
)
def test_heads_without_a_published_list_number_their_classes(name, width):
    logits = np.zeros(width)
    logits[1] = 1.0
    assert decode_predictions(logits, name, top=1)[0][0][:2] == ("class_1", "class_1")


@pytest.mark.parametrize(
    ("logits", "name", "message"),
    [
        (np.zeros((1, 7)), STUDENT, r"have 7 classes and bit_r50x1\S+ \(imagenet_1k\) has 1000"),
        (np.zeros((1, 3)), ["a", "b"], "have 3 classes and the list of labels has 2"),
        (np.zeros((1, 9)), "BiT-M-R50x1-run0-svhn", "have 9 classes and .*svhn_run0 has 10"),
        (np.zeros((1, 7, 7, 1000)), STUDENT, r"\(batch, classes\).*\(1, 7, 7, 1000\)"),
        (np.float32(1), STUDENT, r"\(batch, classes\).*\(\)"),
        (np.zeros((1, 0)), [], r"\(1, 0\)"),
        ([["a", "b"]], ["a", "b"], "not an array of numbers"),
        ([[0.0, 1.0], [0.0]], ["a", "b"], "not an array of numbers"),
        ([[0, 1], [0, np.nan], [np.inf, 0]], ["a", "b"], "2 of 3 images .* first is image 1"),
        ([[0, 1]], {"a", "b"}, "a list of strings or a Labels.*set"),
        ([[0, 1]], [0, 1], "list"),
    ],
)
def test_mistakes_are_named(logits, name, message):
    with pytest.raises(DecodingError, match=message):
        decode_predictions(logits, name)


def test_a_head_that_was_cut_down_is_decoded_by_the_ids_it_keeps():
    classes = ["n01443537", "n01440764", "n00004475"]
    ((best, *_),) = decode_predictions([0.0, 2.0, -2.0], "BiT-M-R50x1", classes=classes)
    assert best[:2] == ("n01440764", "tench, Tinca tinca")
    # Each sigmoid is on its own, as with all the others next to it.
    assert best[2] == pytest.approx(1 / (1 + np.exp(-2)))
    ((best, other),) = decode_predictions([0.0, np.log(3)], STUDENT, classes=classes[:2])
    assert (best[0], other[0]) == ("n01440764", "n01443537")
    assert (best[2], other[2]) == pytest.approx((0.75, 0.25))


def test_a_selection_must_fit_the_logits_and_the_class_list():
    with pytest.raises(DecodingError, match="have 3 classes and `classes` has 1"):
        decode_predictions([0.0, 1.0, 2.0], STUDENT, classes=["n01440764"])
    with pytest.raises(BitKerasError, match=r"not among the 1000 classes of imagenet_1k \(cat\)"):
        decode_predictions([0.0], STUDENT, classes=["cat"])


@pytest.mark.parametrize("top", [0, -1, 2.0, True, None])
def test_top_out_of_range(top):
    with pytest.raises(DecodingError, match="`top` must be an integer from 1"):
        decode_predictions(np.zeros(10), "bit_tiny.cifar10", top=top)


def test_unknown_model():
    with pytest.raises(UnknownModelError, match=r"no model 'bit_r50x1\.in22k'"):
        decode_predictions(np.zeros(10), "bit_r50x1.in22k")
