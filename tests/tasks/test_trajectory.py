"""Tens of steps of the paper's optimizer, from given weights, against the same written out."""

import json
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.small import SLIM
from tests.oracles.textual_head import PaddedCaptioner
from tests.oracles.trajectory import lr_multipliers, trajectory
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, normalize
from virtex.engine.loop import fit
from virtex.engine.optim import OptimConfig
from virtex.engine.run import RunConfig, RunFolder
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.packing import DIRECTIONS, pack_readings
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.captioning import Captioning, CaptioningConfig
from virtex.tokens import EOS_ID, SOS_ID

NUM_STEPS, WARMUP, BATCH_SIZE = 40, 8, 8
VOCABULARY = train_tokenizer(["a red ball on a table", "two dogs run"], vocab_size=40)


def captioned(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images, tokens and lengths of a step."""
    rng = torch.Generator().manual_seed(step)
    lengths = torch.randint(4, 13, (BATCH_SIZE,), generator=rng)
    tokens = torch.randint(4, 40, (BATCH_SIZE, 12), generator=rng)
    tokens[:, 0] = SOS_ID
    tokens[torch.arange(BATCH_SIZE), lengths - 1] = EOS_ID
    tokens[torch.arange(12) >= lengths[:, None]] = 0
    images = torch.randint(0, 256, (BATCH_SIZE, 3, 64, 64), dtype=torch.uint8, generator=rng)
    return images, tokens[:, : int(lengths.max())], lengths


def stream(step: int) -> Generator[list[Batch], None, None]:
    while True:
        images, tokens, lengths = captioned(step)
        yield [{"image": images, **pack_readings(tokens, lengths, DIRECTIONS)._asdict()}]
        step += 1


def captioning() -> Captioning:
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    config = CaptioningConfig(head=HeadConfig(hidden_size=64, dropout=0.0))
    return config.build(backbone, TaskData(ImageConfig(size=64), VOCABULARY))


@pytest.mark.parametrize("original", [True, False])
def test_losses_and_gradient_norms_are_those_of_the_papers_rules(
    tmp_path: Path, original: bool
) -> None:
    task = captioning()
    twin = PaddedCaptioner(task.captioner)
    batches = [captioned(step) for step in range(NUM_STEPS)]
    expected = trajectory(
        twin,
        [(normalize(images), tokens, lengths) for images, tokens, lengths in batches],
        lr_multipliers(NUM_STEPS, WARMUP, first=0 if original else 1),
    )
    fit(
        task,
        stream,
        folder=RunFolder(tmp_path),
        run=RunConfig(
            num_steps=NUM_STEPS, batch_size=BATCH_SIZE, device="cpu", log_every=1,
            checkpoint_every=0, tensorboard=False,
        ),
        optim=OptimConfig(warmup_steps=WARMUP, original=original),
        device=torch.device("cpu"),
        config={},
    )  # fmt: skip
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [record["train/loss"] for record in records] == pytest.approx(
        [loss for loss, _ in expected], rel=1e-3
    )
    assert [record["train/grad_norm"] for record in records] == pytest.approx(
        [norm for _, norm in expected], rel=1e-3
    )
