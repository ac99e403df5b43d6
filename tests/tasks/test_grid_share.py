"""Thinning of the grid: which cells the head sees, what it computes of them, and when it sees all.

Images of 128 px have grids of 4 x 4 cells.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.models.small import SLIM
from tests.tasks.small_tasks import SCENES, scenes_batch, tokenizer
from tests.tasks.two_processes import check_gradients
from virtex.data.transforms import ImageConfig
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import CaptionTask, Task, TaskConfig, TaskData
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.grid_share import NAME, EncodeCells, WithGridShareConfig, num_seen
from virtex.tasks.masked_lm import MaskedLmConfig

HEAD = HeadConfig(hidden_size=64, dropout=0.0)
CONFIGS = [
    CaptioningConfig(head=HEAD, captions_per_image=2),
    CapPaConfig(head=HEAD),
    MaskedLmConfig(head=HEAD),
]
NUM_CELLS, NUM_SEEN = 16, 5


def build(config: TaskConfig, name: str = "resnet18", **options: object) -> CaptionTask:
    """A task whose weights are always the same and so large that what the head sees counts."""
    torch.manual_seed(0)
    data = TaskData(ImageConfig(size=128), tokenizer(), SCENES.categories, len(SCENES))
    task = config.build(Backbone(BackboneConfig(name, options=options or SLIM)), data)
    assert isinstance(task, CaptionTask)
    with torch.no_grad():
        for parameter in task.captioner.head.parameters():
            parameter.normal_(std=0.1)
    return task


def thinned(config: WithGridShareConfig) -> CaptionTask:
    return build(replace(config, grid_share=0.3))


def explicit(grid: Tensor, cells: Tensor) -> Tensor:
    """The slow twin: cells (B, k) of grids (B, C, h, w), fetched by row and column."""
    width = grid.shape[3]
    columns = [
        torch.stack([one[:, cell // width, cell % width] for cell in seen.tolist()], 1)
        for one, seen in zip(grid, cells, strict=True)
    ]  # (C, k) each
    return torch.stack(columns)[..., None]


def gradients(task: Task) -> dict[str, Tensor]:
    return {name: value.grad for name, value in task.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("config", CONFIGS)
def test_the_head_learns_from_the_seen_cells_alone(config: WithGridShareConfig) -> None:
    task, twin = thinned(config), build(config)
    batch = scenes_batch(task)
    cells = batch[NAME]
    assert all(len(set(seen.tolist())) == NUM_SEEN for seen in cells)

    def show(module: nn.Module, inputs: object, grid: Tensor) -> Tensor:
        assert grid.shape[2:] == (4, 4)
        return explicit(grid, cells)

    twin.backbone.register_forward_hook(show)
    output, expected = task(batch), twin(scenes_batch(twin))
    torch.testing.assert_close(output.loss, expected.loss)
    output.loss.backward(), expected.loss.backward()
    check_gradients(gradients(task), gradients(twin))


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_else_that_is_random_changes_and_validation_sees_all(
    config: WithGridShareConfig,
) -> None:
    task, plain = thinned(config), build(config)
    batch, whole = scenes_batch(task), scenes_batch(plain)
    assert batch.keys() - whole.keys() == {NAME}
    assert all(torch.equal(batch[name], whole[name]) for name in whole)
    assert task(batch).loss != plain(whole).loss
    task.load_state_dict(plain.state_dict())
    assert torch.equal(task.eval()(batch).loss, plain.eval()(whole).loss)
    encoded = task.encode_validation(SCENES[0], np.random.default_rng(0))
    assert task.collate([encoded]).keys() == whole.keys()


def test_cells_are_drawn_for_each_example_and_all_alike() -> None:
    encode = EncodeCells(lambda example, generator: {}, NUM_CELLS, NUM_SEEN)
    scene = SCENES[0]
    drawn = [encode(scene, np.random.default_rng([0, index]))[NAME] for index in range(1600)]
    assert all(torch.equal(cells, cells.unique()) for cells in drawn)
    counts = torch.cat(drawn).bincount()
    assert len(counts) == NUM_CELLS
    assert counts.float().sub(500).abs().max() < 80  # whose standard deviation is 19


def test_the_token_loss_pools_all_cells() -> None:
    config = CaptioningConfig(head=HEAD, token_weight=1.0)
    task, plain = thinned(config), build(config)
    output, whole = task(scenes_batch(task)), plain(scenes_batch(plain))
    assert torch.equal(output.logs["tokens"], whole.logs["tokens"])
    assert output.logs["captioning_forward"] != whole.logs["captioning_forward"]


def test_a_vits_tokens_are_thinned_like_cells() -> None:
    vit = {"embed_dim": 24, "depth": 1, "num_heads": 2, "img_size": 128}
    config = replace(CONFIGS[0], grid_share=0.25)
    task = build(config, "vit_tiny_patch16_224", **vit)
    batch = scenes_batch(task)
    assert batch[NAME].shape == (4, 16)
    assert task(batch).loss.isfinite()


def test_a_thinned_task_compiles_without_a_break_and_computes_the_same() -> None:
    task = thinned(CONFIGS[0])
    batch = scenes_batch(task)
    losses, found = [], []
    torch._dynamo.reset()
    for module in (task, torch.compile(task, backend="aot_eager", fullgraph=True, dynamic=False)):
        task.zero_grad()
        losses.append(module(batch).loss)
        losses[-1].backward()
        found.append({name: value.clone() for name, value in gradients(task).items()})
    torch._dynamo.reset()
    torch.testing.assert_close(losses[1], losses[0])
    check_gradients(found[1], found[0])


@pytest.mark.parametrize(
    ("share", "num_cells", "expected"), [(0.3, 49, 15), (0.25, 196, 49), (0.01, 4, 1), (1, 49, 49)]
)
def test_a_share_is_a_number_of_cells_of_at_least_one(
    share: float, num_cells: int, expected: int
) -> None:
    assert num_seen(share, num_cells) == expected


def test_a_share_that_drops_no_cell_is_refused() -> None:
    with pytest.raises(ConfigError, match="32 px has 1 cells, all of which would be seen"):
        CaptioningConfig(head=HEAD, grid_share=0.3).build(
            Backbone(BackboneConfig("resnet18", options=SLIM)),
            TaskData(ImageConfig(size=32), tokenizer()),
        )


@pytest.mark.parametrize("kind", [type(config) for config in CONFIGS])
@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_is_above_0_and_up_to_1(kind: type[WithGridShareConfig], share: float) -> None:
    with pytest.raises(ConfigError, match=f"grid_share {share} must be above 0"):
        kind(grid_share=share)
