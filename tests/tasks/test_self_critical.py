"""Self-critical training: rewards, gradients and losses against slow twins; what the task keeps."""

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.oracles.caption_scores import slow_cider_d
from tests.oracles.self_critical import caption_log_prob, expected_reward
from tests.small_run import small_config
from tests.task_options import task_flags
from tests.tasks.small_tasks import (
    SCENES,
    build,
    references,
    scenes_batch,
    small_backbone,
    tokenizer,
    without_gradient,
)
from virtex.data.example import Example
from virtex.data.tokenizer import train_tokenizer
from virtex.data.transforms import ImageConfig, normalize
from virtex.errors import CheckpointError, ConfigError, DataError
from virtex.models.backbone import Backbone
from virtex.models.textual_head import HeadConfig
from virtex.predict.loading import load_captioner
from virtex.pretrain import PretrainConfig, check, pretrain
from virtex.tasks.base import Batch, TaskData
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.self_critical import (
    END,
    MOST_REFERENCES,
    SelfCritical,
    SelfCriticalConfig,
    decode_references,
    encode_references,
)
from virtex.tokens import EOS_ID
from virtex.words.ptb_tokens import ptb_tokens
from virtex.zoo.init import open_init

HEAD = HeadConfig(hidden_size=32, num_heads=2, dropout=0.0, max_tokens=8)
CONFIG = SelfCriticalConfig(head=HEAD, bidirectional=False, samples_per_image=3)
UNFLIPPED = ImageConfig(size=32, flip_prob=0.0)
LETTERS = [("a b", "a c"), ("b c a", "c"), ("c b", "b")]
EXAMPLES = [Example(str(i), SCENES[i].image, texts) for i, texts in enumerate(LETTERS)]
NUM_QUANTILES = 96
SHORT = [
    "--num_samples=0",
    "--run.validate_every=0",
    "--run.checkpoint_every=0",
    "--run.num_steps=2",
]


def of_scenes(config: SelfCriticalConfig, image: ImageConfig = UNFLIPPED) -> SelfCritical:
    """A task on scenes whose captions are not what they were at first: all tokens are likely."""
    torch.manual_seed(0)
    data = TaskData(image, tokenizer(), references=references)
    task = config.build(Backbone(small_backbone(config, norm_layer="groupnorm1")), data)
    with torch.no_grad():
        for parameter in task.captioner.head.parameters():
            parameter.normal_(std=0.3)
    return task


def prepared(task: SelfCritical, indices: range = range(8)) -> Batch:
    """A training batch with its samples."""
    (batch,) = task.prepare_step([scenes_batch(task, indices)], seed=0)
    return batch


def samples(task: SelfCritical, batch: Batch) -> list[list[list[int]]]:
    """The token ids of each image's samples, end tokens included."""
    places, last = batch["sampled_places"], len(batch["sampled_rows"]) - 1
    rows = [row[row != last] for row in places]
    tokens = [batch["sampled_targets"][0][row].tolist() for row in rows]
    return [tokens[at : at + task.num_samples] for at in range(0, len(tokens), task.num_samples)]


def of_letters(*, max_tokens: int) -> SelfCritical:
    """A task whose captions are of few tokens."""
    torch.manual_seed(1)
    vocabulary = train_tokenizer([text for texts in LETTERS for text in texts], vocab_size=20)
    config = replace(CONFIG, head=replace(HEAD, max_tokens=max_tokens), samples_per_image=20)
    data = TaskData(UNFLIPPED, vocabulary, references=lambda: LETTERS)
    task = config.build(Backbone(small_backbone(config, norm_layer="groupnorm1")), data)
    with torch.no_grad():
        for parameter in task.captioner.head.parameters():
            parameter.normal_(std=0.3)
    return task


def test_the_gradient_is_that_of_the_expected_reward() -> None:
    """Against all captions there are; the samples are at even quantiles of the distribution."""
    task = of_letters(max_tokens=3)
    batch = task.collate([task.encode(EXAMPLES[0], np.random.default_rng(0))])
    even = (torch.arange(NUM_QUANTILES) + 0.5) / NUM_QUANTILES
    batch["draws"] = torch.cartesian_prod(even, even)[None]
    task.num_samples = NUM_QUANTILES**2
    (batch,) = task.prepare_step([batch], seed=0)
    own = [p for n, p in task.named_parameters() if "embedding.words" in n or "backbone" in n]
    found = torch.autograd.grad(task(batch).loss * batch["num_sampled"], own)

    truths = decode_references(batch["references"][0])
    image = normalize(batch["image"])
    expected = expected_reward(
        task.captioner,
        image,
        lambda caption: task.rewards(torch.tensor([[caption]]), [truths]).item(),
        max_steps=2,
    )
    assert batch["rewards"].mean().item() == pytest.approx(expected.item(), rel=0.02)
    exact = torch.cat([-value.flatten() for value in torch.autograd.grad(expected, own)])
    mean = torch.cat([value.flatten() for value in found]) / NUM_QUANTILES**2
    assert exact.norm() > 0.01
    assert (mean - exact).norm() < 0.05 * exact.norm()


