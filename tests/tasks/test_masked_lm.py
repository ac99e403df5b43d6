"""Masked language modelling: hidden tokens, targets, and the loss."""

import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.models.small import SLIM
from tests.oracles.textual_head import PaddedCaptioner
from tests.tasks.padded_batch import padded_hidden
from virtex.data.example import Example
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, normalize
from virtex.errors import ConfigError
from virtex.models.backbone import Backbone, BackboneConfig
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.masked_lm import Hide, MaskedLmConfig, token_units
from virtex.tokens import EOS_ID, MASK_ID, NUM_SPECIAL, PAD_ID, SOS_ID

CAPTIONS = ["a red dog runs to the skateboard", "two cats sleep on the bed", "it is on the left"]
TOKENIZER = train_tokenizer(CAPTIONS, vocab_size=60)
DATA = TaskData(ImageConfig(size=32), TOKENIZER)
HEAD = HeadConfig(hidden_size=24, num_heads=3, dropout=0.0, max_tokens=40)
VOCAB_SIZE = 1000
LENGTH = 22
CAPTION = torch.tensor([SOS_ID, *range(100, 100 + LENGTH - 2), EOS_ID])


def hide(**options) -> Hide:
    return Hide(MaskedLmConfig(**options), VOCAB_SIZE, token_units)


def draws(rule: Hide, caption=CAPTION, count=2000) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = np.random.default_rng(0)
    return [rule(caption, generator) for _ in range(count)]


def kinds_of(hidden, caption) -> Counter:
    """Count the positions with [MASK], the original token, and another token."""
    masked, same = hidden == MASK_ID, hidden == caption
    return Counter(
        mask=int(masked.sum()), same=int(same.sum()), random=int((~masked & ~same).sum())
    )


def build(**options):
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig("resnet18", options=SLIM))
    return MaskedLmConfig(head=HEAD, **options).build(backbone, DATA)


def example(*captions: str) -> Example:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Example("0", pixels, captions)


def batch_of(task, captions=CAPTIONS):
    return task.collate(
        [task.encode(example(text), np.random.default_rng(i)) for i, text in enumerate(captions)]
    )


def test_15_percent_are_chosen_rounded_up_and_each_is_a_target() -> None:
    for _, targets in draws(hide(), count=50):
        assert (targets != PAD_ID).sum() == 3  # of 20
        assert torch.equal(targets[targets != PAD_ID], CAPTION[targets != PAD_ID])
        assert targets[0] == targets[-1] == PAD_ID


def test_chosen_tokens_are_masked_replaced_and_kept_in_their_shares() -> None:
    counts = Counter()
    for hidden, targets in draws(hide()):
        chosen = targets != PAD_ID
        counts += kinds_of(hidden[chosen], CAPTION[chosen])
        assert torch.equal(hidden[~chosen], CAPTION[~chosen])
    total = counts.total()  # 6,000, so that a share's deviation is at most 0.005
    shares = {kind: count / total for kind, count in counts.items()}
    assert shares == pytest.approx({"mask": 0.85, "random": 0.1, "same": 0.05}, abs=0.02)


def test_each_token_is_chosen_as_often_as_any_other() -> None:
    chosen = torch.stack([targets != PAD_ID for _, targets in draws(hide())])
    assert chosen[:, 1:-1].float().mean(0).numpy() == pytest.approx(0.15, abs=0.03)


def test_random_tokens_are_ordinary_ones_of_the_whole_vocabulary() -> None:
    rule = hide(mask_prob=1.0, mask_token_share=0.0, random_token_share=1.0)
    drawn = torch.cat([hidden[1:-1] for hidden, _ in draws(rule, count=500)])
    assert drawn.min() == NUM_SPECIAL
    assert drawn.max() == VOCAB_SIZE - 1
    assert drawn.float().mean().item() == pytest.approx((NUM_SPECIAL + VOCAB_SIZE) / 2, rel=0.02)


def test_a_short_caption_has_one_target_and_one_without_text_none() -> None:
    for text in ([7], [7, 8], []):
        caption = torch.tensor([SOS_ID, *text, EOS_ID])
        hidden, targets = hide()(caption, np.random.default_rng(0))
        assert (targets != PAD_ID).sum() == bool(text)
        assert (hidden[0], hidden[-1]) == (SOS_ID, EOS_ID)


def test_special_and_unknown_tokens_are_never_chosen_nor_the_last_of_a_cut_caption() -> None:
    assert token_units([SOS_ID, 0, 9, 0, EOS_ID]) == [(2,)]
    assert token_units([SOS_ID, 7, 8]) == [(1,)]


def test_only_masked_tokens_are_targets_of_the_original() -> None:
    counts, num_targets = Counter(), 0
    for hidden, targets in draws(hide(original=True)):
        assert torch.equal(targets != PAD_ID, hidden == MASK_ID)
        counts += kinds_of(hidden, CAPTION)
        num_targets += int((targets != PAD_ID).sum())
    assert num_targets / 6000 == pytest.approx(0.85, abs=0.02)
    assert counts["random"] / 6000 == pytest.approx(0.1, abs=0.02)


def test_the_original_masks_a_token_that_is_chosen_alone() -> None:
    caption = torch.tensor([SOS_ID, 7, 8, 9, EOS_ID])
    rule = {"mask_token_share": 0.5, "random_token_share": 0.5}
    originals = [hidden for hidden, _ in draws(hide(original=True, **rule), caption, 100)]
    ours = [hidden for hidden, _ in draws(hide(**rule), caption, 100)]
    assert all((hidden == MASK_ID).sum() == 1 for hidden in originals)
    assert 30 < sum(int((hidden == MASK_ID).sum()) for hidden in ours) < 70


