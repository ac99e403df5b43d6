"""Mask R-CNN around our backbone; what is torchvision's, against torchvision's own."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.image_list import ImageList

from tests.models.padded_targets import padded
from tests.models.small import SLIM
from tests.oracles.region_losses import region_losses
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.region_heads import RegionConfig, RegionDetector, build_mask_rcnn
from virtex.models.region_pool import RegionPool, in_rows

SIZE = 64
NUM_CATEGORIES = 5
SMALL = RegionConfig(
    pyramid_channels=16,
    box_width=24,
    num_anchors=32,
    num_regions=16,
    num_candidates=60,
    num_test_candidates=50,
    num_proposals=40,
    num_test_proposals=30,
)


def small_detector(
    *, with_masks: bool = True, config: RegionConfig = SMALL, **options
) -> RegionDetector:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM | options))
    return build_mask_rcnn(backbone, config, num_categories=NUM_CATEGORIES, with_masks=with_masks)


def small_batch() -> tuple:
    """Images (3, 3, 64, 64), sizes, and targets, of which the last is empty."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, 3, SIZE, SIZE, generator=generator)
    boxes = [[[4, 6, 30, 40], [20, 20, 60, 50]], [[1, 2, 50, 22]], []]
    labels = [[1, 5], [3], []]
    targets = []
    for corners, classes in zip(boxes, labels, strict=True):
        masks = torch.zeros(len(classes), SIZE, SIZE, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
            mask[y1:y2, x1:x2] = 1
        targets.append(
            {
                "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(classes, dtype=torch.int64),
                "masks": masks,
            }
        )
    return images, [(SIZE, SIZE)] * 3, targets


def losses_of(detector: RegionDetector, *, seed: int = 0, num_images: int = 3) -> dict:
    rows = slice(3 - num_images, 3)
    images, sizes, targets = (part[rows] for part in small_batch())
    return detector.losses(images, torch.tensor(sizes), padded(targets, seed=seed))


class GivenMaps(nn.Module):
    """A backbone in torchvision's form."""

    out_channels = SMALL.pyramid_channels

    def __init__(self, detector: RegionDetector) -> None:
        super().__init__()
        self.maps = detector.maps

    def forward(self, images):
        return self.maps(images)


class SizedPool(nn.Module):
    """A pool in torchvision's form, which is given sizes too."""

    def __init__(self, pool: RegionPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps, boxes, sizes):
        return self.pool(maps, in_rows(boxes))


def torchvisions(detector: RegionDetector) -> MaskRCNN:
    """torchvision's network with the same weights, anchors and pools, images left as they are."""
    reference = MaskRCNN(
        GivenMaps(detector),
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_pre_nms_top_n_train=SMALL.num_candidates,
        rpn_pre_nms_top_n_test=SMALL.num_test_candidates,
        rpn_post_nms_top_n_train=SMALL.num_proposals,
        rpn_post_nms_top_n_test=SMALL.num_test_proposals,
        box_head=detector.heads.box_head,
        box_predictor=detector.heads.box_predictor,
        mask_head=detector.heads.mask_head,
        mask_predictor=detector.heads.mask_predictor,
    )
    reference.roi_heads.box_roi_pool = SizedPool(detector.heads.box_roi_pool)
    reference.roi_heads.mask_roi_pool = SizedPool(detector.heads.mask_roi_pool)
    reference.rpn.head = detector.proposals.head
    reference.rpn.anchor_generator = detector.proposals.anchor_generator
    return reference


@pytest.mark.parametrize(
    ("name", "options", "strides"),
    [
        ("resnet18", SLIM, [2, 4, 8, 16, 32]),
        ("resnet18", SLIM | {"output_stride": 16}, [2, 4, 8, 16]),
        ("convnext_atto", {}, [4, 8, 16, 32]),
        ("efficientnet_lite0", {}, [2, 4, 8, 16, 32]),
        ("swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1]}, [4, 8, 16, 32]),
        ("vit_tiny_patch16_224", {"depth": 1}, [16]),
    ],
)
def test_a_backbone_gives_the_grids_of_its_strides_and_its_own_last(name, options, strides):
    backbone = Backbone(BackboneConfig(name, options=options)).eval()
    channels = backbone.stage_channels()
    assert list(channels) == strides
    images = torch.randn(1, 3, 224, 224)
    grids = backbone.stages(images, strides)
    shapes = [(channels[stride], 224 // stride, 224 // stride) for stride in strides]
    assert [tuple(grid.shape[1:]) for grid in grids] == shapes
    assert torch.equal(grids[-1], backbone(images))
    if len(strides) > 2:
        middle = backbone.stages(images, strides[1:-1])
        assert all(map(torch.equal, middle, grids[1:-1]))


def test_stage_channels_leave_a_backbone_unchanged():
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.stage_channels()
    assert backbone.cnn.bn1.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_network_with_wrong_strides_in_its_info_is_refused():
    backbone = Backbone(BackboneConfig("tresnet_m"))
    with pytest.raises(ConfigError, match="'tresnet_m' does not give the grids of several strides"):
        build_mask_rcnn(backbone, SMALL, num_categories=1, with_masks=True)


def test_losses_and_gradients_of_all_anchors_and_regions_are_those_of_torchvisions_modules():
    everything = dataclasses.replace(SMALL, num_anchors=4000, num_regions=1000)
    detector = small_detector(config=everything)
    check_against_modules(detector, everything, small_batch(), losses_of(detector))


def check_against_modules(
    detector: RegionDetector, config: RegionConfig, batch: tuple, losses: dict
) -> None:
    """Check losses of a detector that samples all there is, and their gradients."""
    expected = region_losses(detector, config, *batch)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].item(), rel=1e-5), name
    parameters = [value for value in detector.parameters() if value.requires_grad]
    both = [torch.autograd.grad(sum(x.values()), parameters) for x in (losses, expected)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_detections_are_torchvisions():
    detector = decided(small_detector()).eval()
    reference = torchvisions(detector).eval()
    images, sizes, _ = small_batch()
    with torch.no_grad():
        theirs = reference(list(images))
    ours = detector.predict(images, sizes, image_sizes=sizes)
    assert len(ours[0].labels) > 5
    assert ours[0].masks.any()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.boxes, other["boxes"])
        torch.testing.assert_close(one.scores, other["scores"])
        assert torch.equal(one.labels, other["labels"])
        shared = (one.masks & (other["masks"][:, 0] >= 0.5)).sum()
        assert shared > 0.75 * one.masks.sum()  # of noise, which theirs move to whole pixels


def decided(detector: RegionDetector) -> RegionDetector:
    """Give the heads weights that are far from undecided."""
    box, mask = detector.heads.box_predictor, detector.heads.mask_predictor
    nn.init.normal_(box.cls_score.weight)
    nn.init.normal_(box.bbox_pred.weight, std=0.3)
    nn.init.normal_(mask.mask_fcn_logits.weight)
    return detector


def test_an_untrained_detector_is_undecided():
    losses = losses_of(small_detector())
    assert losses["classifier"].item() == pytest.approx(math.log(NUM_CATEGORIES + 1), rel=0.03)
    assert losses["mask"].item() == pytest.approx(math.log(2), rel=0.01)


def test_the_initial_weights_of_the_heads_are_detectron2s():
    heads = small_detector(config=RegionConfig()).heads
    box, mask = heads.box_predictor, heads.mask_predictor
    for layer, spread in (
        (heads.box_head.fc6, 1 / math.sqrt(256 * 49)),
        (heads.box_head.fc7, 1 / math.sqrt(1024)),
        (box.cls_score, 0.01),
        (box.bbox_pred, 0.001),
        (mask.mask_fcn_logits, 0.001),
        (mask.conv5_mask, math.sqrt(2 / (256 * 4))),
    ):
        assert layer.weight.std().item() == pytest.approx(spread, rel=0.05)
        assert not layer.bias.any()


def test_predictions_are_scaled_to_the_image():
    detector = small_detector().eval()
    images, sizes, _ = small_batch()
    plain = detector.predict(images, sizes, image_sizes=sizes)
    larger = detector.predict(images, sizes, image_sizes=[(128, 96)] * 3)
    for one, other in zip(plain, larger, strict=True):
        torch.testing.assert_close(one.boxes * torch.tensor([1.5, 2, 1.5, 2]), other.boxes)
        assert other.masks.shape == (len(one.labels), 128, 96)
        assert torch.equal(one.scores, other.scores)


def test_nothing_is_found_in_padding():
    detector = small_detector().eval()
    images, _, _ = small_batch()
    found = detector.predict(images, [(40, 64)] * 3, image_sizes=[(40, 64)] * 3)
    assert all(len(one.labels) and one.boxes[:, 3].max() <= 40 for one in found)


def test_losses_in_evaluation_are_those_of_training_where_batchnorm_rests():
    detector = small_detector()
    detector.train()
    detector.backbone.eval()
    training = losses_of(detector)
    detector.eval()
    evaluation = losses_of(detector)
    assert set(evaluation) == {"objectness", "proposal_box", "classifier", "box", "mask"}
    assert all(torch.equal(evaluation[name], training[name]) for name in training)
    assert not any(module.training for module in detector.modules())


def test_losses_in_evaluation_leave_batchnorms_statistics():
    detector = small_detector().eval()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    losses_of(detector)
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize("with_masks", [True, False])
def test_images_without_objects_give_every_parameter_a_gradient(with_masks):
    detector = small_detector(with_masks=with_masks)
    losses = losses_of(detector, num_images=1)
    sum(losses.values()).backward()
    assert ("mask" in losses) is with_masks
    assert losses["box"] == 0
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_under_autocast_boxes_and_losses_are_computed_in_float32():
    detector = small_detector().eval()
    images, sizes, _ = small_batch()
    exact = losses_of(detector)
    with torch.autocast("cpu", torch.bfloat16):
        losses = losses_of(detector)
        boxes, _ = detector.proposals(ImageList(images, sizes), detector.maps(images))
        found = detector.predict(images, sizes, image_sizes=sizes)
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert boxes[0].dtype == found[0].boxes.dtype == torch.float32
    assert not torch.equal(boxes[0], boxes[0].bfloat16().float())
    for name in ("objectness", "proposal_box"):
        assert losses[name].item() == pytest.approx(exact[name].item(), rel=0.02)


@pytest.mark.parametrize(
    ("options", "strides"), [({}, (4, 8, 16, 32, 64)), ({"output_stride": 8}, (4, 8, 16))]
)
def test_the_pyramid_has_one_level_for_each_stride_and_one_above(options, strides):
    detector = small_detector(**options)
    assert detector.neck.strides == strides
    maps = detector.maps(torch.randn(2, 3, 96, 96))
    sides = [-(-96 // stride) for stride in strides]
    assert [tuple(part.shape) for part in maps.values()] == [(2, 16, side, side) for side in sides]


def test_all_wrong_options_are_reported_at_once():
    wrong = r"(?s)num_anchors 0.*num_candidates 0.*score_threshold 1.5"
    with pytest.raises(ConfigError, match=wrong):
        RegionConfig(num_anchors=0, score_threshold=1.5, num_candidates=0)


def counts_of(detector: RegionDetector) -> list[int]:
    """Candidates and proposals in training, and the same in testing."""
    proposals, counts = detector.proposals, []
    for training in (True, False):
        proposals.training = training
        counts += [proposals.pre_nms_top_n(), proposals.post_nms_top_n()]
    return counts


def test_a_pyramid_has_detectron2s_numbers_of_proposals_by_default():
    assert counts_of(small_detector(config=RegionConfig())) == [2000, 1000, 1000, 1000]
    assert counts_of(small_detector()) == [60, 40, 50, 30]


def test_a_normalized_pyramid_has_batchnorm_in_place_of_each_bias():
    plain = small_detector()
    normed = small_detector(config=dataclasses.replace(SMALL, pyramid_norm=True))
    convolutions = 2 * len(plain.neck.stages)
    assert num_of(plain.neck, nn.BatchNorm2d) == 0
    assert num_of(normed.neck, nn.BatchNorm2d) == num_of(normed.neck, nn.Conv2d) == convolutions
    assert [conv.bias for conv in normed.neck.modules() if isinstance(conv, nn.Conv2d)] == (
        [None] * convolutions
    )
    maps = normed.maps(small_batch()[0])
    for name in normed.neck.pooled:
        mean = maps[name].mean((0, 2, 3))
        torch.testing.assert_close(mean, torch.zeros(16), atol=1e-5, rtol=0)
    sum(losses_of(normed).values()).backward()
    assert all(parameter.grad is not None for parameter in normed.parameters())


def num_of(module: nn.Module, kind: type) -> int:
    return sum(isinstance(part, kind) for part in module.modules())