def test_rewards_are_cider_d_with_the_end_as_a_word() -> None:
    task = of_scenes(CONFIG)
    batch = prepared(task)
    truths = [[[*ptb_tokens(text), END] for text in texts] for texts in references()]
    for number, captions in enumerate(zip(*samples(task, batch), strict=True)):
        words = [
            ptb_tokens(tokenizer().decode(caption)) + [END] * (EOS_ID in caption)
            for caption in captions
        ]
        expected = slow_cider_d(words, truths)
        assert batch["rewards"][:, number].tolist() == pytest.approx(expected, abs=1e-5)
    assert batch["rewards"].max() > 0


@pytest.mark.parametrize("baseline", ["samples", "greedy"])
def test_the_loss_is_the_surplus_over_the_baseline_times_log_p_per_token(baseline: str) -> None:
    task = of_scenes(replace(CONFIG, baseline=baseline))
    batch = prepared(task, range(3))
    total, images = torch.zeros(()), normalize(batch["image"])
    for index, captions in enumerate(samples(task, batch)):
        rewards = batch["rewards"][index].tolist()
        truths = decode_references(batch["references"][index])
        greedy = greedy_reward(task, images[index : index + 1], truths)
        for number, caption in enumerate(captions):
            others = rewards[:number] + rewards[number + 1 :]
            value = greedy if baseline == "greedy" else statistics.fmean(others)
            log_prob = caption_log_prob(task.captioner, images[index : index + 1], caption)
            total = total - (rewards[number] - value) * log_prob
    num_tokens = sum(len(caption) for captions in samples(task, batch) for caption in captions)
    assert batch["num_sampled"].item() == num_tokens
    output = task(batch)
    expected = total.item() / num_tokens
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)
    assert output.logs["reward"] == batch["rewards"].mean()


def greedy_reward(task: SelfCritical, image: Tensor, truths: list[list[str]]) -> float:
    search = replace(task.search, strategy="greedy")
    tokens = task.captioner.eval().generate(image, search).tokens
    task.captioner.train()
    return task.rewards(tokens, [truths]).item()


def test_a_backward_decoder_keeps_its_cross_entropy() -> None:
    task = of_scenes(replace(CONFIG, bidirectional=True))
    batch = prepared(task)
    output = task(batch)
    alone = {**batch, "advantages": torch.zeros_like(batch["advantages"])}
    backward = task(alone).loss
    assert output.logs["captioning_backward"] == backward != output.loss
    output.loss.backward()
    assert without_gradient(task) == []


def test_validation_has_the_loss_of_forward_captioning() -> None:
    task, captioning = (
        build(config).eval()
        for config in (CONFIG, CaptioningConfig(head=HEAD, bidirectional=False))
    )
    captioning.load_state_dict(task.state_dict())
    encoded = [task.encode_validation(SCENES[i], np.random.default_rng(i)) for i in range(4)]
    found = task(task.collate(encoded))
    expected = captioning(captioning.collate(encoded))
    assert found.loss == found.logs["captioning_forward"] == expected.loss


def test_sampling_leaves_statistics_and_modes_alone() -> None:
    task = build(replace(CONFIG, head=replace(HEAD, dropout=0.5)))
    before = {name: value.clone() for name, value in task.state_dict().items()}
    first = prepared(task)
    again = prepared(task)
    assert all(torch.equal(task.state_dict()[name], value) for name, value in before.items())
    assert all(module.training for module in task.modules())
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_references_are_flipped_with_the_image() -> None:
    task = of_scenes(CONFIG, ImageConfig(size=32, flip_prob=1.0))
    example = replace(SCENES[0], captions=("A dog on the left.", "A cat!"))
    encoded = task.encode(example, np.random.default_rng(0))
    found = decode_references(encoded["references"])
    assert found == [["a", "dog", "on", "the", "right", END], ["a", "cat", END]]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=MOST_REFERENCES + 2))
def test_words_pass_through_a_batch(captions: list[str]) -> None:
    padded = torch.nn.functional.pad(encode_references(captions), (0, 3))
    expected = [[*ptb_tokens(caption), END] for caption in captions[:MOST_REFERENCES]]
    assert decode_references(padded) == expected


def test_it_compiles_without_a_break() -> None:
    task = of_scenes(replace(CONFIG, bidirectional=True))
    batch = prepared(task)
    compiled = torch.compile(task, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(batch).loss, task(batch).loss)
    torch._dynamo.reset()


