"""Instance segmentation as a pretext task, and detectors for transfer."""

import dataclasses
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from tests.engine.toy import split
from tests.models.small import SLIM
from virtex.data.example import Example
from virtex.data.source import SourceConfig
from virtex.data.source_options import check_options
from virtex.data.sources.scenes import ScenesSource
from virtex.data.transforms import ImageConfig
from virtex.engine.evaluation import evaluate
from virtex.engine.loop import fit
from virtex.engine.optim import OptimConfig, build_optimizer
from virtex.engine.run import RunConfig, RunFolder
from virtex.errors import ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.batch_norm import estimate_statistics
from virtex.models.region_heads import RegionConfig
from virtex.tasks.base import TaskData
from virtex.tasks.detection import (
    Detection,
    DetectionConfig,
    InstanceSegmentationConfig,
    detection_targets,
)
from virtex.tasks.registry import TASKS

SIZE = 64
SCENES = ScenesSource(6, image_size=64)
BARE = Example("0", SCENES[0].image, boxes=np.zeros((0, 4), np.float32))
SMALL = RegionConfig(
    pyramid_channels=16, box_width=32, num_anchors=64, num_regions=32, num_proposals=50
)


def small_task(**options) -> Detection:
    torch.manual_seed(0)
    config = InstanceSegmentationConfig(regions=SMALL, **options)
    data = TaskData(ImageConfig(size=SIZE), categories=SCENES.categories)
    return config.build(Backbone(BackboneConfig("resnet18", options=SLIM)), data)


def small_detection(
    architecture: str, *, regions: RegionConfig = SMALL, backbone: str = "resnet18", **options
) -> Detection:
    """Return a detector of images of one size by default, with masks for fpn."""
    torch.manual_seed(0)
    sizes = {"train_sizes": (SIZE,), "test_size": SIZE, "max_size": 2 * SIZE}
    config = DetectionConfig(
        architecture, regions, **{"masks": architecture == "fpn", **sizes, **options}
    )
    data = TaskData(ImageConfig(), categories=SCENES.categories)
    sized = SLIM if backbone == "resnet18" else {}
    return config.build(Backbone(BackboneConfig(backbone, options=sized)), data)


def objects_of(batch: dict) -> list[tuple[torch.Tensor, ...]]:
    """Boxes (M, 4), labels (M,) and masks (M, H, W), if any, of each image."""
    targets, objects = detection_targets(batch), []
    for index, labels in enumerate(targets.labels):
        masks = [targets.masks(index)] if targets.masks else []
        objects.append(tuple(x[labels > 0] for x in (targets.boxes[index], labels, *masks)))
    return objects


def batch_of(task: Detection, *examples: Example) -> dict:
    """A batch with a random seed for each example that is a function of its name."""
    return task.collate(
        [
            task.encode_validation(example, np.random.default_rng([*example.image_id.encode()]))
            for example in examples
        ]
    )


def with_padding(batch: dict, number: int) -> dict:
    """The batch with `number` more objects of padding for each image."""
    return {
        name: torch.nn.functional.pad(value, (0, 0) * (value.dim() - 2) + (0, number))
        if name in ("boxes", "box_labels", "masks")
        else value.clone()
        for name, value in batch.items()
    }


