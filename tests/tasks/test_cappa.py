"""CapPa: which captions are predicted in parallel, from what, and the two losses."""

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.models.small import SLIM
from tests.oracles.textual_head import PaddedCaptioner
from tests.tasks.padded_batch import padded_captions
from virtex.data.example import Example
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, normalize
from virtex.engine.step import with_mean_counts
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.cappa import CapPaConfig, means_of_kinds
from virtex.tasks.captioning import CaptioningConfig
from virtex.tokens import MASK_ID, PAD_ID

CAPTIONS = ["a red dog runs to the skateboard", "two cats sleep", "it is on the left", "a cat"]
TOKENIZER = train_tokenizer(CAPTIONS, vocab_size=60)
DATA = TaskData(ImageConfig(size=32), TOKENIZER)
HEAD = HeadConfig(hidden_size=24, num_heads=3, num_layers=2, dropout=0.0, max_tokens=40)


def build(parallel_share: float = 0.75):
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    task = CapPaConfig(head=HEAD, parallel_share=parallel_share).build(backbone, DATA)
    for parameter in task.captioner.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return task


def example(*captions: str) -> Example:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Example("0", pixels, captions)


def batch_of(task, parallel: list[bool]):
    batch = task.collate(
        [task.encode(example(text), np.random.default_rng(i)) for i, text in enumerate(CAPTIONS)]
    )
    num_of_kinds = torch.tensor([float(parallel.count(kind)) for kind in (False, True)])
    return {**batch, "parallel": torch.tensor(parallel), "num_of_kinds": num_of_kinds}


def losses_of(task, batch):
    """Losses (B, T) by the padded twin, a caption at a time; 0 for padding."""
    twin = PaddedCaptioner(task.captioner)
    twin.visual.train(task.backbone.training)
    grid = twin.visual(normalize(batch["image"]))
    (tokens, lengths), rows = padded_captions(batch), []
    for row, parallel in enumerate(batch["parallel"].tolist()):
        one = slice(row, row + 1)
        inputs = tokens[one, :-1]
        inputs = torch.full_like(inputs, MASK_ID) if parallel else inputs
        logits = twin.textual(grid[one], inputs, lengths[one] - 1, is_causal=not parallel)
        rows.append(
            cross_entropy(logits[0], tokens[row, 1:], ignore_index=PAD_ID, reduction="none")
        )
    return torch.stack(rows)


