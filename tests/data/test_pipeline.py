"""Batches: their order, what they are made of, and what a broken image does to them."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from bit_keras.data import image_dataset, open_images
from bit_keras.data.pipeline import eval_pipeline, mixup, require_readable, train_pipeline
from bit_keras.errors import DataError, SizeError
from bit_keras.preprocessing import EvalTransform, TrainTransform
from bit_keras.registry import Resizing

TRANSFORM = TrainTransform(32)
EVALUATION = EvalTransform(32, Resizing("squash", 32, "bilinear", "test"))


@pytest.fixture(scope="module")
def photos():
    """23 images of noise, in 3 classes; all views of them differ."""
    generator = np.random.default_rng(0)
    return open_images((generator.integers(0, 256, (23, 44, 40, 3), np.uint8), np.arange(23) % 3))


def batches(dataset):
    return [(images, targets) for images, targets in dataset.as_numpy_iterator()]


def assert_equal_batches(some, others):
    assert len(some) == len(others)
    for (images, targets), (other_images, other_targets) in zip(some, others, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(targets, other_targets)


def values_of(some):
    """The grey values that the images of batches had before they were scaled."""
    return [round((float(image[0, 0, 0]) + 1) * 127.5) for images, _ in some for image in images]


# The order of training


def test_batches_are_what_the_network_takes(photos):
    dataset = train_pipeline(photos, TRANSFORM, 8, seed=0, stop=3)
    assert len(dataset) == 3
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[8, 32, 32, 3], [8, 3]]
    for images, targets in batches(dataset):
        assert (images.dtype, targets.dtype) == (np.float32, np.float32)
        assert -1 <= images.min() < -0.9
        assert 0.9 < images.max() <= 1
        assert set(np.unique(targets)) == {0, 1}
        assert targets.sum(axis=1).tolist() == [1.0] * 8


def test_view_is_scaled_as_evaluation_does():
    pixels = np.arange(256, dtype=np.uint8)[:, None, None, None]
    data = open_images((np.tile(pixels, (1, 32, 32, 3)), np.arange(256) % 2))
    ((images, _),) = batches(train_pipeline(data, TRANSFORM, 256, seed=0, stop=1))
    # NumPy 1 makes float64 of a float32 scalar and a Python integer.
    one, half = np.float32(1), np.float32(127.5)
    expected = {float(np.float32(value) / half - one) for value in range(256)}
    assert {float(image[0, 0, 0]) for image in images} == expected


def test_every_image_comes_once_in_each_epoch_in_another_order(greys):
    pixels, labels = greys(23)
    data = open_images((pixels, labels))
    # 23 batches of 5 are 5 epochs of 23; most epochs end within a batch.
    some = batches(train_pipeline(data, TRANSFORM, 5, seed=0, stop=23))
    epochs = np.reshape(values_of(some), (5, 23))
    assert (np.sort(epochs) == np.arange(23)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 5
    targets = np.concatenate([targets for _, targets in some]).argmax(axis=1)
    np.testing.assert_array_equal(targets, epochs.ravel() % 2)


@pytest.mark.parametrize("mixup_alpha", [0.0, 0.3])
def test_resumes_in_the_middle_of_an_epoch(photos, mixup_alpha):
    def part(start, stop):
        return batches(
            train_pipeline(
                photos, TRANSFORM, 8, seed=5, start=start, stop=stop, mixup_alpha=mixup_alpha
            )
        )

    whole = part(0, 9)
    for start in (1, 4, 8):
        assert_equal_batches(part(start, 9), whole[start:])
    assert part(9, 9) == []


def test_number_of_threads_does_not_matter(photos):
    some = []
    for threads in (1, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        dataset = train_pipeline(photos, TRANSFORM, 8, seed=0, stop=20, mixup_alpha=0.2)
        some.append(batches(dataset.with_options(options)))
    assert_equal_batches(*some)


def test_size_of_the_batch_does_not_change_the_images(photos):
    small = batches(train_pipeline(photos, TRANSFORM, 3, seed=0, stop=20))
    large = batches(train_pipeline(photos, TRANSFORM, 20, seed=0, stop=3))
    np.testing.assert_array_equal(
        np.concatenate([images for images, _ in small]),
        np.concatenate([images for images, _ in large]),
    )


@pytest.mark.long
def test_another_process_gets_the_same(photos, tmp_path):
    script = f"""
