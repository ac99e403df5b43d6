"""PIRL: its loss, its memory bank, and what it does without one."""

import math

import numpy as np
import pytest
import torch

from tests.engine.toy import split
from tests.models.small import SLIM
from tests.oracles.memories import moving_averages, nce
from tests.tasks.small_tasks import (
    IMAGE,
    SCENES,
    build,
    scenes_batch,
    training_pass,
    without_gradient,
)
from virtex.data.example import Example
from virtex.data.transforms import ImageConfig, normalize
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.pirl import Pirl, PirlConfig, noise_contrastive_loss

CONFIG = PirlConfig(dim=6, num_negatives=5, temperature=0.2, jigsaw_share=0.3)


def small_pirl(config: PirlConfig = CONFIG) -> Pirl:
    """Without BatchNorm's dependence on the company."""
    task = build(config)
    assert isinstance(task, Pirl)
    task.train().backbone.eval()
    return task


def puzzle_batch(task: Pirl, indices: range = range(4)) -> Batch:
    return {**scenes_batch(task, indices), "index": torch.tensor(indices)}


def features(task: Pirl, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """f of the images and g of the puzzles."""
    with torch.no_grad():
        images = task.projection(task.backbone.pooled(normalize(batch["image"])))
        return images, task.project_puzzles(batch["patches"])


def test_the_training_loss_is_the_twins() -> None:
    task = small_pirl()
    batch = puzzle_batch(task)
    images, puzzles = features(task, batch)
    bank = task.memory.entries.tolist()
    drawn = task.memory.draw(5, torch.Generator().manual_seed(0)).tolist()
    assert set(drawn) & {0, 1, 2, 3}  # some are the images' own, and are left out
    negatives = [[bank[n] for n in drawn if n != example] for example in range(4)]
    puzzle_loss, image_loss = (
        nce(side.tolist(), bank[:4], negatives, temperature=0.2) for side in (puzzles, images)
    )
    (output,) = training_pass(task, batch)
    assert output.loss.item() == pytest.approx(0.3 * puzzle_loss + 0.7 * image_loss, rel=1e-5)
    assert output.logs["pirl_jigsaw"].item() == pytest.approx(puzzle_loss, rel=1e-5)
    assert output.logs["pirl_image"].item() == pytest.approx(image_loss, rel=1e-5)


def test_the_validation_loss_has_the_images_own_features_for_positives() -> None:
    task = small_pirl().eval()
    batch = puzzle_batch(task)
    images, puzzles = features(task, batch)
    before = task.memory.entries.clone()
    torch.manual_seed(4)
    drawn = task.memory.entries[task.memory.draw(5)].tolist()
    expected = nce(puzzles.tolist(), images.tolist(), [drawn] * 4, temperature=0.2)
    torch.manual_seed(4)
    assert task(batch).loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(task.memory.entries, before)


def test_the_loss_stays_finite_if_one_pair_dominates() -> None:
    for best in range(3):
        logits = torch.full((1, 3), -1 / 0.01)
        logits[0, best] = 1 / 0.01
        logits.requires_grad_()
        loss = noise_contrastive_loss(logits)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert (loss.item() < 1e-3) == (best == 0)


def test_a_negative_left_out_takes_no_part() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    with_gap = torch.tensor([[1.0, 2.0, -math.inf, 0.5]], requires_grad=True)
    loss = noise_contrastive_loss(with_gap)
    loss.backward()
    torch.testing.assert_close(loss.detach(), noise_contrastive_loss(logits))
    assert with_gap.grad is not None
    assert with_gap.grad.isfinite().all()


def test_gradients_reach_all_that_is_trained() -> None:
    task = small_pirl()
    training_pass(task, puzzle_batch(task))[0].loss.backward()
    assert without_gradient(task) == []


def test_memories_move_when_the_step_ends_for_the_images_of_all_pieces() -> None:
    task = small_pirl()
    batch = puzzle_batch(task, range(2, 6))
    images, _ = features(task, batch)
    before = task.memory.entries.clone()
    kept = [output.kept for output in training_pass(task, *split(batch, 2))]
    assert torch.equal(task.memory.entries, before)
    task.after_step(1, kept)
    expected = moving_averages(before.tolist(), [2, 3, 4, 5], images.tolist(), momentum=0.5)
    torch.testing.assert_close(task.memory.entries, torch.tensor(expected), atol=1e-5, rtol=0)
    assert not torch.equal(task.memory.entries[2:6], before[2:6])


def test_a_puzzle_in_another_order_has_other_features() -> None:
    task = small_pirl()
    patches = puzzle_batch(task)["patches"]
    with torch.no_grad():
        straight, turned = task.project_puzzles(patches), task.project_puzzles(patches.flip(1))
    assert (straight - turned).norm(dim=1).min() > 1e-3


def test_the_last_feature_of_an_example_that_comes_twice_counts() -> None:
    task = small_pirl()
    before = task.memory.entries[:2].clone()
    features = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    pieces = [
        {"index": torch.tensor([1, 0]), "features": features[:2]},
        {"index": torch.tensor([1]), "features": features[2:]},
    ]
    task.after_step(1, pieces)
    expected = torch.nn.functional.normalize((before + features[[1, 2]]) / 2, dim=1)
    torch.testing.assert_close(task.memory.entries[:2], expected)


def test_the_bank_has_an_entry_for_each_training_image() -> None:
    assert small_pirl().memory.entries.shape == (len(SCENES), 6)


def test_fewer_than_two_training_images_are_refused() -> None:
    for num_examples in (0, 1):
        with pytest.raises(ConfigError, match=f"not {num_examples}"):
            CONFIG.build(backbone(), TaskData(IMAGE, num_examples=num_examples))


def test_patches_that_the_backbone_does_not_take_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"into 9 patches of 0 px.*Raise image\.size"):
        CONFIG.build(backbone(), TaskData(ImageConfig(size=1), num_examples=9))


def backbone() -> Backbone:
    return Backbone(BackboneConfig("resnet18", options=SLIM))


def test_images_and_puzzles_need_no_caption() -> None:
    assert not any(PirlConfig().needs)
    encoded = small_pirl().encode(Example("1", SCENES[0].image), np.random.default_rng(0))
    assert encoded["image"].shape == (3, 32, 32)
    assert encoded["patches"].shape == (9, 3, 9, 9)


def test_all_wrong_options_are_reported_at_once() -> None:
    with pytest.raises(
        ConfigError,
        match=r"(?s)dim 0.*num_negatives 0.*memory_momentum 2.*jigsaw_share -1.*temperature 0",
    ):
        PirlConfig(dim=0, num_negatives=0, temperature=0, memory_momentum=2, jigsaw_share=-1)


def test_biases_and_batch_norms_have_no_weight_decay() -> None:
    task = small_pirl()
    exempt, parameters = task.no_weight_decay(), dict(task.named_parameters())
    assert "projection.layers.0.bias" in exempt
    for name, parameter in parameters.items():
        is_weight = parameter.dim() > 1
        assert (name in exempt) != is_weight, name