def test_captions_of_equal_length_that_are_not_parallel_are_forward_captioning() -> None:
    task = build(parallel_share=0.0)
    captioning = CaptioningConfig(head=HEAD, bidirectional=False).build(task.backbone, DATA)
    captioning.load_state_dict(task.state_dict())
    batch = task.collate(
        [task.encode(example(CAPTIONS[0]), np.random.default_rng(i)) for i in range(4)]
    )
    output, expected = task(batch), captioning(batch)
    torch.testing.assert_close(output.loss, expected.loss)
    assert output.logs.keys() == {"autoregressive"}
    output.loss.backward()
    found = [parameter.grad.clone() for parameter in task.parameters()]
    task.zero_grad()
    expected.loss.backward()
    for gradient, parameter in zip(found, captioning.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def caption_means(losses: Tensor, batch) -> Tensor:
    """Mean (B,) of each caption's losses (B, T) over its real tokens, a caption at a time."""
    real = padded_captions(batch)[0][:, 1:] != PAD_ID
    return torch.stack([row[kept].mean() for row, kept in zip(losses, real, strict=True)])


def test_the_loss_is_the_mean_over_captions_of_the_padded_twins_means_over_tokens() -> None:
    task = build()
    task.backbone.eval()
    parallel = [True, False, True, False]
    batch = batch_of(task, parallel)
    expected, kind = caption_means(losses_of(task, batch), batch), torch.tensor(parallel)
    output = task(batch)
    torch.testing.assert_close(output.loss, expected.mean())
    torch.testing.assert_close(output.logs["parallel"], expected[kind].mean())
    torch.testing.assert_close(output.logs["autoregressive"], expected[~kind].mean())


def test_unknown_tokens_of_a_caption_leave_the_weight_of_the_others() -> None:
    task = build()
    task.backbone.eval()
    batch = batch_of(task, [False] * 4)
    batch["targets"][0, :2] = PAD_ID  # unknown tokens and padding share an id
    batch["inputs"][0, 1:3] = PAD_ID
    expected = caption_means(losses_of(task, batch), batch)
    torch.testing.assert_close(task(batch).loss, expected.mean())


def test_a_parallel_token_is_told_by_image_and_place_alone() -> None:
    task = build().eval()
    batch = batch_of(task, [True, False, True, False])
    grid = task.backbone(normalize(batch["image"]))
    places = batch["places"][:2, 1]
    inputs, targets = batch["inputs"].clone(), batch["targets"].clone()
    targets[0, places] = inputs[0, places + 1] = targets[0, places] % 50 + 5
    losses, others = (
        task.token_losses(grid, each, batch["parallel"])
        for each in (batch, {**batch, "inputs": inputs, "targets": targets})
    )
    lengths = (padded_captions(batch)[1] - 1).tolist()
    same = losses.isclose(others, rtol=1e-7)[: sum(lengths)].split(lengths)
    length = len(same[0])
    assert same[0].tolist() == [True] + [False] + [True] * (length - 2)
    assert same[1][0]
    assert not same[1][1:].any()
    assert same[2].all()
    assert same[3].all()


@pytest.mark.parametrize("parallel", [True, False])
def test_a_batch_of_one_kind_logs_both_names_and_nothing_infinite(parallel: bool) -> None:
    task = build()
    output = task(batch_of(task, [parallel] * 4))
    assert output.logs.keys() == {"autoregressive", "parallel"}
    for value in output.logs.values():
        torch.testing.assert_close(value, output.loss.detach())
        assert not value.requires_grad


def test_the_mean_of_a_kind_is_that_of_all_where_a_step_has_none() -> None:
    losses, counts = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([2.0, 1.0])
    assert means_of_kinds(losses, torch.tensor([False, True, False]), counts).tolist() == [3.5, 2]
    all_of_one = means_of_kinds(losses, torch.tensor([False] * 3), torch.tensor([3.0, 0.0]))
    assert all_of_one.tolist() == [3, 3]


def test_small_pieces_log_each_kind_as_the_whole_step_does() -> None:
    task = build()
    task.backbone.eval()
    encoded = [
        {**task.encode(example(text), np.random.default_rng(i)), "parallel": torch.tensor(i > 0)}
        for i, text in enumerate(CAPTIONS)
    ]
    whole = task(task.collate(encoded)).logs
    pieces = with_mean_counts([task.collate([one]) for one in encoded], task.counts)
    logs = [task(piece).logs for piece in pieces]
    for name in ("autoregressive", "parallel"):
        torch.testing.assert_close(sum(log[name] for log in logs) / len(logs), whole[name])
    assert whole["autoregressive"] != whole["parallel"]


def test_in_validation_each_caption_is_predicted_in_both_ways() -> None:
    task = build(parallel_share=0.6).eval()
    batch = task.collate(
        [task.encode_validation(example(text), np.random.default_rng(0)) for text in CAPTIONS]
    )
    means = {
        name: caption_means(
            losses_of(task, {**batch, "parallel": torch.tensor([name == "parallel"] * 4)}), batch
        ).mean()
        for name in ("autoregressive", "parallel")
    }
    output = task(batch)
    torch.testing.assert_close(output.logs, means)
    expected = 0.4 * means["autoregressive"] + 0.6 * means["parallel"]
    torch.testing.assert_close(output.loss, expected)


def test_three_of_four_captions_are_parallel_as_the_generator_says() -> None:
    task, generator = build(), np.random.default_rng(0)
    drawn = [task.encode(example("a cat"), generator)["parallel"] for _ in range(1000)]
    assert torch.stack(drawn).float().mean().item() == pytest.approx(0.75, abs=0.05)
    encode = pickle.loads(pickle.dumps(task.encode))
    for seed in range(20):
        first, again = (
            each(example(*CAPTIONS), np.random.default_rng(seed)) for each in (task.encode, encode)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_image_and_caption_are_those_of_captioning() -> None:
    task = build()
    captioning = CaptioningConfig(head=HEAD).build(task.backbone, DATA)
    encoded, plain = (
        each.encode(example(*CAPTIONS), np.random.default_rng(5)) for each in (task, captioning)
    )
    assert all(torch.equal(encoded[name], plain[name]) for name in plain)


def test_every_parameter_learns_from_either_kind() -> None:
    for parallel in (True, False):
        task = build()
        task(batch_of(task, [parallel] * 4)).loss.backward()
        assert all(parameter.grad is not None for parameter in task.parameters())


def test_it_writes_captions() -> None:
    task = build()
    assert CapPaConfig.writes_captions
    assert task.writer is task.captioner


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_to_write_captions_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"parallel_share {share}"):
        CapPaConfig(parallel_share=share)