def test_the_original_draws_special_tokens_too() -> None:
    rule = hide(original=True, mask_prob=1.0, mask_token_share=1e-9, random_token_share=1 - 1e-9)
    drawn = torch.cat([hidden[1:-1] for hidden, _ in draws(rule, count=500)])
    assert {0, 1, 2} <= set(drawn.tolist())


@pytest.mark.parametrize("options", [{}, {"masked_words": "concepts"}])
def test_encoding_depends_on_the_generator_alone_and_is_picklable(options) -> None:
    task = build(**options)
    for encode in (task.encode, pickle.loads(pickle.dumps(task.encode)), task.encode_validation):
        first, again, other = (
            encode(example(CAPTIONS[0]), np.random.default_rng(seed)) for seed in (1, 1, 2)
        )
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["targets"], other["targets"])


def test_image_and_caption_are_those_of_captioning() -> None:
    task = build()
    captioning = CaptioningConfig(head=HEAD).build(task.backbone, DATA)
    encoded, plain = (
        each.encode(example(*CAPTIONS), np.random.default_rng(5)) for each in (task, captioning)
    )
    is_target = encoded["targets"] != PAD_ID
    assert torch.equal(encoded["image"], plain["image"])
    assert torch.equal(encoded["tokens"].where(~is_target, encoded["targets"]), plain["tokens"])


def test_the_loss_is_the_mean_over_the_targets_of_the_padded_twin() -> None:
    task = build().eval()
    for parameter in task.captioner.head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    batch = batch_of(task)
    twin = PaddedCaptioner(task.captioner)
    inputs, lengths, targets = padded_hidden(batch)
    logits = twin.textual(twin.visual(normalize(batch["image"])), inputs, lengths, is_causal=False)
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=PAD_ID)
    output = task(batch)
    torch.testing.assert_close(output.loss, expected)
    num_targets = sum(math.ceil(0.15 * (length - 2)) for length in lengths.tolist())
    assert output.logs == {}
    logs = task.train()(batch).logs
    assert logs["targets_per_caption"] == pytest.approx(num_targets / 3)


def test_captions_without_text_leave_loss_and_gradients_zero() -> None:
    task = build()
    output = task(batch_of(task, ["", ""]))
    output.loss.backward()
    assert output.loss == 0
    assert all(not parameter.grad.any() for parameter in task.parameters())


def test_every_parameter_learns() -> None:
    task = build()
    task(batch_of(task)).loss.backward()
    assert all(parameter.grad is not None for parameter in task.parameters())


def test_the_parameters_are_those_of_forward_captioning() -> None:
    task = build()
    captioning = CaptioningConfig(head=HEAD, bidirectional=False).build(task.backbone, DATA)
    assert task.state_dict().keys() == captioning.state_dict().keys()
    assert task.no_weight_decay() == captioning.no_weight_decay()


def test_concept_words_alone_are_hidden_and_whole() -> None:
    task = build(masked_words="concepts", mask_token_share=1.0, random_token_share=0.0)
    found = Counter()
    for seed in range(40):
        encoded = task.encode_validation(example(CAPTIONS[0]), np.random.default_rng(seed))
        is_target = encoded["targets"] != PAD_ID
        assert torch.equal(encoded["tokens"] == MASK_ID, is_target)
        found[TOKENIZER.decode(encoded["targets"][is_target].tolist())] += 1
    assert found.keys() == {"red", "dog", "runs", "skateboard"}
    assert len(TOKENIZER.encode("skateboard")) > 1


def test_listed_words_are_the_concepts_and_a_caption_without_any_has_no_target(tmp_path) -> None:
    (tmp_path / "words.txt").write_text("Dog\ncats\n")
    task = build(masked_words="concepts", concepts_path=tmp_path / "words.txt")
    _, _, targets = padded_hidden(batch_of(task))
    words = [TOKENIZER.decode(row[row != PAD_ID].tolist()) for row in targets]
    assert words == ["dog", "cats", ""]


def test_concepts_of_no_caption_are_refused(tmp_path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("Hund\nKatze\n")
    config = MaskedLmConfig(masked_words="concepts", concepts_path=path)
    captions = [["a dog runs", "a red dog"], ["cats"]]
    data = TaskData(ImageConfig(size=32), TOKENIZER, references=lambda: captions)
    with pytest.raises(ConfigError, match=r"of 2 training images hold no words of .*words\.txt"):
        config.build(Backbone(BackboneConfig("resnet18", options=SLIM)), data)
    path.write_text("Hund\ncats\n")
    config.build(Backbone(BackboneConfig("resnet18", options=SLIM)), data)


def test_a_missing_list_of_concepts_is_refused_before_training(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt"):
        build(masked_words="concepts", concepts_path=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_prob": 0.0}, "mask_prob 0.0"),
        (
            {"mask_prob": 1.5, "mask_token_share": 0.95},
            "(?s)mask_prob 1.5.*0.95 and .* 0.1 .*their sum",
        ),
        ({"random_token_share": -0.1}, "random_token_share -0.1"),
        ({"original": True, "mask_token_share": 0.0}, "leaves no target"),
        ({"masked_words": "nouns"}, "'nouns'"),
        ({"concepts_path": "words.txt"}, "masked_words: concepts"),
        ({"masked_words": "concepts", "original": True}, "original is for masked_words: tokens"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        MaskedLmConfig(**options)
