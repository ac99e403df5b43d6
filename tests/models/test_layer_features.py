"""Features of a stage: the right grid, pooled as a slow twin pools it, and to the known sizes."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.layer_features import LayerFeatures, layer_problems, nearest_cells

SLIM = BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 32]})
VIT = BackboneConfig(
    "vit_tiny_patch16_224", options={"depth": 3, "embed_dim": 24, "num_heads": 2, "img_size": 64}
)
SIZE = 96


@pytest.fixture
def slim() -> Backbone:
    torch.manual_seed(0)
    return Backbone(SLIM).eval()


def features_of(
    backbone: Backbone, layer: str, feature_size: int | None = None, *, image_size: int = SIZE
) -> LayerFeatures:
    options = {"layer": layer, "feature_size": feature_size, "image_size": image_size}
    return LayerFeatures(backbone, **options).eval()  # type: ignore[arg-type]


def pooled_cell_by_cell(grid: Tensor, cells: int) -> Tensor:
    """Adaptive average pooling by its definition: cell i begins at floor(i h / k)."""
    height, width = grid.shape[2:]
    spans = [
        [(i * n // cells, math.ceil((i + 1) * n / cells)) for i in range(cells)]
        for n in (height, width)
    ]
    means = [
        grid[:, channel, top:bottom, left:right].mean((1, 2))
        for channel in range(grid.shape[1])
        for top, bottom in spans[0]
        for left, right in spans[1]
    ]
    return torch.stack(means, 1)  # (B, C * cells * cells)


@pytest.mark.parametrize(
    ("layer", "module", "feature_size", "cells"),
    [("stage1", "layer1", 8 * 36, 6), ("stage2", "layer2", 100, 4), ("stage4", "layer4", 140, 2)],
)
@torch.no_grad()
def test_a_stage_is_pooled_as_cell_by_cell(
    slim: Backbone, layer: str, module: str, feature_size: int, cells: int
) -> None:
    found: list[Tensor] = []
    slim.cnn.get_submodule(module).register_forward_hook(lambda *call: found.append(call[2]))
    network = features_of(slim, layer, feature_size)
    images = torch.randn(2, 3, SIZE, SIZE)
    found.clear()
    features = network(images)
    assert network.cells == cells
    assert features.shape == (2, network.num_features)
    torch.testing.assert_close(features, pooled_cell_by_cell(found[0], cells))


@torch.no_grad()
def test_without_a_size_features_are_the_mean_of_the_grid(slim: Backbone) -> None:
    images = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(features_of(slim, "last")(images), slim.pooled(images))
    assert torch.equal(features_of(slim, "stage4")(images), slim.pooled(images))
    third = slim.stages(images, [16])[0].mean((2, 3))
    torch.testing.assert_close(features_of(slim, "stage3")(images), third)


@pytest.mark.parametrize("feature_size", [8192, 9000, 9216])
def test_a_resnet_50_gives_the_sizes_of_goyal_et_al(feature_size: int) -> None:
    channels = (256, 512, 1024, 2048)
    cells = [nearest_cells(number, feature_size) for number in channels]
    assert cells == [6, 4, 3, 2]


@torch.no_grad()
def test_the_stages_of_a_vit_are_its_blocks() -> None:
    vit = Backbone(VIT).eval()
    found: list[Tensor] = []
    vit.cnn.blocks[1].register_forward_hook(lambda *call: found.append(call[2]))
    features = features_of(vit, "stage2", image_size=64)(torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(features, found[-1][:, 1:].mean(1))


@pytest.mark.parametrize("layer", ["stage2", "last"])
def test_images_are_in_the_networks_own_normalization(slim: Backbone, layer: str) -> None:
    torch.manual_seed(0)
    own = Backbone(replace(SLIM, image_mean=(0.5, 0.4, 0.3), image_std=(0.5, 0.5, 0.4))).eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    expected = features_of(slim, layer)(own.renormalize(images))
    torch.testing.assert_close(features_of(own, layer)(images), expected)


def test_deeper_stages_are_not_run(slim: Backbone) -> None:
    network = features_of(slim, "stage2")
    slim.cnn.layer3.register_forward_hook(lambda *call: pytest.fail("layer3 ran"))
    network(torch.zeros(1, 3, SIZE, SIZE))


@pytest.mark.parametrize(
    ("layer", "feature_size", "message"),
    [
        ("stage5", None, "no layer 'stage5': its layers are stage1 to stage4, or last"),
        ("stage4", 31, "Give 32 to 288, another layer, or null"),
        ("last", 289, "3 x 3 cells of 32 channels for images of 96 px"),
    ],
)
def test_what_the_backbone_does_not_have_is_refused(
    slim: Backbone, layer: str, feature_size: int | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        features_of(slim, layer, feature_size)
    assert not slim.training


@pytest.mark.parametrize("layer", ["layer4", "stage0", "stage", "stage100", "Stage1", "", "4"])
def test_a_layer_that_none_has_is_refused_by_its_name(layer: str) -> None:
    (problem,) = layer_problems(layer, None)
    assert "must be last, or stage1, stage2" in problem


@pytest.mark.parametrize("feature_size", [0, -8192, 2**21])
def test_a_size_that_none_has_is_refused(feature_size: int) -> None:
    assert layer_problems("stage1", feature_size)
