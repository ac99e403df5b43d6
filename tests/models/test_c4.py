"""Faster R-CNN on one grid, its head the backbone's last stage."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from tests.models.padded_targets import padded
from tests.models.small import SLIM
from tests.models.test_region_heads import check_against_modules
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.c4 import build_c4
from virtex.models.region_heads import RegionConfig, RegionDetector

SIZE = 96
SMALL = RegionConfig(num_anchors=32, num_regions=16, num_proposals=40, num_test_proposals=30)


def small_c4(config: RegionConfig = SMALL, **options) -> RegionDetector:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM, **options))
    return build_c4(backbone, config, num_categories=5)


def small_batch() -> tuple:
    """Images (3, 3, 96, 96), sizes, and targets, of which the last is empty."""
    images = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    boxes = [[[4.0, 6, 50, 60], [20, 20, 90, 80]], [[1.0, 2, 60, 42]], []]
    labels = [[1, 5], [3], []]
    targets = [
        {"boxes": torch.tensor(corners).reshape(-1, 4), "labels": torch.tensor(ids).long()}
        for corners, ids in zip(boxes, labels, strict=True)
    ]
    return images, [(SIZE, SIZE)] * 3, targets


def losses_of(detector: RegionDetector, *, num_images: int = 3) -> dict[str, Tensor]:
    rows = slice(3 - num_images, 3)
    images, sizes, targets = (part[rows] for part in small_batch())
    return detector.losses(images, torch.tensor(sizes), padded(targets))


def test_losses_and_gradients_of_all_anchors_and_regions_are_those_of_torchvisions_modules():
    everything = dataclasses.replace(SMALL, num_anchors=1000, num_regions=1000, num_candidates=200)
    detector = small_c4(everything).eval()
    check_against_modules(detector, everything, small_batch(), losses_of(detector))


def test_each_cell_has_fifteen_anchors_of_32_to_512_pixels_sixteen_apart():
    detector = small_c4()
    images, sizes, _ = small_batch()
    maps = detector.maps(images)
    assert [tuple(part.shape) for part in maps.values()] == [(3, 16, 6, 6)]
    anchors, *_ = detector.proposals.anchor_generator(ImageList(images, sizes), [*maps.values()])
    assert anchors.shape == (6 * 6 * 15, 4)
    widths, heights = (anchors[:15, 2:] - anchors[:15, :2]).T
    sides = torch.tensor([32.0, 64, 128, 256, 512]).repeat(3)
    torch.testing.assert_close((widths * heights).sqrt(), sides)
    shapes = torch.tensor([0.5, 1, 2]).repeat_interleave(5)
    torch.testing.assert_close(heights / widths, shapes)
    shift = torch.tensor([16.0, 0, 16, 0]).expand(15, 4)
    torch.testing.assert_close(anchors[15:30] - anchors[:15], shift)


def test_numbers_of_proposals_are_detectron2s_by_default():
    numbers = [
        (proposals.pre_nms_top_n(), proposals.post_nms_top_n())
        for config in (RegionConfig(), RegionConfig(num_candidates=9, num_test_proposals=7))
        for proposals in (small_c4(config).proposals, small_c4(config).eval().proposals)
    ]
    assert numbers == [(12_000, 2_000), (6_000, 1_000), (9, 2_000), (6_000, 7)]


def test_a_region_goes_through_the_last_stage_a_norm_and_the_mean():
    detector = small_c4().eval()
    images, _, _ = small_batch()
    nn.init.normal_(detector.heads.box_head.norm.weight)
    nn.init.normal_(detector.heads.box_head.norm.running_mean)
    maps = detector.maps(images)
    boxes = [torch.tensor([[3.0, 5, 70, 33]]), torch.tensor([[0.0, 0, 96, 96], [8, 8, 50, 60]])]
    read = detector.heads.box_roi_pool(maps, boxes)
    assert read.shape == (3, 16, 14, 14)
    assert torch.equal(read, roi_align(maps["16"], boxes, 14, 1 / 16, 0, aligned=True))
    stage, norm = detector.backbone.cnn.layer4, detector.heads.box_head.norm
    expected = norm(stage(read)).mean((2, 3))  # (3, 16)
    assert stage(read).shape[2:] == (7, 7)
    assert torch.equal(detector.heads.box_head(read), expected)


def test_losses_give_every_parameter_a_gradient_also_without_objects():
    detector = small_c4()
    losses = losses_of(detector)
    assert list(losses) == ["objectness", "proposal_box", "classifier", "box"]
    for loss in (losses, losses_of(detector, num_images=1)):
        detector.zero_grad()
        sum(loss.values()).backward()
        for name, parameter in detector.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_last_stage_learns_from_regions():
    detector = small_c4()
    losses_of(detector)["classifier"].backward()
    assert detector.backbone.cnn.layer4[0].downsample[0].weight.grad.any()
    assert detector.backbone.cnn.conv1.weight.grad.any()


def test_predictions_lie_in_the_image_of_their_file():
    detector = small_c4(RegionConfig(score_threshold=0.0)).eval()
    images, sizes, _ = small_batch()
    found = detector.predict(images, sizes, image_sizes=[(192, 48)] * 3)
    for one in found:
        assert len(one.labels) == 100
        assert one.masks is None
        assert one.boxes.min() >= 0
        assert one.boxes[:, [0, 2]].max() <= 48 < one.boxes[:, [1, 3]].max() <= 192
        assert set(one.labels.tolist()) <= set(range(1, 6))


def test_no_proposal_gives_no_detection():
    detector = small_c4().eval()
    images, sizes, _ = small_batch()
    detector.proposals.score_thresh = 2.0
    found = detector.predict(images, sizes, image_sizes=sizes)
    assert [len(one.boxes) for one in found] == [0, 0, 0]


def test_under_autocast_boxes_and_losses_are_computed_in_float32():
    detector = small_c4().eval()
    images, sizes, _ = small_batch()
    exact = losses_of(detector)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(detector)
        found = detector.predict(images, sizes, image_sizes=sizes)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert found[0].boxes.dtype == torch.float32
    for name in ("objectness", "proposal_box"):
        assert losses[name].item() == pytest.approx(exact[name].item(), rel=0.02)


def test_the_last_stage_is_saved_once_and_comes_back():
    detector, other = small_c4(), small_c4()
    state = detector.state_dict()
    assert len([name for name in state if "layer4.0.conv1" in name]) == 1
    with torch.no_grad():
        for value in other.state_dict().values():
            value.mul_(0)
    other.load_state_dict(state)
    assert all(map(torch.equal, losses_of(detector).values(), losses_of(other).values()))


def test_a_copy_has_a_last_stage_of_its_own():
    detector = small_c4().eval()
    twin = copy.deepcopy(detector)
    before = losses_of(detector)
    with torch.no_grad():
        for parameter in twin.backbone.cnn.layer4.parameters():
            parameter.mul_(2)
    assert all(map(torch.equal, losses_of(detector).values(), before.values()))
    assert not torch.equal(losses_of(twin)["classifier"], before["classifier"])


def test_a_frozen_last_stage_stays_as_it_was():
    detector = small_c4(frozen=True).train()
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    losses_of(detector)
    assert all(map(torch.equal, detector.backbone.state_dict().values(), before.values()))
    assert detector.heads.box_head.norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", SLIM | {"output_stride": 16}),
        ("efficientnet_lite0", {}),
        ("vit_tiny_patch16_224", {"depth": 1}),
    ],
)
def test_a_backbone_whose_last_stage_cannot_be_run_alone_is_refused(name, options):
    backbone = Backbone(BackboneConfig(name, options=options))
    with pytest.raises(ConfigError, match=f"{name}.*no last stage.*Choose a resnet"):
        build_c4(backbone, SMALL, num_categories=5)
    assert backbone.training


@pytest.mark.parametrize("name", ["regnetx_002", "convnext_atto"])
def test_last_stages_of_other_networks_work_too(name):
    backbone = Backbone(BackboneConfig(name))
    losses = losses_of(build_c4(backbone, SMALL, num_categories=5))
    assert all(loss.isfinite() for loss in losses.values())
