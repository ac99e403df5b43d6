"""Instance segmentation as a pretext task."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from tests.models.small import SLIM
from virtex.data.example import Example
from virtex.data.source import SourceConfig
from virtex.data.source_options import check_options
from virtex.data.sources.scenes import ScenesSource
from virtex.data.transforms import ImageConfig
from virtex.engine.loop import evaluate, split
from virtex.engine.run import RunConfig
from virtex.errors import ConfigError, DataError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.region_heads import RegionConfig
from virtex.tasks.base import TaskData
from virtex.tasks.detection import InstanceSegmentation, InstanceSegmentationConfig, targets_of

SIZE = 64
SCENES = ScenesSource(6, image_size=64)
BARE = Example("0", SCENES[0].image, boxes=np.zeros((0, 4), np.float32))
SMALL = RegionConfig(
    pyramid_channels=16, box_width=32, num_anchors=64, num_regions=32, num_proposals=50
)


def small_task(**options) -> InstanceSegmentation:
    torch.manual_seed(0)
    config = InstanceSegmentationConfig(regions=SMALL, **options)
    data = TaskData(ImageConfig(size=SIZE), categories=SCENES.categories)
    return config.build(Backbone(BackboneConfig("resnet18", options=SLIM)), data)


def batch_of(task: InstanceSegmentation, *examples: Example) -> dict:
    generator = np.random.default_rng(0)
    return task.collate([task.encode_validation(example, generator) for example in examples])


def loss_of(task: InstanceSegmentation, batch: dict) -> torch.Tensor:
    torch.manual_seed(3)
    return task(batch).loss


def overfit(task: InstanceSegmentation, batch: dict, *, num_steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(task.parameters(), 0.01)
    losses = []
    for step in range(num_steps):
        torch.manual_seed(step)
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


def test_what_was_learned_by_heart_is_found_again():
    task = small_task()
    batch = batch_of(task, SCENES[0], SCENES[1])
    overfit(task, batch, num_steps=100)
    batch_norm = [m for m in task.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for module in batch_norm:  # statistics of two images, so that evaluation sees what training saw
        module.momentum = 1.0
    task(batch)
    found = task.eval().predict(batch, torch.tensor([[SIZE, SIZE]] * 2))
    for one, target in zip(found, targets_of(batch), strict=True):
        for mask, label in zip(target["masks"].bool(), target["labels"], strict=True):
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
    targets = targets_of(batch_of(task, BARE, SCENES[1]))
    assert targets[0]["masks"].shape == (0, SIZE, SIZE)
    assert np.array_equal(targets[1]["boxes"], SCENES[1].boxes)
    assert (targets[1]["labels"] - 1).tolist() == list(SCENES[1].box_labels)
    areas = [sum(mask["counts"][1::2]) for mask in SCENES[1].masks]
    assert targets[1]["masks"].sum((1, 2)).tolist() == areas


def test_a_batch_may_hold_images_without_objects():
    task = small_task()
    task(batch_of(task, BARE, BARE)).loss.backward()
    without = [name for name, parameter in task.named_parameters() if parameter.grad is None]
    assert not without
    assert loss_of(task, batch_of(task, BARE, SCENES[1])).isfinite()


def test_padding_a_batch_to_more_objects_changes_nothing():
    task = small_task().eval()
    batch = batch_of(task, SCENES[0], SCENES[1])
    wider = {
        name: torch.nn.functional.pad(value, (0, 0) * (value.dim() - 2) + (0, 4))
        if name in ("boxes", "box_labels", "masks")
        else value
        for name, value in batch.items()
    }
    assert torch.equal(loss_of(task, wider), loss_of(task, batch))


def test_a_batch_can_be_cut_into_pieces():
    task = small_task().eval()
    batch = batch_of(task, *SCENES)
    pieces = split(batch, 3)
    assert [len(piece["sizes"]) for piece in pieces] == [2, 2, 2]
    assert torch.equal(
        loss_of(task, pieces[1]), loss_of(task, batch_of(task, SCENES[2], SCENES[3]))
    )


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


def test_encoding_goes_to_workers_and_shows_each_image_anew():
    task = small_task()
    encode = pickle.loads(pickle.dumps(task.encode))
    one, two, three = (encode(SCENES[0], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one["image"], two["image"])
    assert not torch.equal(one["image"], three["image"])
    assert loss_of(task, task.collate([one, three])).isfinite()


def test_boxes_alone_can_be_learned_from_data_without_masks():
    task = small_task(masks=False)
    examples = [dataclasses.replace(SCENES[place], masks=()) for place in range(2)]
    output = task(batch_of(task, *examples))
    assert "mask" not in output.logs
    (found, _) = task.eval().predict(batch_of(task, *examples), torch.tensor([[64, 64]] * 2))
    assert found.masks is None


def test_data_without_masks_is_refused_with_a_remedy():
    task = small_task()
    with pytest.raises(DataError, match=r"--task\.masks false"):
        task.encode(dataclasses.replace(SCENES[0], masks=()), np.random.default_rng(0))


def test_it_needs_objects():
    needs = InstanceSegmentationConfig().needs
    check_options(SourceConfig(source="scenes"), needs)
    with pytest.raises(ConfigError, match="boxes are needed"):
        check_options(SourceConfig(source="table", root="captions.csv"), needs)


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