def overfit(task: Detection, batch: dict, *, num_steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(task.parameters(), 0.01)
    losses = []
    for step in range(num_steps):
        batch = {**batch, "sampling_seed": torch.arange(len(batch["image"])) + 1000 * step}
        optimizer.zero_grad()
        loss = task(batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_loss_falls_on_two_scenes():
    task = small_task()
    losses = overfit(task, batch_of(task, SCENES[0], SCENES[1]), num_steps=20)
    assert np.mean(losses[-3:]) < 0.4 * losses[0]


def test_a_memorized_scene_is_detected():
    task = small_task()
    batch = batch_of(task, SCENES[0], SCENES[1])
    overfit(task, batch, num_steps=100)
    batch_norm = [m for m in task.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for module in batch_norm:  # statistics of two images, so that evaluation sees what training saw
        module.momentum = 1.0
    task(batch)
    found = task.eval().predict(batch)
    for one, (_, labels, truth) in zip(found, objects_of(batch), strict=True):
        for mask, label in zip(truth.bool(), labels, strict=True):
            masks = one.masks[one.labels == label]
            overlaps = (masks & mask).sum((1, 2)) / (masks | mask).sum((1, 2))
            assert overlaps.max() > 0.4


def test_the_loss_is_the_sum_of_five_that_are_logged():
    task = small_task()
    output = task(batch_of(task, *SCENES))
    assert list(output.logs) == ["objectness", "proposal_box", "classifier", "box", "mask"]
    assert output.loss.item() == pytest.approx(sum(map(float, output.logs.values())))
    assert not any(value.requires_grad for value in output.logs.values())


def test_targets_are_the_scenes_objects():
    task = small_task()
    (_, _, none), (boxes, labels, masks) = objects_of(batch_of(task, BARE, SCENES[1]))
    assert none.shape == (0, SIZE, SIZE)
    assert np.array_equal(boxes, SCENES[1].boxes)
    assert (labels - 1).tolist() == list(SCENES[1].box_labels)
    areas = [sum(mask["counts"][1::2]) for mask in SCENES[1].masks]
    assert masks.sum((1, 2)).tolist() == areas


def test_a_batch_may_hold_images_without_objects():
    task = small_task()
    task(batch_of(task, BARE, BARE)).loss.backward()
    without = [name for name, parameter in task.named_parameters() if parameter.grad is None]
    assert not without
    assert task(batch_of(task, BARE, SCENES[1])).loss.isfinite()


def test_padding_a_batch_to_more_objects_changes_nothing():
    task = small_task().eval()
    batch = batch_of(task, SCENES[0], SCENES[1])
    wider = with_padding(batch, 4)
    assert torch.equal(task(wider).loss, task(batch).loss)


def test_a_batch_can_be_cut_into_pieces():
    task = small_task().eval()
    batch = batch_of(task, *SCENES)
    pieces = split(batch, 3)
    assert [len(piece["sizes"]) for piece in pieces] == [2, 2, 2]
    assert torch.equal(task(pieces[1]).loss, task(batch_of(task, SCENES[2], SCENES[3])).loss)


def test_evaluation_gives_the_same_numbers_each_time_and_leaves_the_task_as_it_was():
    task = small_task()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    batches = [batch_of(task, SCENES[0], SCENES[1]), batch_of(task, SCENES[2])]
    run, device = RunConfig(precision="fp32"), torch.device("cpu")
    first = evaluate(task, batches, run=run, device=device)
    assert first == evaluate(task, batches, run=run, device=device)
    assert task.training
    assert task.detector.heads.training
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())


def test_encoding_is_picklable_and_augments_an_image_differently_each_time():
    task = small_task()
    encode = pickle.loads(pickle.dumps(task.encode))
    one, two, three = (encode(SCENES[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one["image"], two["image"])
    assert not torch.equal(one["image"], three["image"])
    assert task(task.collate([one, three])).loss.isfinite()


def test_boxes_alone_can_be_learned_from_data_without_masks():
    task = small_task(masks=False)
    examples = [dataclasses.replace(SCENES[place], masks=()) for place in range(2)]
    output = task(batch_of(task, *examples))
    assert "mask" not in output.logs
    (found, _) = task.eval().predict(batch_of(task, *examples))
    assert found.masks is None


def test_data_without_masks_is_refused_with_a_remedy():
    task = small_task()
    with pytest.raises(DataError, match=r"masks: false"):
        task.encode(dataclasses.replace(SCENES[0], masks=()), np.random.default_rng(0))


def test_it_needs_objects():
    needs = InstanceSegmentationConfig().needs
    check_options(SourceConfig(source="scenes"), needs)
    with pytest.raises(ConfigError, match="boxes are needed"):
        check_options(SourceConfig(source="table", root=Path("captions.csv")), needs)


@pytest.mark.parametrize("zoom", [(0.0, 1.0), (1.5, 1.0)])
def test_a_zoom_that_cannot_be_is_refused(zoom):
    with pytest.raises(ConfigError, match="zoom"):
        InstanceSegmentationConfig(zoom=zoom)


def test_the_backbone_is_the_one_that_was_given():
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    data = TaskData(ImageConfig(size=SIZE), categories=SCENES.categories)
    task = InstanceSegmentationConfig(regions=SMALL).build(backbone, data)
    assert task.backbone is backbone
    batch = batch_of(task, SCENES[0], SCENES[1])
    task(batch).loss.backward()
    assert backbone.cnn.conv1.weight.grad.any()


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_a_detector_memorizes_two_scenes(architecture):
    regions = dataclasses.replace(SMALL, anchor_scale=4)
    task = small_detection(architecture, regions=regions)
    batch = batch_of(task, SCENES[0], SCENES[1])
    losses = overfit(task, batch, num_steps=100)
    assert np.mean(losses[-3:]) < 0.4 * losses[0]
    estimate_statistics(task, [batch], task)
    for one, (boxes, labels, *_) in zip(task.eval().predict(batch), objects_of(batch), strict=True):
        for box, label in zip(boxes, labels, strict=True):
            overlaps = box_iou(box[None], one.boxes[one.labels == label])
            assert overlaps.numel()
            assert overlaps.max() > 0.4
        assert (one.masks is not None) is (architecture == "fpn")


def test_statistics_of_sampled_regions_are_estimated_twice_alike():
    task = small_detection("c4")
    batches = [batch_of(task, SCENES[0], SCENES[1]), batch_of(task, SCENES[2])]
    norm, seen = task.detector.heads.box_head.norm, []
    for _ in range(2):
        assert estimate_statistics(task, batches, task) == 2
        seen.append(norm.running_mean.clone())
    assert seen[0].any()
    assert torch.equal(*seen)


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_detections_are_in_pixels_of_the_file(architecture):
    regions = dataclasses.replace(SMALL, score_threshold=0.0)
    tall = dataclasses.replace(BARE, image=np.zeros((90, 30, 3), np.uint8))
    task = small_detection(architecture, regions=regions, max_size=100).eval()
    batch = batch_of(task, SCENES[0], tall)
    assert batch["image"].shape == (2, 3, 128, 64)
    assert batch["sizes"].tolist() == [[64, 64], [100, 33]]
    assert batch["image_sizes"].tolist() == [[64, 64], [90, 30]]
    first, second = task.predict(batch)
    assert len(first.boxes) == len(second.boxes) == 100
    assert first.boxes.max() <= 64
    assert 64 < second.boxes[:, 3].max() <= 90
    assert second.boxes[:, 2].max() <= 30
    if architecture == "fpn":
        assert second.masks.shape[1:] == (90, 30)


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_a_detector_takes_images_without_objects(architecture):
    task = small_detection(architecture)
    task(batch_of(task, BARE, BARE)).loss.backward()
    assert not [name for name, value in task.named_parameters() if value.grad is None]
    assert task(batch_of(task, BARE, SCENES[1])).loss.isfinite()


def test_targets_stay_where_they_are_in_a_batch_that_a_larger_image_makes_larger():
    task = small_detection("fpn").eval()
    large = dataclasses.replace(BARE, image=np.zeros((30, 60, 3), np.uint8))
    alone, padded = batch_of(task, SCENES[1]), batch_of(task, SCENES[1], large)
    assert padded["image"].shape[3] == 128
    ((boxes, _, masks),), ((others, _, larger), _) = objects_of(alone), objects_of(padded)
    assert torch.equal(boxes, others)
    assert torch.equal(masks, larger[:, :SIZE, :SIZE])
    assert not larger[:, :, SIZE:].any()


def test_training_images_are_resized_and_flipped_and_nothing_else():
    task = small_detection("fpn", train_sizes=(32, 48, 64), flip_prob=1.0)
    sides = set()
    for seed in range(20):
        encoded = task.encode(SCENES[0], np.random.default_rng(seed))
        sides.add(encoded["image"].shape[1])
        if encoded["image"].shape[1] == SIZE:
            plain = task.encode_validation(SCENES[0], np.random.default_rng(0))
            assert torch.equal(encoded["image"].flip(2), plain["image"])
            assert torch.equal(SIZE - encoded["boxes"][:, [2, 0]], plain["boxes"][:, [0, 2]])
    assert sides == {32, 48, 64}


@pytest.mark.parametrize(("options", "side"), [({}, 32), ({"output_stride": 16}, 16)])
def test_a_batch_is_padded_to_whole_cells_of_the_coarsest_grid(options, side):
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM | options))
    config = DetectionConfig("fpn", SMALL, train_sizes=(33,), test_size=33, max_size=80)
    task = config.build(backbone, TaskData(ImageConfig(), categories=SCENES.categories))
    assert batch_of(task, SCENES[0])["image"].shape[2:] == (-(-33 // side) * side,) * 2


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_the_backbones_parameters_are_optimised_once_and_at_its_own_rate(architecture):
    task = small_detection(architecture)
    optim = OptimConfig(lr=0.5, backbone_lr=0.25, momentum=0.9)
    rates = {
        name: group["peak_lr"]
        for group in build_optimizer(task, optim).state_dict()["param_groups"]
        for name in group["param_names"]
    }
    assert set(rates) == {name for name, _ in task.named_parameters()}
    assert {rates[name] for name in rates if "layer4" in name} == {0.25}
    assert {rates[name] for name in rates if "backbone.cnn" not in name} == {0.5}


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_a_run_that_was_cut_ends_with_the_same_bits(architecture, tmp_path):
    weights = []
    for folder, stops in (("whole", (4,)), ("cut", (2, 4))):
        for num_steps in stops:
            task = small_detection(architecture, train_sizes=(48, 64))
            run = RunConfig(
                num_steps=num_steps, batch_size=2, device="cpu", checkpoint_every=2,
                tensorboard=False,
            )  # fmt: skip
            optim = OptimConfig(optimizer="adamw", schedule="constant", warmup_steps=0)
            fit(
                task, partial(batches_from, task), folder=RunFolder(tmp_path / folder), run=run,
                optim=optim, device=torch.device("cpu"), config={},
            )  # fmt: skip
        weights.append(task.state_dict())
    whole, cut = weights
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def batches_from(task: Detection, step: int):
    """Batches of two scenes, a function of the step."""
    while True:
        encoded = [task.encode(SCENES[(2 * step + place) % 6], np.random.default_rng((step, place)))
                   for place in range(2)]  # fmt: skip
        yield [task.collate(encoded)]
        step += 1


def test_all_problems_with_a_detector_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"(?s)masks need.*fpn.*pyramid_norm.*flip_prob 2"):
        DetectionConfig("c4", RegionConfig(pyramid_norm=True), flip_prob=2)
    with pytest.raises(ConfigError, match="train_sizes is empty"):
        DetectionConfig(train_sizes=())
    with pytest.raises(ConfigError, match="max_size 700"):
        DetectionConfig(max_size=700)


def test_the_detectors_defaults_are_those_of_detectron2():
    config = DetectionConfig()
    assert config.train_sizes == tuple(range(640, 801, 32))
    assert (config.test_size, config.max_size, config.flip_prob) == (800, 1333, 0.5)
    assert config.needs.masks
    assert DetectionConfig not in TASKS


@pytest.mark.parametrize("architecture", ["fpn", "c4"])
def test_batch_norm_alone_is_not_decayed(architecture: str) -> None:
    task = small_detection(architecture)
    exempt = task.no_weight_decay()
    assert "detector.backbone.cnn.bn1.weight" in exempt
    assert not any("conv" in name or "predictor" in name for name in exempt)
    build_optimizer(task, OptimConfig())
