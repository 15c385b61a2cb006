"""What this package writes, loaded by timm and transformers themselves."""

import numpy as np
import pytest

import bit_keras
from bit_keras.checkpoints import fill_with_seeded_values
from tests.photos import photo_files

NAMES = [
    pytest.param("bit_tiny.cifar10", marks=pytest.mark.long),
    # At full size, test_resnet_v2.py compares the logits with transformers more often.
    pytest.param("bit_r50x1.distilled_in1k_224", marks=pytest.mark.full),
]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="timm and transformers run on PyTorch")


@pytest.fixture(scope="module", params=NAMES)
def network(request):
    network = bit_keras.create_classifier(request.param, weights=None)
    fill_with_seeded_values(network)
    return network


@pytest.fixture(scope="module")
def images():
    transform = bit_keras.eval_transform("bit_r50x1.distilled_in1k_224")
    return np.stack([transform(path) for path in photo_files()])


@pytest.fixture(scope="module")
def logits(network, images):
    return network.predict(images, batch_size=8, verbose=0)


def results(torch, model, images):
    """The logits that a PyTorch model gives for channels-last images."""
    batches = np.array_split(np.ascontiguousarray(np.moveaxis(images, -1, 1)), len(images) // 8 + 1)
    with torch.no_grad():
        outputs = [model.eval()(torch.from_numpy(batch)) for batch in batches]
    return np.concatenate([getattr(output, "logits", output).numpy() for output in outputs])


def assert_agree(found, expected):
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))


def test_transformers_loads_every_weight_and_agrees(network, images, logits, torch, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it is what loads the folder")
    bit_keras.save_weights(network, tmp_path / "model", format="transformers")
    model, report = transformers.BitForImageClassification.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(report.values()), report
    assert_agree(results(torch, model, images), logits)
    names = bit_keras.preprocessing.spec_of(network.name).labels.names
    assert tuple(model.config.id2label[index] for index in range(len(names))) == names


def test_transformers_loads_a_network_without_its_head(network, images, torch, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it is what loads the folder")
    extractor = bit_keras.create_feature_extractor(network.name, weights=None)
    fill_with_seeded_values(extractor)
    bit_keras.save_weights(extractor, tmp_path / "model", format="transformers")
    model, report = transformers.BitModel.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(report.values()), report
    with torch.no_grad():
        photos = torch.from_numpy(np.ascontiguousarray(np.moveaxis(images[:4], -1, 1)))
        found = model.eval()(photos).pooler_output.flatten(1).numpy()
    expected = extractor.predict(images[:4], verbose=0)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_transformers_saves_comes_back_to_the_bit(network, torch, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it writes the folder")
    bit_keras.save_weights(network, tmp_path / "ours", format="transformers")
    model = transformers.BitForImageClassification.from_pretrained(tmp_path / "ours")
    model.save_pretrained(tmp_path / "theirs")
    again = bit_keras.create_classifier(network.name, weights=tmp_path / "theirs")
    for expected, found in zip(network.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_transformers_prepares_images_as_the_network_was_trained(network, images, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it reads the preprocessor")
    from PIL import Image

    bit_keras.save_weights(network, tmp_path / "model", format="transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "model", use_fast=False)
    transform = bit_keras.eval_transform(network.name)
    for path in photo_files()[:4]:
        with Image.open(path) as photo:
            found = processor(photo, return_tensors="np")["pixel_values"][0]
        # A step of 8 bits is 2 / 255: the processor rounds the side and the crop otherwise.
        difference = np.abs(np.moveaxis(found, 0, -1) - transform(path))
        assert difference.mean() < 2 / 255


def test_timm_loads_every_weight_and_agrees(network, images, logits, torch, tmp_path):
    resnetv2 = pytest.importorskip("timm.models.resnetv2", reason="it is what loads the file")
    import functools

    from safetensors.torch import load_file
    from timm.layers import StdConv2d

    architecture = bit_keras.model_info(network.name).architecture
    model = resnetv2.ResNetV2(
        layers=architecture.units,
        channels=[architecture.block_filters(block) for block in (1, 2, 3, 4)],
        num_classes=network.output_shape[-1],
        stem_chs=architecture.stem_filters,
        stem_type="fixed",
        conv_layer=functools.partial(StdConv2d, eps=1e-8),
    )
    bit_keras.save_weights(network, tmp_path / "x.safetensors", format="timm")
    report = model.load_state_dict(load_file(tmp_path / "x.safetensors"), strict=True)
    assert not report.missing_keys and not report.unexpected_keys
    assert_agree(results(torch, model, images), logits)
