"""Label smoothing: against its formula, in training alone, in each task that predicts tokens."""

import pytest
import torch

from tests.models.small import small_captioner
from tests.tasks.small_tasks import build, scenes_batch
from virtex.errors import ConfigError
from virtex.models.textual_head import HeadConfig
from virtex.tasks.base import WithSmoothingConfig
from virtex.tasks.cappa import CapPaConfig
from virtex.tasks.captioning import CaptioningConfig
from virtex.tasks.locca import LocCaConfig
from virtex.tasks.masked_lm import MaskedLmConfig
from virtex.tokens import PAD_ID

HEAD = HeadConfig(hidden_size=64, dropout=0.0)
KINDS = [CaptioningConfig, CapPaConfig, LocCaConfig, MaskedLmConfig]


def test_a_share_of_each_target_is_spread_over_the_vocabulary() -> None:
    head = small_captioner().head.train()
    hidden, targets = torch.randn(2, 5, 24), torch.tensor([[7, 1, PAD_ID, 3, 39], [2, 2, 4, 5, 6]])
    plain = head.token_losses(hidden, targets)
    head.label_smoothing = 0.1
    smoothed = head.token_losses(hidden, targets)
    everywhere = -head.logits(hidden).log_softmax(-1).mean(-1)
    expected = (0.9 * plain + 0.1 * everywhere).masked_fill(targets == PAD_ID, 0)
    torch.testing.assert_close(smoothed, expected)
    assert torch.equal(head.eval().token_losses(hidden, targets), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_smoothed_and_validation_is_not(kind: type[WithSmoothingConfig]) -> None:
    plain, smoothed = build(kind(head=HEAD)), build(kind(head=HEAD, label_smoothing=0.2))
    batch = scenes_batch(plain)
    assert smoothed(batch).loss != plain(batch).loss
    assert torch.equal(smoothed.eval()(batch).loss, plain.eval()(batch).loss)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_is_at_least_0_and_below_1(kind: type[WithSmoothingConfig], share: float) -> None:
    with pytest.raises(ConfigError, match="label_smoothing"):
        kind(label_smoothing=share)