import numpy as np
from bit_keras.data import open_images
from bit_keras.data.pipeline import train_pipeline
from bit_keras.preprocessing import TrainTransform
pixels = np.random.default_rng(0).integers(0, 256, (23, 44, 40, 3), np.uint8)
data = open_images((pixels, np.arange(23) % 3))
dataset = train_pipeline(data, TrainTransform(32), 8, seed=3, start=2, stop=3, mixup_alpha=0.2)
for images, targets in dataset.as_numpy_iterator():
    np.savez({str(tmp_path / "batch.npz")!r}, images=images, targets=targets)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    other = np.load(tmp_path / "batch.npz")
    here = batches(train_pipeline(photos, TRANSFORM, 8, seed=3, start=2, stop=3, mixup_alpha=0.2))
    assert_equal_batches(here, [(other["images"], other["targets"])])


def test_another_seed_gives_another_order_and_other_views(greys, photos):
    orders = [
        values_of(batches(train_pipeline(open_images(greys(23)), TRANSFORM, 23, seed=seed, stop=1)))
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1]
    one = open_images((np.asarray(photos[0])[None].repeat(2, axis=0), [0, 1]))
    views = [batches(train_pipeline(one, TRANSFORM, 2, seed=seed, stop=1))[0][0] for seed in (0, 1)]
    assert not np.array_equal(*views)


def test_continues_without_end_where_no_stop_is_given(photos):
    dataset = train_pipeline(photos, TRANSFORM, 8, seed=0)
    assert dataset.cardinality().numpy() == tf.data.INFINITE_CARDINALITY
    start = train_pipeline(photos, TRANSFORM, 8, seed=0, stop=20)
    assert_equal_batches(batches(dataset.take(20)), batches(start))


# Mixup


def coefficients(plain, mixed):
    """The share of each image in its mixed target, which is that of its first class."""
    shares = []
    for (_, targets), (_, mixed_targets) in zip(plain, mixed, strict=True):
        partners = np.roll(targets, 1, axis=0)
        differ = (targets != partners).any(axis=1)
        shares.append(set((mixed_targets * targets).sum(axis=1)[differ].tolist()))
    return shares


def test_mixup_is_that_of_numpy_with_one_coefficient_per_batch(photos):
    plain = batches(train_pipeline(photos, TRANSFORM, 8, seed=1, stop=12))
    mixed = batches(train_pipeline(photos, TRANSFORM, 8, seed=1, stop=12, mixup_alpha=0.5))
    shares = coefficients(plain, mixed)
    assert all(len(share) == 1 for share in shares)
    assert len(set.union(*shares)) == 12
    for (images, targets), (mixed_images, mixed_targets), (share,) in zip(
        plain, mixed, shares, strict=True
    ):
        share = np.float32(share)
        rest = np.float32(1) - share
        np.testing.assert_array_equal(
            mixed_targets, share * targets + rest * np.roll(targets, 1, axis=0)
        )
        # One rounding more or less, where the product and the sum are one instruction.
        np.testing.assert_allclose(
            mixed_images, share * images + rest * np.roll(images, 1, axis=0), rtol=0, atol=1.2e-7
        )


def test_coefficients_are_beta_distributed(photos):
    one_class_each = open_images((np.zeros((2, 32, 32, 3), np.uint8), [0, 1]))
    dataset = train_pipeline(one_class_each, TRANSFORM, 2, seed=0, stop=600, mixup_alpha=0.5)
    shares = np.array([targets[0].max() for _, targets in batches(dataset)])
    # Beta(0.5, 0.5) is the arcsine law: P(max(c, 1 - c) > (1 + 2^-0.5) / 2) = 1/2, with a
    # standard deviation of 0.02 for 600 seeded samples.
    assert abs(np.mean(shares > 0.8536) - 0.5) < 0.06


