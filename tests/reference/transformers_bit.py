"""transformers' BiT, an implementation that this project did not write, under the npz names."""

import numpy as np
import pytest


def import_torch():
    return pytest.importorskip("torch", reason="the second implementation runs on PyTorch")


def channels_last(tensor):
    return tensor.movedim(1, -1).numpy()


def channels_first(images):
    return import_torch().from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


def transformers_name(name):
    """Translate an npz name to the state dict of `BitForImageClassification`."""
    leaves = {"gamma": "weight", "beta": "bias", "kernel": "weight", "bias": "bias"}
    *folders, leaf = name.split("/")
    leaf = leaves[leaf]
    if folders[1] == "root_block":
        return f"bit.embedder.convolution.{leaf}"
    if folders[1] == "group_norm":
        return f"bit.norm.{leaf}"
    if folders[1] == "head":
        return f"classifier.1.{leaf}"
    _, block, unit, letter, *layer = folders
    layers = {"standardized_conv2d": "conv", "group_norm": "norm"}
    number = "abc".index(letter) + 1
    module = "downsample.conv" if layer[0] == "proj" else f"{layers[layer[0]]}{number}"
    stage, index = int(block.removeprefix("block")) - 1, int(unit.removeprefix("unit")) - 1
    return f"bit.encoder.stages.{stage}.layers.{index}.{module}.{leaf}"


def transformers_state(weights):
    torch = import_torch()
    state = {}
    for name, array in weights.items():
        if name == "resnet/head/conv2d/kernel":
            array = array[0, 0].T
        elif array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        state[transformers_name(name)] = torch.from_numpy(np.ascontiguousarray(array))
    return state


def transformers_model(weights, units, base_channels, groups):
    transformers = pytest.importorskip(
        "transformers", reason="transformers' BiT is the second implementation here"
    )
    # Its `width_factor` leaves the root, the final norm and the head at width 1, so the widths of a
    # wider network are written out (transformers, models/bit/modeling_bit.py).
    configuration = transformers.BitConfig(
        embedding_size=base_channels,
        hidden_sizes=[base_channels * 4 * 2**block for block in range(4)],
        depths=list(units),
        num_groups=groups,
        num_labels=weights["resnet/head/conv2d/bias"].size,
    )
    model = transformers.BitForImageClassification(configuration).double().eval()
    model.load_state_dict(transformers_state(weights), strict=True)
    return model


def standardized_convolutions(model):
    # Every convolution of this model is a standardised one.
    return [module for module in model.modules() if isinstance(module, import_torch().nn.Conv2d)]


def transformers_features(model, images):
    stem = []
    hook = model.bit.embedder.convolution.register_forward_hook(
        lambda module, arguments, output: stem.append(channels_last(output))
    )
    with import_torch().no_grad():
        outputs = model.bit(channels_first(images), output_hidden_states=True)
        logits = model.classifier(outputs.pooler_output)
    hook.remove()
    blocks = outputs.hidden_states[1:]
    return {
        "stem": stem[0],
        **{f"block{number}": channels_last(maps) for number, maps in enumerate(blocks, start=1)},
        "pre_logits_map": channels_last(outputs.last_hidden_state),
        "features": outputs.pooler_output.flatten(1).numpy(),
        "logits": logits.numpy(),
    }
