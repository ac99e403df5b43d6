"""The losses of chance, against the best model that sees no image."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from virtex.models.k_hot import pad_targets, softmax_losses
from virtex.monitors.captions import duplicate_captions
from virtex.monitors.chance import chance_losses
from virtex.tasks.base import TaskConfig
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.classification import LabelClassificationConfig, TokenClassificationConfig
from virtex.tasks.contrastive import ContrastiveConfig, sigmoid_loss, softmax_loss
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tasks.moco import MocoConfig
from virtex.tasks.pirl import PirlConfig, noise_contrastive_loss
from virtex.tasks.prefix_lm import PrefixLmConfig

VOCABULARY = 30


def captions(number: int, *, seed: int = 1) -> list[torch.Tensor]:
    probs = np.random.default_rng(0).dirichlet(np.ones(VOCABULARY - 4))
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, size=number)
    return [
        torch.tensor([1, *(4 + rng.choice(VOCABULARY - 4, length, p=probs)), 2])
        for length in lengths
    ]


def best_constant(targets: torch.Tensor) -> float:
    """The cross-entropy of the best distribution that is the same for all targets."""
    counts = torch.bincount(targets, minlength=VOCABULARY).double()
    return float(cross_entropy(counts.log().expand(len(targets), -1), targets))


def value(task: TaskConfig, name: str, **data: object) -> float:
    return chance_losses(task, batch_size=32, **data)[name].value  # type: ignore[arg-type]


def test_of_a_decoder_it_is_the_entropy_of_single_tokens() -> None:
    sample = captions(4000)
    after_first = best_constant(torch.cat([tokens[1:] for tokens in sample]))
    for task, names in (
        (CaptioningConfig(bidirectional=True), ["captioning_forward", "captioning_backward"]),
        (CapPaConfig(), ["autoregressive", "parallel"]),
        (PrefixLmConfig(), ["loss"]),
    ):
        for name in names:
            assert value(task, name, captions=sample) == pytest.approx(after_first, abs=0.01)
    ordinary = best_constant(torch.cat([tokens[1:-1] for tokens in sample]))
    assert value(MaskedLmConfig(), "loss", captions=sample) == pytest.approx(ordinary, abs=0.01)


def test_a_small_sample_is_corrected_for_the_tokens_it_lacks() -> None:
    task, name = CaptioningConfig(bidirectional=False), "captioning_forward"
    known = value(task, name, captions=captions(20_000))
    samples = [captions(20, seed=seed) for seed in range(50)]
    found = np.mean([value(task, name, captions=sample) for sample in samples])
    plain = np.mean([best_constant(torch.cat([t[1:] for t in sample])) for sample in samples])
    assert plain < known - 0.05
    assert abs(found - known) < 0.5 * abs(plain - known)


def test_of_token_classification_it_is_the_best_constant_prediction() -> None:
    sample = captions(4000)
    targets = pad_targets([tokens[1:-1].unique() for tokens in sample])
    logits = torch.zeros(VOCABULARY, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        mean = softmax_losses(logits.expand(len(targets), -1), targets).mean()
        mean.backward()
        return mean

    optimizer.step(loss)
    expected = float(loss().detach())
    found = value(TokenClassificationConfig(), "classification", captions=sample)
    assert found == pytest.approx(expected, abs=0.01)
    labels = [tokens[1:-1].unique().tolist() for tokens in sample]
    found = value(LabelClassificationConfig(), "classification", labels=labels)
    assert found == pytest.approx(expected, abs=0.01)
    with_tokens = ContrastiveConfig(token_weight=1.0)
    assert value(with_tokens, "tokens", captions=sample) == pytest.approx(expected, abs=0.01)


def test_of_a_contrast_it_is_the_loss_of_equal_similarities() -> None:
    own, zeros = torch.arange(32), torch.zeros(32, 32)
    softmax = value(ContrastiveConfig(loss="softmax"), "contrastive")
    assert softmax == pytest.approx(float(softmax_loss(zeros, zeros, own)), rel=1e-5)
    best = min(float(sigmoid_loss(zeros + bias, own)) for bias in np.linspace(-6, 0, 2000))
    sigmoid = value(ContrastiveConfig(loss="sigmoid"), "contrastive")
    assert sigmoid == pytest.approx(best, rel=1e-5)


def test_of_moco_and_pirl_it_is_that_of_equal_logits() -> None:
    logits = torch.zeros(4, 1 + 64)
    moco = float(cross_entropy(logits, torch.zeros(4, dtype=torch.int64)))
    assert value(MocoConfig(queue_size=64), "loss") == pytest.approx(moco, rel=1e-5)
    pirl = float(noise_contrastive_loss(logits))
    assert value(PirlConfig(), "loss", num_negatives=64) == pytest.approx(pirl, rel=1e-5)


def test_too_few_captions_say_nothing() -> None:
    assert chance_losses(CaptioningConfig(), batch_size=32, captions=captions(5)) == {}
    assert not math.isnan(value(CaptioningConfig(), "captioning_forward", captions=captions(20)))


@pytest.mark.parametrize(
    ("texts", "seen"),
    [
        ([f"a scene of {i} dogs" for i in range(100)], None),
        (["a photo", *[f"scene {i}" for i in range(3)]] * 50, "25% of 200 captions are 'a photo'"),
        ([f"class {i % 12}" for i in range(240)], "240 captions are 12 distinct texts"),
        (["the same"] * 10, None),
    ],
)
def test_duplicate_captions_are_seen(texts: list[str], seen: str | None) -> None:
    assert duplicate_captions(texts) == seen