def test_batches_of_one_step_share_the_coefficient(photos):
    options = {"seed": 1, "start": 2, "stop": 10}
    plain = batches(train_pipeline(photos, TRANSFORM, 4, **options))
    mixed = batches(
        train_pipeline(photos, TRANSFORM, 4, mixup_alpha=0.5, images_per_step=12, **options)
    )
    (first,), *rest = [tuple(share) for share in coefficients(plain, mixed)]
    # Batches 2; 3, 4, 5; 6, 7, 8; 9: three to a step.
    shares = [first, *(share for (share,) in rest)]
    assert len(set(shares)) == 4
    assert [len(set(shares[low : low + 3])) for low in (1, 4)] == [1, 1]


def test_mixup_pairs_each_image_with_the_one_before():
    images = np.arange(3, dtype=np.float32)[:, None, None, None]
    mixed, targets = mixup(images, np.eye(3, dtype=np.float32), 0.75)
    assert mixed.numpy().ravel().tolist() == [0.5, 0.75, 1.75]
    assert targets.numpy().tolist() == [[0.75, 0, 0.25], [0.25, 0.75, 0], [0, 0.25, 0.75]]


# Evaluation


@pytest.mark.parametrize(("count", "batch"), [(23, 4), (23, 32), (32, 8), (16, 5), (1, 3)])
def test_evaluation_takes_every_image_once_and_in_order(greys, count, batch):
    some = batches(eval_pipeline(open_images(greys(count)), EVALUATION, batch))
    assert np.concatenate([indices for _, indices in some]).tolist() == list(range(count))
    assert values_of(some) == list(range(count))
    assert [len(images) for images, _ in some[:-1]] == [batch] * (len(some) - 1)
    assert len(some) == -(-count // batch)


def test_evaluation_gives_what_the_transform_gives(photos):
    ((images, indices),) = batches(eval_pipeline(photos, EVALUATION, 23))
    np.testing.assert_array_equal(images, [EVALUATION(photos[index]) for index in indices])
    assert images.dtype == np.float32


# Images that cannot be read


@pytest.fixture(params=["folder", "tar"])
def broken(request, make_folder, make_tar, encoded):
    """60 images, 3 of them (5 %) truncated, and the names of these 3."""
    files = {
        f"{'dog' if value % 2 else 'cat'}/{value:02d}.jpg": encoded(value) for value in range(60)
    }
    names = ["cat/04.jpg", "dog/31.jpg", "dog/33.jpg"]
    for name in names:
        files[name] = files[name][:-10]
    return open_images((make_folder if request.param == "folder" else make_tar)(files)), names


def test_training_replaces_truncated_images_and_names_them(broken):
    images, names = broken
    dataset = train_pipeline(images, TRANSFORM, 10, seed=0, stop=6)
    some = batches(dataset)
    assert sorted(images.unreadable) == names
    assert all("truncated" in reason for reason in images.unreadable.values())
    # In the order of names: 04 is followed by 06; 31 and 33, which are consecutive, by 35.
    readable = {*range(60)} - {4, 31, 33}
    assert sorted(values_of(some)) == sorted([*readable, 6, 35, 35])
    targets = np.concatenate([targets for _, targets in some]).argmax(axis=1)
    np.testing.assert_array_equal(targets, np.array(values_of(some)) % 2)
    require_readable(images)


def test_resumes_over_truncated_images(broken):
    images, _ = broken
    whole = batches(train_pipeline(images, TRANSFORM, 10, seed=0, stop=9))
    rest = batches(train_pipeline(images, TRANSFORM, 10, seed=0, start=5, stop=9))
    assert_equal_batches(rest, whole[5:])


def test_evaluation_omits_truncated_images_and_names_them(broken):
    images, names = broken
    some = batches(eval_pipeline(images, EVALUATION, 10))
    indices = np.concatenate([indices for _, indices in some])
    assert [images.names[index] for index in indices] == [
        name for name in images.names if name not in names
    ]
    assert [len(images) for images, _ in some] == [10, 10, 10, 10, 10, 7]
    assert sorted(images.unreadable) == names


def test_file_that_vanishes_is_omitted(make_folder, encoded):
    root = make_folder({f"cat/{value}.jpg": encoded(value) for value in range(3)})
    images = open_images(root)
    (root / "cat" / "1.jpg").unlink()
    ((_, indices),) = batches(eval_pipeline(images, EVALUATION, 4))
    assert indices.tolist() == [0, 2]
    assert "No such file" in images.unreadable["cat/1.jpg"]


def test_training_ends_where_most_images_are_unreadable(make_folder, encoded):
    images = open_images(
        make_folder(
            {
                f"{'dog' if value % 2 else 'cat'}/{value}.jpg": encoded(value)
                if value < 4
                else b"no image"
                for value in range(10)
            }
        )
    )
    with pytest.raises(tf.errors.OpError, match=r"More than half.* of 10"):
        batches(train_pipeline(images, TRANSFORM, 5, seed=0, stop=4))
    with pytest.raises(DataError, match=r"\d of 10; .* is not an image"):
        require_readable(images)


def test_evaluation_of_unreadable_images_is_empty(make_folder, encoded):
    root = make_folder({f"cat/{value}.jpg": encoded(value) for value in range(20)})
    images = open_images(root)
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"no")
    assert sum(len(indices) for _, indices in batches(eval_pipeline(images, EVALUATION, 4))) == 0
    assert len(images.unreadable) == 20


