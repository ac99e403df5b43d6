from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.models.small import SLIM
from tests.tasks.padded_batch import padded_captions
from tests.tasks.small_tasks import SCENES, build, scenes_batch, tokenizer, training_pass
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.decoding_config import DecodingConfig
from virtex.models.k_hot import NO_TARGET
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import TokenClassificationConfig
from virtex.tokens import NUM_SPECIAL

VOCABULARY = train_tokenizer(["a red ball on a table", "two dogs run"], vocab_size=40)
HEAD = HeadConfig(hidden_size=64, dropout=0.0)


@pytest.mark.parametrize("original", [True, False])
def test_the_backward_transformer_starts_as_the_forward_one_in_the_original_alone(
    original: bool,
) -> None:
    torch.manual_seed(0)
    config = CaptioningConfig(head=HeadConfig(hidden_size=64), original=original)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    task = config.build(backbone, TaskData(ImageConfig(size=64), VOCABULARY))
    forward, backward = task.captioner.head.decoders
    pairs = list(zip(forward.parameters(), backward.parameters(), strict=True))
    assert all(mine is not theirs for mine, theirs in pairs)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs) == original


def test_several_captions_of_an_image_cost_what_each_costs_with_a_copy_of_it() -> None:
    several = build(CaptioningConfig(head=HEAD, captions_per_image=3))
    one = build(CaptioningConfig(head=HEAD))
    batch = scenes_batch(several)
    tokens, lengths = padded_captions(batch)  # (12, T), (12,)
    images = batch["image"].repeat_interleave(3, 0)
    copies = [
        {"image": image, "tokens": row[:length]}
        for image, row, length in zip(images, tokens, lengths.tolist(), strict=True)
    ]
    assert len(batch["image"]) == 4
    assert len(tokens) == 12
    together, apart = several(batch).loss, one(one.collate(copies)).loss
    torch.testing.assert_close(together, apart)
    together.backward(), apart.backward()
    for mine, theirs in zip(several.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-5, rtol=1e-4)


def test_captions_of_256_tokens_train_and_are_written() -> None:
    task = build(CaptioningConfig(head=HeadConfig(hidden_size=64, dropout=0.0, max_tokens=256)))
    long = replace(SCENES[0], captions=("a dog on the left of a dog " * 60,))
    encoded = [task.encode(one, np.random.default_rng(0)) for one in (long, SCENES[1])]
    assert len(encoded[0]["tokens"]) == 256
    batch = task.collate(encoded)
    optimizer = torch.optim.Adam(task.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        (output,) = training_pass(task, batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses == sorted(losses, reverse=True)
    images = torch.zeros(2, 3, 32, 32)
    for strategy in ("beam", "greedy"):
        decoding = DecodingConfig(strategy, num_beams=2, max_steps=256)
        written = task.eval().writer.generate(images, decoding)
        assert written.tokens.shape[-1] <= 256
        assert tokenizer().decode(written.tokens[0, 0].tolist())


def test_validation_reads_one_caption_of_each_image() -> None:
    task = build(CaptioningConfig(head=HEAD, captions_per_image=3))
    encoded = [task.encode_validation(SCENES[i], np.random.default_rng(0)) for i in range(2)]
    batch = task.collate(encoded)
    assert len(batch["places"]) == 2
    assert task.eval()(batch).loss > 0


def test_the_token_loss_is_added_to_that_of_captions_with_its_weight() -> None:
    plain = build(CaptioningConfig(head=HEAD))
    task = build(CaptioningConfig(head=HEAD, token_weight=0.5))
    tokens = build(TokenClassificationConfig())
    tokens.backbone.load_state_dict(task.backbone.state_dict())
    tokens.output.load_state_dict(task.token_loss.output.state_dict())
    plain.load_state_dict(task.state_dict(), strict=False)
    output, of_captions = task(scenes_batch(task)), plain(scenes_batch(plain)).loss
    expected = tokens(scenes_batch(tokens)).loss
    torch.testing.assert_close(output.logs["tokens"], expected.detach())
    torch.testing.assert_close(output.loss, of_captions + 0.5 * expected)
    assert set(plain.state_dict()) == {
        name for name in task.state_dict() if not name.startswith("token_loss.")
    }


def test_the_tokens_of_an_image_are_those_of_all_its_captions() -> None:
    task = build(CaptioningConfig(head=HEAD, captions_per_image=3, token_weight=1.0))
    batch = scenes_batch(task)
    tokens, _ = padded_captions(batch)  # (12, T)
    for targets, captions in zip(batch["token_targets"], tokens.view(4, 3, -1), strict=True):
        expected = {token for token in captions.flatten().tolist() if token >= NUM_SPECIAL}
        assert sorted(expected) == targets[targets != NO_TARGET].tolist()


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_token_weight_is_not_negative_and_finite(weight: float) -> None:
    with pytest.raises(ConfigError, match="token_weight"):
        CaptioningConfig(token_weight=weight)


@pytest.mark.parametrize("number", [0, 65])
def test_an_image_has_1_to_64_captions_in_a_step(number: int) -> None:
    with pytest.raises(ConfigError, match="captions_per_image"):
        CaptioningConfig(captions_per_image=number)
