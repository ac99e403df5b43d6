"""Momentum contrast: its loss, its slow encoder, its queue, and shuffled BatchNorm."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.engine.toy import split
from tests.oracles.memories import info_nce
from tests.tasks.small_tasks import (
    IMAGE,
    SCENES,
    build,
    scenes_batch,
    training_pass,
    training_step,
    without_gradient,
)
from virtex.config import to_dict
from virtex.data.example import Example
from virtex.data.transforms import TrainTransform
from virtex.errors import ConfigError
from virtex.models.backbone import BackboneConfig
from virtex.tasks.moco import (
    EncodeTwoViews,
    Moco,
    MocoConfig,
    count_groups,
)
from virtex.zoo.backbones import load_backbone
from virtex.zoo.weights_file import save_weights

CONFIG = MocoConfig(dim=6, queue_size=10, momentum=0.75, temperature=0.2, group_size=4)


def small_moco(config: MocoConfig = CONFIG) -> Moco:
    task = build(config)
    assert isinstance(task, Moco)
    return task.train()


def move(task: Moco) -> None:
    """Change what is learned by gradient, as an optimizer would."""
    with torch.no_grad():
        for parameter in task.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def state_of(task: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in task.state_dict().items()}


def changed(task: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """First part of the names of what is no longer as it was."""
    after = task.state_dict()
    return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("mlp", [False, True])
def test_the_loss_and_the_accuracy_are_the_twins(mlp: bool) -> None:
    task = small_moco(MocoConfig(dim=6, queue_size=10, temperature=0.2, mlp=mlp)).eval()
    move(task)
    batch = scenes_batch(task, range(8))
    queries, keys = task._query(batch["query_image"]), task._key(batch["key_image"])
    queue = task.queue.keys
    expected = info_nce(queries.tolist(), keys.tolist(), queue.tolist(), temperature=0.2)
    output = task(batch)
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    nearer = [bool((q @ k) > (queue @ q).max()) for q, k in zip(queries, keys, strict=True)]
    assert output.logs["moco_accuracy"].item() == pytest.approx(np.mean(nearer))


def test_gradients_reach_the_encoder_and_not_its_copy() -> None:
    task = small_moco()
    training_pass(task, scenes_batch(task))[0].loss.backward()
    assert without_gradient(task) == []
    frozen = {name for name, p in task.named_parameters() if not p.requires_grad}
    assert {name.partition(".")[0] for name in frozen} == {
        "momentum_backbone",
        "momentum_projection",
    }


def test_the_copy_is_updated_as_in_the_papers_algorithm() -> None:
    """There the copy moves before each forward pass, here after each step."""
    torch.manual_seed(1)
    task, momentum = small_moco(), CONFIG.momentum
    expected = task.backbone.cnn.conv1.weight.detach().clone()
    for step in range(4):
        learned = task.backbone.cnn.conv1.weight.detach()
        expected = momentum * expected + (1 - momentum) * learned
        torch.testing.assert_close(task.momentum_backbone.cnn.conv1.weight.data, expected)
        (output,) = training_pass(task, scenes_batch(task))
        move(task)
        task.after_step(step + 1, [output.kept])


def test_keys_of_all_pieces_join_the_queue_when_the_step_ends() -> None:
    task = small_moco()
    batch, before = scenes_batch(task, range(8)), task.queue.keys.clone()
    kept = [output.kept for output in training_pass(task, *split(batch, 2))]
    assert torch.equal(task.queue.keys, before)
    task.after_step(1, kept)
    assert torch.equal(task.queue.keys[:8], torch.cat([piece["keys"] for piece in kept]))
    assert torch.equal(task.queue.keys[8:], before[8:])
    training_step(task, batch, step=2)
    assert int(task.queue.position) == 6  # 16 keys went round a queue of 10


def test_evaluation_changes_nothing_and_does_not_depend_on_the_batch() -> None:
    task = small_moco().eval()
    batch, before = scenes_batch(task, range(8)), state_of(task)
    whole = task(batch).loss.item()
    halves = [task(piece).loss.item() for piece in split(batch, 2)]
    assert whole == pytest.approx(np.mean(halves), rel=1e-5)
    assert changed(task, before) == set()


def test_a_training_step_moves_both_statistics_and_the_queue() -> None:
    task = small_moco()
    before = state_of(task)
    (output,) = training_pass(task, scenes_batch(task))
    assert changed(task, before) == {"backbone", "momentum_backbone"}  # BatchNorm's statistics
    move(task)
    task.after_step(1, [output.kept])
    assert changed(task, before) == {name.partition(".")[0] for name in before}


def test_keys_are_encoded_in_shuffled_order_and_returned_in_order() -> None:
    task = small_moco()
    task.momentum_backbone.eval()  # without the groups' statistics
    pieces = split(scenes_batch(task, range(8)), 2)
    images = torch.cat([piece["key_image"] for piece in pieces])
    companies: list[set[int]] = []
    encode = task._key

    def note(group: Tensor) -> Tensor:
        equal = (group[:, None] == images).flatten(2).all(2)  # (B, 8)
        companies.append(set(equal.int().argmax(1).tolist()))
        return encode(group)

    task._key = note  # type: ignore[method-assign]
    prepared = task.prepare_step(pieces, seed=0)
    torch.testing.assert_close(torch.cat([piece["keys"] for piece in prepared]), encode(images))
    assert sorted(map(len, companies)) == [4, 4]
    assert companies != [{0, 1, 2, 3}, {4, 5, 6, 7}]
    first = list(companies)
    task.prepare_step(pieces, seed=1)
    assert companies[2:] != first


def test_running_statistics_move_once_to_the_mean_of_the_groups() -> None:
    task, twin = small_moco(), small_moco()
    batch = scenes_batch(task, range(8))
    layer, alone = task.backbone.cnn.bn1, twin.backbone.cnn.bn1
    before = layer.running_mean.clone()
    alone.momentum, means = 1.0, []
    for group in batch["query_image"].split(4):
        twin._query(group)
        means.append(alone.running_mean.clone())
    kept = [output.kept for output in training_pass(task, *split(batch, 2))]
    task.after_step(1, kept)
    torch.testing.assert_close(layer.running_mean, 0.9 * before + 0.1 * torch.stack(means).mean(0))
    assert layer.num_batches_tracked == 1


def test_a_network_without_batch_norm_or_with_a_frozen_one_has_no_statistics_to_move() -> None:
    task = small_moco()
    task.backbone.eval()
    before = state_of(task.backbone)
    training_step(task, scenes_batch(task, range(8)))
    assert changed(task.backbone, before) == set()


def test_keys_are_in_two_or_more_groups_of_at_most_group_size() -> None:
    assert count_groups(256, 32) == 8
    assert count_groups(33, 32) == 2
    assert count_groups(16, 32, fewest=2) == 2
    assert count_groups(16, 32) == 1


def test_transfer_takes_the_encoder_and_not_its_copy(tmp_path: Path) -> None:
    task = small_moco()
    move(task)
    backbone = BackboneConfig("resnet18", options=task.backbone.config.options)
    path = tmp_path / "weights.safetensors"
    config = {"backbone": to_dict(backbone)}
    save_weights(path, task.state_dict(), config=config, tokenizer=None, step=1)
    loaded = load_backbone(path).cnn.conv1.weight
    assert torch.equal(loaded, task.backbone.cnn.conv1.weight)
    assert not torch.equal(loaded, task.momentum_backbone.cnn.conv1.weight)


def test_two_views_differ_follow_their_generator_and_need_no_caption() -> None:
    encode = EncodeTwoViews(TrainTransform(IMAGE))
    example = Example("1", SCENES[0].image)
    first, again, other = (encode(example, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first["query_image"], again["query_image"])
    assert torch.equal(first["key_image"], again["key_image"])
    assert not torch.equal(first["query_image"], first["key_image"])
    assert not torch.equal(first["query_image"], other["query_image"])
    assert pickle.loads(pickle.dumps(encode)) == encode


def test_moco_needs_images_alone() -> None:
    assert not any(MocoConfig().needs)


def test_all_wrong_options_are_reported_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)dim 0.*queue_size 0.*group_size 0.*momentum 2.*temperature 0"
    ):
        MocoConfig(dim=0, queue_size=0, momentum=2, temperature=0, group_size=0)


@pytest.mark.parametrize(("batch_size", "group_size"), [(1, 32), (3, 32), (9, 2), (10, 1)])
def test_groups_of_one_image_are_refused(batch_size: int, group_size: int) -> None:
    with pytest.raises(ConfigError, match="fewer than two"):
        count_groups(batch_size, group_size, fewest=2)


@pytest.mark.parametrize("dim", [1, 16])
def test_equal_features_find_none_of_their_keys(dim: int) -> None:
    task = build(MocoConfig(dim=dim, queue_size=16)).eval()
    with torch.no_grad():
        task.projection.layers[0].weight.zero_()
        task.projection.layers[0].bias.fill_(1)
        task.momentum_projection.load_state_dict(task.projection.state_dict())
        task.queue.keys.fill_(dim**-0.5)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    output = task({"query_image": images, "key_image": images})
    assert output.loss.item() == pytest.approx(np.log(17), rel=1e-4)
    assert output.logs["moco_accuracy"].item() == 0


def test_a_group_size_is_named_where_it_makes_the_groups() -> None:
    alone = MocoConfig(group_size=1024).batch_problems(3, num_pieces=1)
    assert "raise run.batch_size, or lower run.accumulation_steps" in alone[0]
    groups = MocoConfig(group_size=2).batch_problems(5, num_pieces=1)
    assert "raise run.batch_size or task.group_size, or lower" in groups[0]