# Wrong arguments


def test_one_class_cannot_be_trained_but_evaluated(make_folder, encoded):
    images = open_images(make_folder({f"cat/{value}.jpg": encoded(value) for value in range(3)}))
    with pytest.raises(DataError, match=r"two classes.*3 images, all of 'cat'"):
        train_pipeline(images, TRANSFORM, 2, seed=0)
    assert len(batches(eval_pipeline(images, EVALUATION, 4))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch": 0}, "`batch`.*batch=0"),
        ({"images_per_step": 12}, "images_per_step=12, batch=8"),
        ({"images_per_step": 0}, "images_per_step=0, batch=8"),
        ({"start": -1}, "start=-1, stop=None"),
        ({"start": 3, "stop": 2}, "start=3, stop=2"),
        ({"mixup_alpha": -0.1}, "mixup_alpha=-0.1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_invalid_arguments_are_an_error(photos, arguments, message):
    with pytest.raises(DataError, match=message):
        train_pipeline(photos, TRANSFORM, **{"batch": 8, "seed": 0} | arguments)


def test_evaluation_needs_a_batch(photos):
    with pytest.raises(DataError, match=r"`batch` must be at least 1.*=0"):
        eval_pipeline(photos, EVALUATION, 0)


# The one call


def test_one_call_gives_what_the_parts_give(make_folder, encoded):
    root = make_folder(
        {f"train/{name}/{value}.jpg": encoded(value) for value in range(6) for name in "ab"}
    )
    options = {"size": 32, "batch": 4, "split": "train"}
    images = open_images(root, "train")
    dataset = image_dataset(root, training=True, seed=3, mixup_alpha=0.2, **options)
    parts = train_pipeline(images, TRANSFORM, 4, seed=3, stop=5, mixup_alpha=0.2)
    assert_equal_batches(batches(dataset.take(5)), batches(parts))
    some = batches(image_dataset(images, **options))
    assert (
        np.concatenate([targets for _, targets in some]).argmax(axis=1).tolist()
        == [0] * 6 + [1] * 6
    )
    assert values_of(some) == [*range(6), *range(6)]


def test_one_call_passes_crop_and_flip_on(photos):
    options = {"size": 32, "batch": 4, "training": True}
    (inception,) = batches(image_dataset(photos, crop="inception", flip=False, **options).take(1))
    transform = TrainTransform(32, "inception", flip=False)
    assert_equal_batches([inception], batches(train_pipeline(photos, transform, 4, seed=0, stop=1)))
    with pytest.raises(SizeError, match="needs a precrop"):
        image_dataset(photos, precrop=16, **options)


def test_keras_trains_on_it_on_every_backend(photos):
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=False)
    history = model.fit(
        image_dataset(photos, size=32, batch=8, training=True, mixup_alpha=0.1),
        validation_data=image_dataset(photos, size=32, batch=8),
        steps_per_epoch=3,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()
