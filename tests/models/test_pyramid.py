"""The pyramid on a ViT's only grid, and networks that take images of any size."""

import pytest
import torch

from virtex.errors import ConfigError
from virtex.models.any_size import of_any_size
from virtex.models.backbone import Backbone
from virtex.models.backbone_config import BackboneConfig
from virtex.models.pyramid import SimplePyramid
from virtex.models.region_heads import RegionConfig, build_mask_rcnn


@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_a_grid_of_any_stride_gives_all_levels(stride: int) -> None:
    pyramid = SimplePyramid(stride, 32, 16).eval()
    maps = pyramid([torch.randn(2, 32, 64 // stride, 96 // stride)])
    assert list(maps) == ["4", "8", "16", "32", "pool"]
    assert pyramid.strides == (4, 8, 16, 32, 64)
    shapes = [tuple(one.shape) for one in maps.values()]
    assert shapes == [(2, 16, 64 // s, -(-96 // s)) for s in pyramid.strides]


def test_the_levels_of_stride_16_are_the_paper_s() -> None:
    finest, finer, same, coarser = SimplePyramid(16, 32, 16).levels
    kinds = [[type(layer).__name__ for layer in level] for level in (finest, finer, same, coarser)]
    ends = ["Conv2d", "LayerNorm2d", "Conv2d", "LayerNorm2d"]
    doubled = ["ConvTranspose2d"]
    assert kinds[0] == [*doubled, "LayerNorm2d", "GELU", *doubled, *ends]
    assert kinds[1:] == [[*doubled, *ends], ends, ["MaxPool2d", *ends]]
    channels = [layer.in_channels for layer in finest if hasattr(layer, "in_channels")]
    assert channels == [32, 16, 8, 16]


def test_patches_of_another_side_are_refused() -> None:
    with pytest.raises(ConfigError, match="these have 14"):
        SimplePyramid(14, 32, 16)


def test_a_vit_s_anchors_have_the_sizes_of_a_resnet_s() -> None:
    vit = Backbone(BackboneConfig("vit_tiny_patch16_224", options={"depth": 1}))
    resnet = Backbone(BackboneConfig("resnet18", options={"layers": [1, 1, 1, 1]}))
    small = RegionConfig(pyramid_channels=16, box_width=16)
    detectors = [
        build_mask_rcnn(one, small, num_categories=2, with_masks=True).eval()
        for one in (vit, resnet)
    ]
    found = []
    for detector in detectors:
        maps = detector.maps(torch.zeros(1, 3, 64, 96))
        found.append(torch.cat(detector.proposals.anchor_generator.levels(list(maps.values()))))
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("name", "options", "is_changed"),
    [
        ("resnet18", {"layers": [1, 1, 1, 1]}, False),
        ("vit_tiny_patch16_224", {"depth": 1}, False),
        ("swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1], "img_size": 64}, True),
    ],
)
def test_a_network_takes_any_size_with_the_same_weights(
    name: str, options: dict[str, object], is_changed: bool
) -> None:
    config = BackboneConfig(name, options=options)
    changed = of_any_size(config)
    assert (changed == config) != is_changed
    before, after = Backbone(config).eval(), Backbone(changed).eval()
    after.load_state_dict(before.state_dict())
    own = torch.randn(1, 3, before.own_size, before.own_size)
    torch.testing.assert_close(after(own), before(own))
    stride = before.stride
    assert after(torch.randn(1, 3, 3 * stride, 5 * stride)).shape[2:] == (3, 5)


def test_a_network_of_one_size_is_refused() -> None:
    config = BackboneConfig("resmlp_12_224")
    Backbone(config)
    with pytest.raises(ConfigError, match="takes images of one size alone"):
        of_any_size(config)