def test_rewards_rise() -> None:
    """From a captioner that writes letters at random; each image has captions of its own."""
    task = of_letters(max_tokens=6)
    optimizer = torch.optim.Adam(task.parameters(), lr=0.003)
    rng, rewards = np.random.default_rng(0), []
    for _ in range(40):
        encoded = [task.encode(example, rng) for example in EXAMPLES]
        (batch,) = task.prepare_step([task.collate(encoded)], seed=0)
        rewards.append(batch["rewards"].mean().item())
        optimizer.zero_grad()
        task(batch).loss.backward()
        optimizer.step()
    assert statistics.fmean(rewards[-10:]) > 1.3 * statistics.fmean(rewards[:10]), rewards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples_per_image": 0}, "samples_per_image 0"),
        ({"samples_per_image": 1}, "2 or more, and 1 is given: raise it, or set baseline greedy"),
        ({"baseline": "none"}, "must be samples or greedy"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelfCriticalConfig(**options)
    assert SelfCriticalConfig(samples_per_image=1, baseline="greedy").samples_per_image == 1


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner's run, which has a token loss beside the captions'."""
    out = tmp_path_factory.mktemp("captioner") / "run"
    pretrain(small_config(out, *task_flags("bicaptioning_tokens"), *SHORT))
    return out


def fine_tuned(out: Path, init: Path, *options: str) -> PretrainConfig:
    """The recipe over the options of the captioner's own run, as its page says."""
    recipes = ["--config", str(init / "config.yaml"), "--config", "self_critical"]
    return small_config(out, *recipes, f"--init={init}", "--run.batch_size=4", *SHORT, *options)


def test_it_starts_from_a_captioner_of_another_task(captioner: Path, tmp_path: Path) -> None:
    still = ["--optim.lr=0", "--optim.backbone_lr=0"]
    pretrain(fine_tuned(tmp_path / "run", captioner, *still))
    before, after = (open_init(str(run)).state for run in (captioner, tmp_path / "run"))
    assert {name for name in before if name.startswith("captioner.")} == set(after)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert load_captioner(tmp_path / "run").captioner.bidirectional


def test_the_recipe_goes_over_a_long_run_with_other_regularization(tmp_path: Path) -> None:
    """What counts steps, or makes the forward pass differ from sampling, is the recipe's own."""
    long = """
    backbone: {drop_path: 0.1, frozen: true}
    optim: {schedule: multistep, milestones: [300000], warmup_steps: 10000, unfreeze_at: 50000}
    early_stopping: {protocol: linear, data: {source: scenes}, first_step: 300000}
    run: {num_steps: 500000}
    """
    recipes = ["--config", long, "--config", "self_critical", "--init=a_run"]
    options = small_config(tmp_path / "run", *recipes)
    check(options)
    assert options.backbone.drop_path == 0


def test_a_model_that_writes_no_captions_is_no_start(tmp_path: Path) -> None:
    out = tmp_path / "run"
    pretrain(small_config(out, *task_flags("masked_lm"), *SHORT))
    config = fine_tuned(tmp_path / "fine_tuned", out, "--task.bidirectional=false")
    with pytest.raises(ConfigError, match="trained with MaskedLm, which writes no captions"):
        pretrain(config)


def test_a_captioner_of_another_kind_is_refused(captioner: Path, tmp_path: Path) -> None:
    config = fine_tuned(tmp_path / "run", captioner, "--task.bidirectional=false")
    with pytest.raises(CheckpointError, match=r"does not fit .*decoders\.1.*set these as in its"):
        pretrain(config)


def test_an_image_is_rewarded_alike_alone_and_in_a_batch() -> None:
    task = of_letters(max_tokens=4)
    whole = task.collate([task.encode(one, np.random.default_rng(0)) for one in EXAMPLES])
    alone = task.collate([task.encode(EXAMPLES[0], np.random.default_rng(0))])
    (whole,), (alone,) = (task.prepare_step([batch], seed=0) for batch in (whole, alone))
    assert alone["rewards"].any()
    assert torch.equal(alone["rewards"][0], whole["rewards"][0])
    assert torch.equal(alone["advantages"], whole["advantages"][: task.num_samples])


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([("a b", "c")], "there is a single training image"),
        ([("a b", "c"), ("c", "a b")], "all 2 training images that were read have the same words"),
    ],
)
def test_captions_that_leave_every_reward_at_0_are_refused(
    texts: list[tuple[str, ...]], found: str
) -> None:
    vocabulary = train_tokenizer(["a b", "c"], vocab_size=20)
    data = TaskData(UNFLIPPED, vocabulary, references=lambda: texts)
    backbone = Backbone(small_backbone(CONFIG, norm_layer="groupnorm1"))
    with pytest.raises(DataError, match=found):
        CONFIG.build(backbone, data)
